//! Reads a GGUF file as the checkpoint of a decoder: its metadata as a configuration, its tensors under the names and in the
//! row order of Hugging Face.

use super::activation::GateActivation;
use super::config::{DecoderConfig, MAX_DEPTH};
use super::family::Family;
use super::layers::LayerKind;
use super::names::gguf as names;
use super::rope_scaling::RopeScaling;
use super::scales::Scales;
use super::settings::{agreed, unsupported};
use crate::error::{Error, Result};
use crate::gguf::GgufFile;
use crate::tensor_file::converted;
use burn::tensor::{DType, Device, Tensor, TensorData};
use std::path::Path;

const ROPE_FACTORS: &str = "rope_freqs.weight";

/// Families of which llama.cpp's files are read, under their names there.
const FAMILIES: [(&str, Family); 3] = [("llama", Family::Llama), ("qwen2", Family::Qwen2), ("qwen3", Family::Qwen3)];

/// Reads the shape of the model from the metadata and from which tensors there are.
///
/// # Errors
/// As [`Pretrained::from_gguf`](super::Pretrained::from_gguf).
pub(super) fn config(file: &mut GgufFile) -> Result<DecoderConfig> {
    let location = file.path().display().to_string();
    let missing = |key: &str| Error::config(format!("{location}: metadata `{key}`"), "there", "nothing");
    let architecture = file.text("general.architecture")?.ok_or_else(|| missing("general.architecture"))?;
    if let Some(n) = file.count("split.count")?.filter(|n| *n > 1) {
        return Err(unsupported(&location, "split.count", &n.to_string(), "1: all tensors in one file"));
    }
    let Some((_, family)) = FAMILIES.into_iter().find(|(name, _)| *name == architecture) else {
        let known = FAMILIES.map(|(name, _)| name).join(", ");
        return Err(unsupported(&location, "general.architecture", architecture, &known));
    };
    let key = |name: &str| format!("{architecture}.{name}");
    let count = |name: &str| file.count(&key(name));
    let required = |name: &str| count(name)?.ok_or_else(|| missing(&key(name)));
    for setting in ["expert_count", "attention.sliding_window"] {
        if let Some(n) = count(setting)?.filter(|n| *n > 0) {
            return Err(unsupported(&location, &key(setting), &n.to_string(), "0"));
        }
    }
    let (hidden_size, n_heads) = (required("embedding_length")?, required("attention.head_count")?);
    let head_dim = count("attention.key_length")?.unwrap_or(hidden_size / n_heads.max(1));
    for same in ["attention.value_length", "rope.dimension_count"] {
        if let Some(n) = count(same)?.filter(|n| *n != head_dim) {
            return Err(unsupported(&location, &key(same), &n.to_string(), &format!("the head's width, {head_dim}")));
        }
    }
    let table = format!("{}.weight", names::EMBEDDING);
    let vocab_size = file.shape(&table).and_then(|shape| shape.first()).copied();
    let vocab_size =
        vocab_size.ok_or_else(|| Error::MissingTensor { name: table, location: file.path().to_path_buf() })?;
    let has = |name: &str| file.shape(name).is_some();
    let eps = "attention.layer_norm_rms_epsilon";
    let config = DecoderConfig {
        family,
        hidden_size,
        intermediate_size: required("feed_forward_length")?,
        n_layers: required("block_count")?,
        n_heads,
        n_kv_heads: count("attention.head_count_kv")?.unwrap_or(n_heads),
        head_dim,
        inside: false,
        vocab_size,
        max_positions: required("context_length")?,
        norm_eps: file.number(&key(eps))?.ok_or_else(|| missing(&key(eps)))?,
        rope_theta: file.number(&key("rope.freq_base"))?.unwrap_or(10_000.0),
        rope_scaling: rope_scaling(file, &key("rope"), &location)?,
        qkv_bias: has("blk.0.attn_q.bias"),
        output_bias: has("blk.0.attn_output.bias"),
        mlp_bias: has("blk.0.ffn_gate.bias"),
        tied_head: !has(&format!("{}.weight", names::HEAD)),
        sliding_rope: None,
        rotary_dim: head_dim,
        layers: vec![LayerKind::PLAIN; required("block_count")?.min(MAX_DEPTH)],
        window: None,
        activation: GateActivation::Silu,
        scales: Scales::default(),
    };
    config.validate(&location)?;
    with_factors(file, config, &location)
}

