//! Opens a GGUF container with its counts, block types and extents checked, and decodes one tensor at a time.

use super::BlockType;
use crate::error::{Error, Result};
use crate::file_kind::{HEAD_BYTES, mistaken};
use gguf_rs_lib::format::metadata::MetadataValue;
use gguf_rs_lib::reader::file_reader::{GGUFFileReader, GGUFReaderConfig};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

/// The most memory that the metadata of a file may take when decoded (256 MiB); a small file may take less, see
/// [`GgufFile::open`].
pub const MAX_DECODED_METADATA_BYTES: usize = 1 << 28;

/// Decoded metadata may be this many times as large as the file: an array of single bytes grows to 32 bytes each.
const DECODED_BYTES_A_BYTE: u64 = 64;

const MAGIC: &[u8; 4] = b"GGUF";
const VERSION: u32 = 3;

/// Magic, version, number of tensors, number of metadata entries.
const HEADER_BYTES: usize = 24;

/// Fewest bytes of a tensor's entry (name of one byte, one dimension) and of a metadata entry (key of one byte, one byte).
const MIN_TENSOR_ENTRY: u64 = 8 + 1 + 4 + 8 + 4 + 8;
const MIN_METADATA_ENTRY: u64 = 8 + 1 + 4 + 1;

/// A GGUF file, version 3, opened for reading one tensor at a time.
#[derive(Debug)]
pub struct GgufFile {
    path: PathBuf,
    reader: GGUFFileReader<BufReader<File>>,
    tensors: BTreeMap<String, Stored>,
}

#[derive(Debug, Clone)]
struct Stored {
    block_type: BlockType,
    shape: Vec<usize>,
    bytes: usize,
}

impl GgufFile {
    /// Opens a file and checks its counts, the type and the extent of every tensor against its length.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Unsupported`] for versions 1 and 2, big-endian files, and block types that cannot be decoded,
    /// with the tensor's name; [`Error::Format`] for what is another kind of file, truncated or malformed, or whose metadata
    /// would need more than 64 times the file's length, or [`MAX_DECODED_METADATA_BYTES`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref().to_path_buf();
        let mut file = File::open(&path).map_err(|e| Error::io(&path, e))?;
        let length = file.metadata().map_err(|e| Error::io(&path, e))?.len();
        let mut head = Vec::new();
        (&mut file).take(HEAD_BYTES).read_to_end(&mut head).map_err(|e| Error::io(&path, e))?;
        file.rewind().map_err(|e| Error::io(&path, e))?;
        if let Some(reason) = mistaken(&head).filter(|_| !head.starts_with(MAGIC)) {
            return Err(Error::format(path.display(), reason));
        }
        let Some(header) = head.first_chunk() else {
            return Err(truncated(&path, "the header", HEADER_BYTES as u64, length));
        };
        check_header(&path, header, length)?;
        let decoded = length.saturating_mul(DECODED_BYTES_A_BYTE).min(MAX_DECODED_METADATA_BYTES as u64);
        let config = GGUFReaderConfig {
            max_decoded_metadata_size: decoded as usize,
            // extents are checked below, with both numbers
            validate_integrity: false,
            ..GGUFReaderConfig::default()
        };
        let reader = guarded(&path, || GGUFFileReader::with_config(BufReader::new(file), config))?;
        let tensors = tensors(&path, &reader, length)?;
        Ok(Self { path, reader, tensors })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Names of all tensors, sorted.
    pub fn names(&self) -> Vec<String> {
        self.tensors.keys().cloned().collect()
    }

