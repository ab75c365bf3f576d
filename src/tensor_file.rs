//! Reads and writes safetensors files tensor by tensor, with every length checked before anything is allocated.

use crate::atomic_file::write_atomic;
use crate::error::{Error, Result};
use crate::hash::fnv1a;
use burn::tensor::{DType, Device, Tensor, TensorData};
use ndarray::{Array, ArrayView, Dimension, IntoDimension};
use safetensors::tensor::{Metadata, TensorInfo};
use safetensors::{Dtype, View};
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

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

fn checksum(bytes: impl IntoIterator<Item = u8>) -> String {
    format!("{:016x}", fnv1a(bytes))
}

impl TensorFile {
    /// Opens a file and checks its header against its length.
    ///
    /// # Errors
    /// If the file cannot be read, is truncated, or its header is malformed; both lengths are named.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref().to_path_buf();
        let mut file = File::open(&path).map_err(|e| Error::io(&path, e))?;
        let length = file.metadata().map_err(|e| Error::io(&path, e))?.len();
        let truncated = |needed: u64| {
            Error::format(path.display(), format!("truncated safetensors file: needs {needed} bytes, has {length}"))
        };
        if length < 8 {
            return Err(truncated(8));
        }
        let mut prefix = [0u8; 8];
        file.read_exact(&mut prefix).map_err(|e| Error::io(&path, e))?;
        let header_length = u64::from_le_bytes(prefix);
        if header_length > MAX_HEADER_BYTES {
            return Err(Error::format(
                path.display(),
                format!("safetensors header of {header_length} bytes exceeds the limit of {MAX_HEADER_BYTES}"),
            ));
        }
        let data_start = 8 + header_length;
        if length < data_start {
            return Err(truncated(data_start));
        }
        let mut header = vec![0u8; header_length as usize];
        file.read_exact(&mut header).map_err(|e| Error::io(&path, e))?;
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

    /// Compares bytes with their checksum, in a file that has any.
    fn check(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let Some(checksums) = &self.checksums else { return Ok(()) };
        let found = checksum(bytes.iter().copied());
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
    /// If it is missing, has another shape or an element type other than f64, f32, f16 or bf16, or is not finite.
    pub fn read<const D: usize>(
        &mut self,
        name: &str,
        expected: [usize; D],
        dtype: DType,
        device: &Device,
    ) -> Result<Tensor<D>> {
        let data = self.read_data(name)?;
        self.check_shape(name, &expected, data.shape().as_slice())?;
        let data = data.convert_dtype(dtype);
        check_finite(name, &data)?;
        Ok(Tensor::from_data(data, (device, dtype)))
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
        let count = values.iter().filter(|v| !v.is_finite()).count();
        if count > 0 {
            return Err(Error::NonFinite { what: place, count, total: values.len() });
        }
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
        let dtype = match info.dtype {
            Dtype::F64 => DType::F64,
            Dtype::F32 => DType::F32,
            Dtype::F16 => DType::F16,
            Dtype::BF16 => DType::BF16,
            other => {
                return Err(Error::Unsupported {
                    what: format!("element type of tensor `{name}`"),
                    found: format!("{other:?}"),
                    supported: "F64, F32, F16, BF16".into(),
                });
            }
        };
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

/// A number as a file holds it, little-endian.
pub(crate) trait Element: Copy {
    /// Its name in the file.
    const DTYPE: Dtype;

    fn read(bytes: &[u8]) -> Self;
    fn write(self, bytes: &mut Vec<u8>);
    fn is_finite(self) -> bool;
}

macro_rules! element {
    ($number:ty, $dtype:ident, $is_finite:expr) => {
        impl Element for $number {
            const DTYPE: Dtype = Dtype::$dtype;

            fn read(bytes: &[u8]) -> Self {
                let mut own = [0; size_of::<Self>()];
                own.copy_from_slice(bytes);
                Self::from_le_bytes(own)
            }

            fn write(self, bytes: &mut Vec<u8>) {
                bytes.extend(self.to_le_bytes());
            }

            fn is_finite(self) -> bool {
                $is_finite(self)
            }
        }
    };
}

fn every_integer(_: u64) -> bool {
    true
}

element!(f64, F64, f64::is_finite);
element!(f32, F32, f32::is_finite);
element!(u64, U64, every_integer);

fn check_finite(name: &str, data: &TensorData) -> Result<()> {
    let count = match data.dtype() {
        DType::F32 => data.iter::<f32>().filter(|v| !v.is_finite()).count(),
        _ => data.iter::<f64>().filter(|v| !v.is_finite()).count(),
    };
    if count == 0 {
        return Ok(());
    }
    Err(Error::NonFinite { what: format!("tensor `{name}`"), count, total: data.num_elements() })
}

/// A host array on its way into a file; its bytes are made when they are written, one array at a time.
pub(crate) struct StoredArray<'a> {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Box<dyn Fn() -> Vec<u8> + 'a>,
}

impl<'a> StoredArray<'a> {
    pub(crate) fn new<T: Element + 'a, D: Dimension + 'a>(array: ArrayView<'a, T, D>) -> Self {
        let shape = array.shape().to_vec();
        let bytes = move || {
            let mut bytes = Vec::with_capacity(array.len() * size_of::<T>());
            array.iter().for_each(|v| v.write(&mut bytes));
            bytes
        };
        Self { dtype: T::DTYPE, shape, bytes: Box::new(bytes) }
    }

    /// An f32 array whose values are fetched when they are written.
    pub(crate) fn fetched(shape: Vec<usize>, values: impl Fn() -> Vec<f32> + 'a) -> Self {
        let bytes = move || values().into_iter().flat_map(f32::to_le_bytes).collect();
        Self { dtype: Dtype::F32, shape, bytes: Box::new(bytes) }
    }
}

impl View for StoredArray<'_> {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        (self.bytes)().into()
    }

