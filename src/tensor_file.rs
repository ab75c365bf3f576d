//! Reads and writes safetensors files tensor by tensor, with every length checked before anything is allocated.

mod element;
mod write;

use crate::error::{Error, Result, check_finite};
use crate::file_kind::{HEAD_BYTES, mistaken};
use crate::float_type::check_float;
use crate::hash::fnv1a;
use burn::tensor::{DType, Device, Tensor, TensorData};
pub(crate) use element::Element;
use ndarray::{Array, Dimension, IntoDimension};
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
pub use write::write_tensors;
pub(crate) use write::{StoredArray, stream_arrays, write_checked, write_checked_texts};

/// Largest header accepted, the limit of the safetensors format itself.
pub const MAX_HEADER_BYTES: u64 = 100_000_000;

/// A safetensors file opened for reading one tensor at a time.
#[derive(Debug)]
pub struct TensorFile {
    path: PathBuf,
    file: File,
    metadata: Metadata,
    data_start: u64,
    /// Hash of each tensor, and of each text among the metadata, where the file has them.
    checksums: Option<BTreeMap<String, String>>,
}

/// Where the checksums are among the metadata.
const CHECKSUMS: &str = "checksums";

/// The floating-point types of a file, and what the tensors read from them are held in.
const FLOATS: [(Dtype, DType); 4] =
    [(Dtype::F64, DType::F64), (Dtype::F32, DType::F32), (Dtype::F16, DType::F16), (Dtype::BF16, DType::BF16)];

fn no_float(name: &str, found: impl std::fmt::Debug) -> Error {
    Error::Unsupported {
        what: format!("element type of tensor `{name}`"),
        found: format!("{found:?}"),
        supported: "F64, F32, F16, BF16".into(),
    }
}

fn checksum(hash: u64) -> String {
    format!("{hash:016x}")
}

