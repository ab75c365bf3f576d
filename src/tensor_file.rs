//! Reads and writes safetensors files tensor by tensor, with every length checked before anything is allocated.

use crate::atomic_file::write_atomic;
use crate::error::{Error, Result};
use burn::tensor::{DType, Device, Tensor, TensorData};
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo, TensorView};
use std::collections::HashMap;
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
        Ok(Self { path, file, metadata, data_start })
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
        if data.shape().as_slice() != expected {
            return Err(Error::Shape {
                what: format!("tensor `{name}` in {}", self.path.display()),
                expected: expected.to_vec(),
                found: data.shape().to_vec(),
            });
        }
        let data = data.convert_dtype(dtype);
        check_finite(name, &data)?;
        Ok(Tensor::from_data(data, (device, dtype)))
    }

    fn read_data(&mut self, name: &str) -> Result<TensorData> {
        let info: TensorInfo = self
            .metadata
            .info(name)
            .cloned()
            .ok_or_else(|| Error::MissingTensor { name: name.to_string(), location: self.path.clone() })?;
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
        let (start, end) = info.data_offsets;
        let mut bytes = vec![0u8; end - start];
        self.file
            .seek(SeekFrom::Start(self.data_start + start as u64))
            .and_then(|_| self.file.read_exact(&mut bytes))
            .map_err(|e| Error::io(&self.path, e))?;
        Ok(TensorData::from_bytes_vec(bytes, info.shape, dtype))
    }
}

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

/// Writes named f32 matrices as a safetensors file: to a temporary file first, synced, then renamed, so that a failure
/// leaves whatever was there before.
///
/// # Errors
/// If the directory cannot be written.
pub fn write_matrices(
    path: impl AsRef<Path>,
    matrices: &[(String, [usize; 2], Vec<f32>)],
    metadata: Option<HashMap<String, String>>,
) -> Result<()> {
    let path = path.as_ref();
    let bytes: Vec<Vec<u8>> =
        matrices.iter().map(|(_, _, values)| values.iter().flat_map(|v| v.to_le_bytes()).collect()).collect();
    let views = matrices
        .iter()
        .zip(&bytes)
        .map(|((name, shape, _), bytes)| {
            TensorView::new(Dtype::F32, shape.to_vec(), bytes)
                .map(|view| (name.clone(), view))
                .map_err(|e| Error::format(path.display(), e))
        })
        .collect::<Result<Vec<_>>>()?;
    let content = safetensors::serialize(views, metadata).map_err(|e| Error::format(path.display(), e))?;
    write_atomic(path, &content)
}