    fn data_len(&self) -> usize {
        self.shape.iter().product::<usize>() * self.dtype.bitsize() / 8
    }
}

/// Writes named arrays with the checksum of each, and a text under a key of the metadata with its own.
///
/// # Errors
/// As [`write_arrays`].
pub(crate) fn write_checked(path: &Path, arrays: Vec<(String, StoredArray)>, key: &str, text: String) -> Result<()> {
    let of_arrays = arrays.iter().map(|(name, array)| (name.as_str(), checksum(array.data().iter().copied())));
    let checksums: BTreeMap<&str, String> = of_arrays.chain([(key, checksum(text.bytes()))]).collect();
    let checksums = serde_json::to_string(&checksums).map_err(|e| Error::format(path.display(), e))?;
    write_arrays(path, arrays, Some(HashMap::from([(key.into(), text), (CHECKSUMS.into(), checksums)])))
}

/// Writes named arrays as a safetensors file: to a temporary file first, synced, then renamed, so that a failure leaves
/// whatever was there before.
///
/// # Errors
/// If the header would be too long or the directory cannot be written.
fn write_arrays(
    path: &Path,
    arrays: Vec<(String, StoredArray)>,
    metadata: Option<HashMap<String, String>>,
) -> Result<()> {
    let content = safetensors::serialize(arrays, metadata).map_err(|e| Error::format(path.display(), e))?;
    write_atomic(path, &content)
}

/// Writes named f32 tensors as a safetensors file in one step, as [`write_atomic`] does.
///
/// # Errors
/// If a tensor has another number of values than its shape, or the directory cannot be written.
pub fn write_tensors(
    path: impl AsRef<Path>,
    tensors: &[(String, Vec<usize>, Vec<f32>)],
    metadata: Option<HashMap<String, String>>,
) -> Result<()> {
    let path = path.as_ref();
    let stored = tensors.iter().map(|(name, shape, values)| {
        let array = ArrayView::from_shape(shape.as_slice(), values).map_err(|e| Error::format(path.display(), e))?;
        Ok((name.clone(), StoredArray::new(array)))
    });
    write_arrays(path, stored.collect::<Result<_>>()?, metadata)
}

/// Writes named arrays to `path` as they are made, so that they are never on the host all at once. Not in one step: for files
/// in a folder that nobody sees yet.
///
/// # Errors
/// If the header would be too long or the file cannot be written.
pub(crate) fn stream_arrays(
    path: &Path,
    arrays: Vec<(String, StoredArray)>,
    metadata: HashMap<String, String>,
) -> Result<()> {
    safetensors::serialize_to_file(arrays, Some(metadata), path).map_err(|e| Error::format(path.display(), e))
}