    /// The shape of a tensor, slowest dimension first as in PyTorch, if it is there. (GGUF itself writes it in reverse.)
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.tensors.get(name).map(|t| t.shape.as_slice())
    }

    /// How a tensor is packed, if it is there.
    pub fn block_type(&self, name: &str) -> Option<BlockType> {
        self.tensors.get(name).map(|t| t.block_type)
    }

    /// Reads and decodes a tensor, slowest dimension first. Needs its bytes in the file and four bytes a value.
    ///
    /// # Errors
    /// If it is missing or the file has changed since it was opened.
    pub fn values(&mut self, name: &str) -> Result<Vec<f32>> {
        let missing = || Error::MissingTensor { name: name.to_string(), location: self.path.clone() };
        let stored = self.tensors.get(name).cloned().ok_or_else(missing)?;
        let data = guarded(&self.path, || self.reader.load_tensor_data(name))?;
        let bytes = data.as_ref().map_or(&[][..], |data| data.as_slice());
        if bytes.len() != stored.bytes {
            return Err(Error::Count {
                what: format!("bytes of tensor `{name}` in {}", self.path.display()),
                expected: stored.bytes,
                found: bytes.len(),
            });
        }
        stored.block_type.decode(bytes)
    }

    /// The text under a metadata key, if there is one.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if the key holds something else.
    pub fn text(&self, key: &str) -> Result<Option<&str>> {
        self.value(key, "a text", |value| match value {
            MetadataValue::String(text) => Some(text.as_str()),
            _ => None,
        })
    }

    /// The count under a metadata key, an integer of any width, if there is one.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if the key holds something else, such as a negative number or an array.
    pub fn count(&self, key: &str) -> Result<Option<usize>> {
        self.value(key, "one integer that is not negative", |value| {
            let count = match *value {
                MetadataValue::U8(n) => n.into(),
                MetadataValue::U16(n) => n.into(),
                MetadataValue::U32(n) => n.into(),
                MetadataValue::U64(n) => n,
                MetadataValue::I8(n) => n.try_into().ok()?,
                MetadataValue::I16(n) => n.try_into().ok()?,
                MetadataValue::I32(n) => n.try_into().ok()?,
                MetadataValue::I64(n) => n.try_into().ok()?,
                _ => return None,
            };
            usize::try_from(count).ok()
        })
    }

    /// The number under a metadata key, if there is one. An f32 is taken for the shortest decimal that it stands for, as the
    /// `config.json` that it came from wrote it: 1e-5, not 0.00000999999974.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if the key holds something else.
    pub fn number(&self, key: &str) -> Result<Option<f64>> {
        self.value(key, "one floating-point number", |value| match *value {
            MetadataValue::F32(x) => x.to_string().parse().ok(),
            MetadataValue::F64(x) => Some(x),
            _ => None,
        })
    }

    /// What a metadata key says is so, if there is one.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if the key holds something else.
    pub fn flag(&self, key: &str) -> Result<Option<bool>> {
        self.value(key, "true or false", |value| match *value {
            MetadataValue::Bool(flag) => Some(flag),
            _ => None,
        })
    }

    /// The list of what a metadata key says is so; `None` for a key that is not there or holds no list.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a list of something else.
    pub fn flags(&self, key: &str) -> Result<Option<Vec<bool>>> {
        let Some(MetadataValue::Array(list)) = self.reader.metadata().get(key) else { return Ok(None) };
        let flag = |value: &MetadataValue| match *value {
            MetadataValue::Bool(flag) => Some(flag),
            _ => None,
        };
        let flags: Option<Vec<bool>> = list.values.iter().map(flag).collect();
        flags.map(Some).ok_or_else(|| Error::Unsupported {
            what: format!("{}: metadata `{key}`", self.path.display()),
            found: format!("a list of {}", list.element_type),
            supported: "a list of true or false".into(),
        })
    }

    fn value<'a, T>(
        &'a self,
        key: &str,
        expected: &str,
        read: impl FnOnce(&'a MetadataValue) -> Option<T>,
    ) -> Result<Option<T>> {
        let Some(value) = self.reader.metadata().get(key) else { return Ok(None) };
        read(value).map(Some).ok_or_else(|| Error::Unsupported {
            what: format!("{}: metadata `{key}`", self.path.display()),
            found: value.value_type().to_string(),
            supported: expected.into(),
        })
    }
}