/// As llama.cpp reads it: a factor means linear scaling where no type is given, and stands under an older key too.
fn rope_scaling(file: &GgufFile, prefix: &str, location: &str) -> Result<RopeScaling> {
    let kind = format!("{prefix}.scaling.type");
    let factors = [format!("{prefix}.scaling.factor"), format!("{prefix}.scale_linear")];
    let [newer, older] = factors.clone().map(|key| file.number(&key).map(|factor| (key, factor)));
    let factor = agreed(location, [newer?, older?])?;
    match file.text(&kind)?.unwrap_or(if factor.is_some() { "linear" } else { "none" }) {
        "none" => Ok(RopeScaling::None),
        "linear" => {
            let shown = factor.map_or("nothing".into(), |f| f.to_string());
            let bad = || Error::config(format!("{location}: {}", factors[0]), "positive and finite", shown);
            Ok(RopeScaling::Linear { factor: factor.filter(|f| *f > 0.0 && f.is_finite()).ok_or_else(bad)? })
        }
        other => Err(unsupported(location, &kind, other, "none, linear")),
    }
}

/// Takes the factors of the rotary frequencies where the file has them, as files of Llama 3.1 and later do.
fn with_factors(file: &mut GgufFile, config: DecoderConfig, location: &str) -> Result<DecoderConfig> {
    let Some(shape) = file.shape(ROPE_FACTORS) else { return Ok(config) };
    let expected = [config.head_dim / 2];
    if shape != expected {
        return Err(shape_error(location, ROPE_FACTORS, &expected, shape));
    }
    if config.rope_scaling != RopeScaling::None {
        let found = format!("{:?}", config.rope_scaling);
        return Err(unsupported(location, &format!("rotary scaling beside `{ROPE_FACTORS}`"), &found, "none"));
    }
    let factors: Vec<f64> = file.values(ROPE_FACTORS)?.into_iter().map(f64::from).collect();
    if let Some(bad) = factors.iter().find(|f| !(f.is_finite() && **f > 0.0)) {
        return Err(Error::config(format!("{location}: {ROPE_FACTORS}"), "positive and finite", bad));
    }
    Ok(DecoderConfig { rope_scaling: RopeScaling::Factors(factors), ..config })
}

fn shape_error(location: &str, name: &str, expected: &[usize], found: &[usize]) -> Error {
    Error::Shape { what: format!("tensor `{name}` in {location}"), expected: expected.to_vec(), found: found.to_vec() }
}

/// The weights of a file under Hugging Face's names.
pub(super) struct Weights {
    file: GgufFile,
    family: Family,
    /// Query and key heads, where llama.cpp has reordered the rows of their projections.
    reordered: Option<[usize; 2]>,
}

impl Weights {
    pub(super) fn open(path: &Path, config: &DecoderConfig) -> Result<Self> {
        let reordered = (config.family == Family::Llama).then_some([config.n_heads, config.n_kv_heads]);
        Ok(Self { file: GgufFile::open(path)?, family: config.family, reordered })
    }

    /// The name in the file of a tensor.
    pub(super) fn stored_name(&self, name: &str) -> String {
        names::name(self.family.traits(), name)
    }

    /// Names of the tensors, but for the one that the configuration holds.
    pub(super) fn names(&self) -> Vec<String> {
        self.file.names().into_iter().filter(|name| name != ROPE_FACTORS).collect()
    }

    /// Decodes one tensor of the expected shape to values of `dtype`, all finite.
    ///
    /// # Errors
    /// If it is missing, has another shape, or is not finite.
    pub(super) fn read<const D: usize>(
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
