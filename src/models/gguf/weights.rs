//! Reads the tensors of a GGUF file under the names, in the row order and with the gains of Hugging Face.

use crate::error::{Error, Result};
use crate::gguf::GgufFile;
use crate::models::config::DecoderConfig;
use crate::models::family::{Family, NormKind};
use crate::models::names::gguf::{self as names, LONG_FACTORS, ROPE_FACTORS};
use crate::tensor_file::converted;
use burn::tensor::{DType, Device, Tensor, TensorData};
use std::path::Path;

pub(super) fn shape_error(location: &str, name: &str, expected: &[usize], found: &[usize]) -> Error {
    Error::Shape { what: format!("tensor `{name}` in {location}"), expected: expected.to_vec(), found: found.to_vec() }
}

/// The weights of a file under Hugging Face's names.
pub(in crate::models) struct Weights {
    file: GgufFile,
    family: Family,
    /// Query and key heads, where llama.cpp has reordered the rows of their projections.
    reordered: Option<[usize; 2]>,
}

/// Families of which llama.cpp rotates neighbours.
const REORDERED: [Family; 4] = [Family::Llama, Family::SmolLm3, Family::Granite, Family::Ministral3];

impl Weights {
    pub(in crate::models) fn open(path: &Path, config: &DecoderConfig) -> Result<Self> {
        let reordered = REORDERED.contains(&config.family).then_some([config.n_heads, config.n_kv_heads]);
        Ok(Self { file: GgufFile::open(path)?, family: config.family, reordered })
    }

    /// The name in the file of a tensor.
    pub(in crate::models) fn stored_name(&self, name: &str) -> String {
        names::name(self.family.traits(), name)
    }

    /// Names of the tensors, but for those that the configuration holds.
    pub(in crate::models) fn names(&self) -> Vec<String> {
        let partial = self.family.traits().partial;
        let is_factors = |name: &str| name == ROPE_FACTORS || partial && LONG_FACTORS.contains(&name);
        self.file.names().into_iter().filter(|name| !is_factors(name)).collect()
    }

    /// Decodes one tensor of the expected shape to values of `dtype`, all finite.
    ///
    /// # Errors
    /// If it is missing, has another shape, or is not finite.
    pub(in crate::models) fn read<const D: usize>(
        &mut self,
        name: &str,
        expected: [usize; D],
        dtype: DType,
        device: &Device,
    ) -> Result<Tensor<D>> {
        let stored = self.stored_name(name);
        if let Some(found) = self.file.shape(&stored).filter(|found| *found != expected) {
            return Err(shape_error(&self.file.path().display().to_string(), &stored, &expected, found));
        }
        let mut values = self.file.values(&stored)?;
        if let Some([queries, keys]) = self.reordered {
            let of_queries = name.contains(".q_proj.").then_some(queries);
            if let Some(heads) = of_queries.or(name.contains(".k_proj.").then_some(keys)) {
                values = halves_apart(&values, expected[0] / heads, values.len() / expected[0]);
            }
        }
        // files hold what a norm multiplies by
        if self.family.traits().norm_kind == NormKind::OnePlusGain && name.ends_with("norm.weight") {
            values.iter_mut().for_each(|gain| *gain -= 1.0);
        }
        let data = converted(name, TensorData::new(values, expected), dtype)?;
        Ok(Tensor::from_data(data, (device, dtype)))
    }
}

/// Undoes llama.cpp's order of the rows of a head. It rotates neighbours, (x₀, x₁), (x₂, x₃) …, so it has interleaved the two
/// halves that Hugging Face rotates against each other: row 2j + h there is row h · width / 2 + j here.
fn halves_apart(values: &[f32], width: usize, columns: usize) -> Vec<f32> {
    let half = width / 2;
    let mut out = Vec::with_capacity(values.len());
    for head in values.chunks_exact(width * columns) {
        for row in 0..width {
            let at = (2 * (row % half) + row / half) * columns;
            out.extend_from_slice(&head[at..at + columns]);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interleaved_halves_come_apart_head_by_head() {
        // two heads of four rows of two columns; row r of a head is stored where llama.cpp puts it: 0, 2, 1, 3
        let stored: Vec<f32> = [0, 2, 1, 3, 4, 6, 5, 7].iter().flat_map(|r| [*r as f32, 10.0 + *r as f32]).collect();
        let expected: Vec<f32> = (0..8).flat_map(|r| [r as f32, 10.0 + r as f32]).collect();
        assert_eq!(halves_apart(&stored, 4, 2), expected);
    }
}