fn truncated(path: &Path, what: &str, needed: u64, length: u64) -> Error {
    Error::format(path.display(), format!("truncated GGUF file: {what} needs {needed} bytes, the file has {length}"))
}

/// Checks magic, version and byte order, and that the counts could fit into the file at all.
fn check_header(path: &Path, header: &[u8; HEADER_BYTES], length: u64) -> Result<()> {
    let word = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    let count = |at: usize| u64::from(word(at)) | (u64::from(word(at + 4)) << 32);
    if &header[..4] != MAGIC {
        return Err(Error::format(path.display(), format!("begins with {:?}, not with `GGUF`", &header[..4])));
    }
    let version = word(4);
    if version != VERSION {
        // read in the wrong order, a small number is a large one
        let order = if version > u32::from(u16::MAX) { ", big-endian" } else { "" };
        let number = if order.is_empty() { version } else { version.swap_bytes() };
        return Err(Error::Unsupported {
            what: format!("{}: GGUF version", path.display()),
            found: format!("{number}{order}"),
            supported: format!("{VERSION}, little-endian"),
        });
    }
    for (what, count, least) in
        [("tensors", count(8), MIN_TENSOR_ENTRY), ("metadata entries", count(16), MIN_METADATA_ENTRY)]
    {
        let needed = count.saturating_mul(least).saturating_add(HEADER_BYTES as u64);
        if needed > length {
            return Err(truncated(path, &format!("a list of {count} {what}"), needed, length));
        }
    }
    Ok(())
}

/// What the file says about its tensors, each within the file and of a type that can be decoded.
fn tensors(path: &Path, reader: &GGUFFileReader<BufReader<File>>, length: u64) -> Result<BTreeMap<String, Stored>> {
    let mut tensors = BTreeMap::new();
    for info in reader.tensor_infos() {
        let (name, found) = (info.name(), info.tensor_type().name());
        let what = format!("tensor `{name}`");
        let block_type = BlockType::ALL.into_iter().find(|t| t.name() == found).ok_or_else(|| Error::Unsupported {
            what: format!("{}: block type of {what}", path.display()),
            found: found.into(),
            supported: format!(
                "{}; such as a Q8_0 or Q4_K_M file of the model",
                BlockType::ALL.map(BlockType::name).join(", ")
            ),
        })?;
        let overflow = || Error::format(path.display(), format!("{what} has too many values for this machine"));
        let shape: Option<Vec<usize>> = info.shape().dims().iter().rev().map(|n| usize::try_from(*n).ok()).collect();
        let shape = shape.ok_or_else(overflow)?;
        let count = shape.iter().try_fold(1usize, |product, n| product.checked_mul(*n)).ok_or_else(overflow)?;
        // the parser says so too; decoding relies on it
        let row = shape.last().copied().unwrap_or(0);
        if !row.is_multiple_of(block_type.block_values()) {
            return Err(Error::format(
                path.display(),
                format!("{what}: rows of {row} values are not whole {found} blocks of {}", block_type.block_values()),
            ));
        }
        let bytes = (count / block_type.block_values()).checked_mul(block_type.block_bytes()).ok_or_else(overflow)?;
        let start = reader.tensor_data_offset().checked_add(info.data_offset());
        let end = start.and_then(|start| start.checked_add(bytes as u64)).ok_or_else(overflow)?;
        if end > length {
            return Err(truncated(path, &what, end, length));
        }
        tensors.insert(name.to_string(), Stored { block_type, shape, bytes });
    }
    Ok(tensors)
}

/// Calls into the container's parser and turns both its errors and its panics into [`Error::Format`].
fn guarded<T>(path: &Path, call: impl FnOnce() -> gguf_rs_lib::Result<T>) -> Result<T> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(reason)) => Err(Error::format(path.display(), reason)),
        Err(_) => Err(Error::format(path.display(), "the GGUF parser panicked")),
    }
}