impl TensorFile {
    /// Opens a file and checks its header against its length.
    ///
    /// # Errors
    /// If the file cannot be read, is truncated, or its header is malformed (both lengths are named), or if it is another kind of
    /// file altogether, such as a pointer of Git LFS.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref().to_path_buf();
        let mut file = File::open(&path).map_err(|e| Error::io(&path, e))?;
        let length = file.metadata().map_err(|e| Error::io(&path, e))?.len();
        let truncated = |needed: u64| {
            Error::format(path.display(), format!("truncated safetensors file: needs {needed} bytes, has {length}"))
        };
        let mut head = Vec::new();
        (&mut file).take(HEAD_BYTES).read_to_end(&mut head).map_err(|e| Error::io(&path, e))?;
        let other = |otherwise: String| Error::format(path.display(), mistaken(&head).unwrap_or(otherwise));
        let Some(prefix) = head.first_chunk() else {
            return Err(if head.is_empty() { other(String::new()) } else { truncated(8) });
        };
        let header_length = u64::from_le_bytes(*prefix);
        if header_length > MAX_HEADER_BYTES {
            return Err(other(format!(
                "is no safetensors file: its first eight bytes promise a header of {header_length} bytes, above the limit of \
                 {MAX_HEADER_BYTES}"
            )));
        }
        if header_length == 0 {
            let reason =
                "begins with eight zeros where the length of its header should be: its download did not finish";
            return Err(Error::format(path.display(), reason));
        }
        let data_start = 8 + header_length;
        if length < data_start {
            return Err(truncated(data_start));
        }
        let mut header = vec![0u8; header_length as usize];
        file.seek(SeekFrom::Start(8)).and_then(|_| file.read_exact(&mut header)).map_err(|e| Error::io(&path, e))?;
        let metadata: Metadata = serde_json::from_slice(&header)
            .map_err(|e| Error::format(path.display(), format!("safetensors header: {e}")))?;
        let end = metadata.tensors().values().map(|t| t.data_offsets.1 as u64).max().unwrap_or(0);
        let needed = data_start.saturating_add(end);
        if length < needed {
            return Err(truncated(needed));
        }
        let checksums = metadata.metadata().as_ref().and_then(|texts| texts.get(CHECKSUMS));
        let checksums = checksums.map(|text| serde_json::from_str(text)).transpose();
        let checksums = checksums.map_err(|e| Error::format(path.display(), format!("{CHECKSUMS}: {e}")))?;
        Ok(Self { path, file, metadata, data_start, checksums })
    }

    /// Names of all tensors, sorted.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.metadata.tensors().into_keys().collect();
        names.sort();
        names
    }

    /// The shape of a tensor, if it is there.
    pub fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.metadata.info(name).map(|info| info.shape.clone())
    }

    /// The element type of a tensor as the file calls it, such as `BF16`, if it is there.
    pub fn element_type(&self, name: &str) -> Option<String> {
        self.metadata.info(name).map(|info| format!("{:?}", info.dtype))
    }

    /// True if the header's free metadata have a text under a key.
    pub fn has_metadata(&self, key: &str) -> bool {
        self.metadata.metadata().as_ref().is_some_and(|texts| texts.contains_key(key))
    }

    /// The text under a key of the header's free metadata, which must have a checksum.
    ///
    /// # Errors
    /// If it is missing or damaged.
    pub(crate) fn checked_metadata(&self, key: &str) -> Result<&str> {
        let format = |reason: String| Error::format(self.path.display(), reason);
        let texts = self.metadata.metadata().as_ref();
        let text = texts.and_then(|texts| texts.get(key));
        let text = text.ok_or_else(|| format(format!("the metadata have no key `{key}`")))?;
        if self.checksums.is_none() {
            return Err(format(format!("the metadata have no key `{CHECKSUMS}`")));
        }
        self.check(key, text.as_bytes())?;
        Ok(text)
    }

    /// Reads every tensor, and every text that has a checksum.
    ///
    /// # Errors
    /// If one cannot be read, or is damaged in a file that has checksums.
    pub fn check_all(&mut self) -> Result<()> {
        for name in self.names() {
            let info = self.info(&name)?;
            self.bytes(&name, &info)?;
        }
        let texts = self.metadata.metadata().iter().flatten();
        for (key, text) in texts.filter(|(key, _)| *key != CHECKSUMS) {
            self.check(key, text.as_bytes())?;
        }
        Ok(())
    }

    /// Compares bytes with their checksum, in a file that has any.
    fn check(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let Some(checksums) = &self.checksums else { return Ok(()) };
        let found = checksum(fnv1a(bytes.iter().copied()));
        match checksums.get(name) {
            Some(expected) if *expected == found => Ok(()),
            expected => Err(Error::format(
                self.path.display(),
                format!(
                    "`{name}` is damaged: its checksum is {found}, not {}",
                    expected.map_or("known", String::as_str)
                ),
            )),
        }
    }

    /// Reads one tensor of the expected shape as values of `dtype`, all finite.
    ///
    /// # Errors
    /// If it is missing, has another shape or an element type other than f64, f32, f16 or bf16, is not finite, or `dtype` cannot
    /// hold its values.
    pub fn read<const D: usize>(
        &mut self,
        name: &str,
        expected: [usize; D],
        dtype: DType,
        device: &Device,
    ) -> Result<Tensor<D>> {
        let data = self.read_data(name)?;
        self.check_shape(name, &expected, data.shape().as_slice())?;
        Ok(Tensor::from_data(converted(name, data, dtype)?, (device, dtype)))
    }

    /// Whether another file's tensor of this name has the same element type, shape and bytes.
    ///
    /// # Errors
    /// If it is missing from one of them, or cannot be read.
    pub(crate) fn has_same(&mut self, name: &str, other: &mut Self) -> Result<bool> {
        let (own, others) = (self.info(name)?, other.info(name)?);
        Ok(own.dtype == others.dtype
            && own.shape == others.shape
            && self.bytes(name, &own)? == other.bytes(name, &others)?)
    }

    /// Reads one tensor of exactly the expected shape and element type to the host, all its values finite.
    ///
    /// # Errors
    /// If it is missing, has another shape or element type, or is not finite.
    pub(crate) fn read_array<T: Element, S: IntoDimension>(
        &mut self,
        name: &str,
        expected: S,
    ) -> Result<Array<T, S::Dim>> {
        let (info, expected) = (self.info(name)?, expected.into_dimension());
        self.check_shape(name, expected.slice(), &info.shape)?;
        let place = format!("tensor `{name}` in {}", self.path.display());
        if info.dtype != T::DTYPE {
            return Err(Error::Unsupported {
                what: format!("element type of {place}"),
                found: format!("{:?}", info.dtype),
                supported: format!("{:?}", T::DTYPE),
            });
        }
        let values: Vec<T> = self.bytes(name, &info)?.chunks_exact(size_of::<T>()).map(T::read).collect();
        check_finite(&place, values.iter().map(|v| v.is_finite()))?;
        Array::from_shape_vec(expected, values).map_err(|e| Error::format(place, e))
    }

    fn info(&self, name: &str) -> Result<TensorInfo> {
        let missing = || Error::MissingTensor { name: name.to_string(), location: self.path.clone() };
        self.metadata.info(name).cloned().ok_or_else(missing)
    }

    fn check_shape(&self, name: &str, expected: &[usize], found: &[usize]) -> Result<()> {
        if found == expected {
            return Ok(());
        }
        Err(Error::Shape {
            what: format!("tensor `{name}` in {}", self.path.display()),
            expected: expected.to_vec(),
            found: found.to_vec(),
        })
    }

    fn read_data(&mut self, name: &str) -> Result<TensorData> {
        let info = self.info(name)?;
        let held = FLOATS.iter().find(|(stored, _)| *stored == info.dtype).map(|(_, held)| *held);
        let dtype = held.ok_or_else(|| no_float(name, info.dtype))?;
        Ok(TensorData::from_bytes_vec(self.bytes(name, &info)?, info.shape, dtype))
    }

    /// The bytes of a tensor, no more than the file has: [`TensorFile::open`] compared both.
    fn bytes(&mut self, name: &str, info: &TensorInfo) -> Result<Vec<u8>> {
        let (start, end) = info.data_offsets;
        let mut bytes = vec![0u8; end - start];
        self.file
            .seek(SeekFrom::Start(self.data_start + start as u64))
            .and_then(|_| self.file.read_exact(&mut bytes))
            .map_err(|e| Error::io(&self.path, e))?;
        self.check(name, &bytes)?;
        Ok(bytes)
    }
}

/// Checks that all values are finite numbers.
pub(crate) fn check_tensor(name: &str, data: &TensorData) -> Result<()> {
    check_values(format_args!("tensor `{name}`"), data)
}

fn check_values(what: impl std::fmt::Display, data: &TensorData) -> Result<()> {
    match data.dtype() {
        DType::F32 => check_finite(what, data.iter::<f32>().map(|v| v.is_finite())),
        _ => check_finite(what, data.iter::<f64>().map(|v| v.is_finite())),
    }
}

/// The values of a tensor in another element type, which must be able to hold them.
///
/// # Errors
/// If they are not finite as they are stored, or no longer in `dtype`.
pub(crate) fn converted(name: &str, data: TensorData, dtype: DType) -> Result<TensorData> {
    check_float(format!("element type to read tensor `{name}` in"), dtype)?;
    check_tensor(name, &data)?;
    let stored = data.dtype();
    if stored == dtype {
        return Ok(data);
    }
    let data = data.convert_dtype(dtype);
    check_values(format_args!("tensor `{name}`, stored in {stored:?} and read in {dtype:?}"), &data)?;
    Ok(data)
}
