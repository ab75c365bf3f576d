//! Writes named arrays as a safetensors file, with checksums where the file is this crate's own.

use super::{CHECKSUMS, Element, FLOATS, check_tensor, checksum, no_float};
use crate::atomic_file::write_atomic;
use crate::error::{Error, Result};
use crate::hash::fnv1a;
use burn::tensor::TensorData;
use ndarray::{ArrayView, Dimension};
use safetensors::{Dtype, View};
use serde::Serialize;
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

/// A host array on its way into a file; its bytes are made when they are written, one array at a time.
pub(crate) struct StoredArray<'a> {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Box<dyn Fn() -> Vec<u8> + 'a>,
}

impl<'a> StoredArray<'a> {
    /// A tensor as it is held.
    ///
    /// # Errors
    /// If its elements are no floats, or one is not finite.
    pub(crate) fn of_tensor(name: &str, data: &'a TensorData) -> Result<Self> {
        let stored = FLOATS.iter().find(|(_, held)| *held == data.dtype()).map(|(stored, _)| *stored);
        let dtype = stored.ok_or_else(|| no_float(name, data.dtype()))?;
        check_tensor(name, data)?;
        Ok(Self { dtype, shape: data.shape().to_vec(), bytes: Box::new(|| data.as_bytes().to_vec()) })
    }

    /// Of its bytes.
    pub(crate) fn hash(&self) -> u64 {
        fnv1a((self.bytes)())
    }

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

/// Writes named arrays with the checksum of each, and a header as JSON under a key of the metadata with its own.
///
/// # Errors
/// As [`write_arrays`].
pub(crate) fn write_checked(
    path: &Path,
    arrays: Vec<(String, StoredArray)>,
    key: &str,
    header: &impl Serialize,
) -> Result<()> {
    let text = serde_json::to_string(header).map_err(|e| Error::format(path.display(), e))?;
    write_checked_texts(path, arrays, vec![(key, text)])
}

/// The same with several texts under keys of the metadata, each with its checksum.
///
/// # Errors
/// As [`write_arrays`].
pub(crate) fn write_checked_texts(
    path: &Path,
    arrays: Vec<(String, StoredArray)>,
    texts: Vec<(&str, String)>,
) -> Result<()> {
    let of_arrays = arrays.iter().map(|(name, array)| (name.as_str(), checksum(array.hash())));
    let of_texts = texts.iter().map(|(key, text)| (*key, checksum(fnv1a(text.bytes()))));
    let checksums: BTreeMap<&str, String> = of_arrays.chain(of_texts).collect();
    let checksums = serde_json::to_string(&checksums).map_err(|e| Error::format(path.display(), e))?;
    let texts = texts.into_iter().chain([(CHECKSUMS, checksums)]);
    write_arrays(path, arrays, Some(texts.map(|(key, text)| (key.to_string(), text)).collect()))
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
    let mut content = safetensors::serialize(arrays, metadata).map_err(|e| Error::format(path.display(), e))?;
    sort_header(&mut content).map_err(|e| Error::format(path.display(), e))?;
    write_atomic(path, &content)
}

/// Orders the header's keys by name, in place: the crate takes them from a map of random order, and the same content must be
/// the same bytes.
fn sort_header(content: &mut [u8]) -> serde_json::Result<()> {
    let (length, rest) = content.split_at_mut(8);
    let length = length.iter().rev().fold(0, |n, byte| n << 8 | usize::from(*byte));
    let header = &mut rest[..length];
    let sorted: BTreeMap<String, BTreeMap<String, serde_json::Value>> = serde_json::from_slice(header)?;
    let sorted = serde_json::to_vec(&sorted)?;
    // as the format pads it
    header.fill(b' ');
    header[..sorted.len()].copy_from_slice(&sorted);
    Ok(())
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
