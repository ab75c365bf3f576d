//! Reads `config.json` of the Llama and Qwen2 families.

use crate::error::{Error, Result};
use serde::Deserialize;
use serde_json::Value;
use std::path::Path;

/// Largest width, depth or vocabulary that a config may ask for.
const MAX_DIMENSION: usize = 10_000_000;

/// Which published architecture a checkpoint follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Llama 1–3, SmolLM, TinyLlama and others with `model_type: llama`.
    Llama,
    /// Qwen2 and Qwen2.5: biases on the query, key and value projections.
    Qwen2,
}

/// How rotary frequencies are stretched for long contexts.
#[derive(Debug, Clone, PartialEq)]
pub enum RopeScaling {
    /// Unchanged.
    None,
    /// All frequencies divided by `factor`.
    Linear {
        /// Stretch of the context.
        factor: f64,
    },
    /// Llama 3.1: low frequencies divided, high ones kept, the band between interpolated.
    Llama3 {
        /// Stretch of the context.
        factor: f64,
        /// Lower edge of the band, in turns over the original context.
        low_freq_factor: f64,
        /// Upper edge of the band, in turns over the original context.
        high_freq_factor: f64,
        /// Context length before stretching.
        original_context: f64,
    },
    /// Each frequency divided by a factor of its own, as GGUF files say what `Llama3` does; `head_dim / 2` of them.
    Factors(Vec<f64>),
}

/// The shape of a decoder-only transformer.
#[derive(Debug, Clone, PartialEq)]
pub struct DecoderConfig {
    /// Architecture family.
    pub family: Family,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width inside the MLP.
    pub intermediate_size: usize,
    /// Number of blocks.
    pub n_layers: usize,
    /// Query heads.
    pub n_heads: usize,
    /// Key and value heads; divides `n_heads`.
    pub n_kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Size of the vocabulary.
    pub vocab_size: usize,
    /// Longest context.
    pub max_positions: usize,
    /// ε of the RMS norms.
    pub norm_eps: f64,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Stretching of the rotary frequencies.
    pub rope_scaling: RopeScaling,
    /// Biases on query, key and value projections.
    pub qkv_bias: bool,
    /// Bias on the output projection of attention.
    pub output_bias: bool,
    /// Biases in the MLP.
    pub mlp_bias: bool,
    /// The output head is the embedding matrix.
    pub tied_head: bool,
}

#[derive(Deserialize)]
struct RawConfig {
    model_type: String,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    vocab_size: usize,
    max_position_embeddings: usize,
    rms_norm_eps: f64,
    hidden_act: Option<String>,
    rope_theta: Option<f64>,
    rope_scaling: Option<Value>,
    rope_parameters: Option<Value>,
    attention_bias: Option<bool>,
    mlp_bias: Option<bool>,
    tie_word_embeddings: Option<bool>,
    use_sliding_window: Option<bool>,
    quantization_config: Option<Value>,
}

impl DecoderConfig {
    /// Reads a `config.json`.
    ///
    /// # Errors
    /// If it is missing or malformed, of another family, or its dimensions contradict each other.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, e))?;
        let location = path.display().to_string();
        Self::from_json(&text, &location)
    }

    /// Reads the text of a `config.json`; `location` names it in errors.
    ///
    /// # Errors
    /// As [`DecoderConfig::from_file`].
    pub fn from_json(text: &str, location: &str) -> Result<Self> {
        let value: Value = serde_json::from_str(text).map_err(|e| Error::format(location, e))?;
        let model_type = value.get("model_type").and_then(Value::as_str).unwrap_or("(none)");
        let family = match model_type {
            "llama" => Family::Llama,
            "qwen2" => Family::Qwen2,
            other => return Err(unsupported(location, "model_type", other, "llama, qwen2")),
        };
        let raw: RawConfig = serde_json::from_value(value).map_err(|e| Error::format(location, e))?;
        debug_assert!(!raw.model_type.is_empty());
        if let Some(act) = raw.hidden_act.as_deref().filter(|a| *a != "silu") {
            return Err(unsupported(location, "hidden_act", act, "silu"));
        }
        if raw.use_sliding_window == Some(true) {
            return Err(unsupported(location, "use_sliding_window", "true", "false"));
        }
        if let Some(found) = raw.quantization_config {
            return Err(unsupported(location, "quantization_config", &found.to_string(), "none"));
        }
        let (rope_theta, rope_scaling) = rope(&raw.rope_parameters, &raw.rope_scaling, raw.rope_theta, location)?;
        let attention_bias = raw.attention_bias.unwrap_or(false);
        let config = Self {
            family,
            hidden_size: raw.hidden_size,
            intermediate_size: raw.intermediate_size,
            n_layers: raw.num_hidden_layers,
            n_heads: raw.num_attention_heads,
            n_kv_heads: raw.num_key_value_heads.unwrap_or(raw.num_attention_heads),
            head_dim: raw.head_dim.unwrap_or(raw.hidden_size / raw.num_attention_heads.max(1)),
            vocab_size: raw.vocab_size,
            max_positions: raw.max_position_embeddings,
            norm_eps: raw.rms_norm_eps,
            rope_theta,
            rope_scaling,
            qkv_bias: attention_bias || family == Family::Qwen2,
            output_bias: attention_bias && family == Family::Llama,
            mlp_bias: raw.mlp_bias.unwrap_or(false),
            tied_head: raw.tie_word_embeddings.unwrap_or(false),
        };
        config.validate(location)?;
        Ok(config)
    }

    /// Checks that the dimensions are within bounds and agree with each other; fields have their names in `config.json`.
    pub(super) fn validate(&self, location: &str) -> Result<()> {
        let fields = [
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_hidden_layers", self.n_layers),
            ("num_attention_heads", self.n_heads),
            ("num_key_value_heads", self.n_kv_heads),
            ("head_dim", self.head_dim),
            ("vocab_size", self.vocab_size),
            ("max_position_embeddings", self.max_positions),
        ];
        for (field, value) in fields {
            if value == 0 || value > MAX_DIMENSION {
                return Err(Error::config(format!("{location}: {field}"), format!("from 1 to {MAX_DIMENSION}"), value));
            }
        }
        if !self.n_heads.is_multiple_of(self.n_kv_heads) {
            return Err(Error::config(
                format!("{location}: num_key_value_heads"),
                format!("a divisor of num_attention_heads = {}", self.n_heads),
                self.n_kv_heads,
            ));
        }
        if !self.head_dim.is_multiple_of(2) {
            return Err(Error::config(format!("{location}: head_dim"), "even", self.head_dim));
        }
        for (field, value) in [("rms_norm_eps", self.norm_eps), ("rope_theta", self.rope_theta)] {
            if !(value > 0.0 && value.is_finite()) {
                return Err(Error::config(format!("{location}: {field}"), "positive and finite", value));
            }
        }
        Ok(())
    }
}

pub(super) fn unsupported(location: &str, field: &str, found: &str, supported: &str) -> Error {
    Error::Unsupported {
        what: format!("{location}: {field}"),
        found: found.to_string(),
        supported: supported.to_string(),
    }
}

/// Rotary base and stretching, from `rope_parameters` of recent configs or the older flat keys.
fn rope(
    parameters: &Option<Value>,
    scaling: &Option<Value>,
    flat_theta: Option<f64>,
    location: &str,
) -> Result<(f64, RopeScaling)> {
    let parameters = parameters.as_ref().filter(|v| !v.is_null());
    let source = parameters.or(scaling.as_ref().filter(|v| !v.is_null()));
    let number = |key: &str| source.and_then(|v| v.get(key)).and_then(Value::as_f64);
    let theta = number("rope_theta").or(flat_theta).unwrap_or(10_000.0);
    let required = |key: &str| {
        number(key)
            .filter(|v| *v > 0.0 && v.is_finite())
            .ok_or_else(|| Error::config(format!("{location}: rope {key}"), "positive and finite", "missing"))
    };
    let kind =
        source.and_then(|v| v.get("rope_type").or_else(|| v.get("type"))).and_then(Value::as_str).unwrap_or("default");
    let scaling = match kind {
        "default" => RopeScaling::None,
        "linear" => RopeScaling::Linear { factor: required("factor")? },
        "llama3" => RopeScaling::Llama3 {
            factor: required("factor")?,
            low_freq_factor: required("low_freq_factor")?,
            high_freq_factor: required("high_freq_factor")?,
            original_context: required("original_max_position_embeddings")?,
        },
        other => return Err(unsupported(location, "rope_type", other, "default, linear, llama3")),
    };
    Ok((theta, scaling))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LLAMA: &str = r#"{"model_type": "llama", "hidden_size": 64, "intermediate_size": 172,
        "num_hidden_layers": 5, "num_attention_heads": 8, "num_key_value_heads": 4, "vocab_size": 512,
        "max_position_embeddings": 512, "rms_norm_eps": 1e-5, "rope_theta": 500000.0, "rope_scaling": SCALING}"#;

    #[test]
    fn flat_and_nested_rope_keys_mean_the_same() {
        let flat = DecoderConfig::from_json(&LLAMA.replace("SCALING", "null"), "x").unwrap();
        let nested = LLAMA.replace(
            "\"rope_theta\": 500000.0, \"rope_scaling\": SCALING",
            "\"rope_parameters\": {\"rope_type\": \"default\", \"rope_theta\": 500000.0}",
        );
        assert_eq!(flat, DecoderConfig::from_json(&nested, "x").unwrap());
        assert_eq!((flat.head_dim, flat.rope_theta), (8, 500_000.0));
    }

    #[test]
    fn llama3_scaling_is_read() {
        let text = LLAMA.replace(
            "SCALING",
            r#"{"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}"#,
        );
        let config = DecoderConfig::from_json(&text, "x").unwrap();
        assert!(matches!(config.rope_scaling, RopeScaling::Llama3 { factor, .. } if factor == 8.0));
    }

    #[test]
    fn what_is_not_supported_is_named() {
        let base = LLAMA.replace("SCALING", "null");
        for (from, to, expected) in [
            ("\"llama\"", "\"mamba\"", "mamba"),
            ("\"num_key_value_heads\": 4", "\"num_key_value_heads\": 3", "num_attention_heads = 8, got 3"),
            ("\"hidden_size\": 64", "\"hidden_size\": 0", "hidden_size"),
            ("\"hidden_size\": 64,", "", "hidden_size"),
            ("\"rope_scaling\": null", "\"rope_scaling\": {\"rope_type\": \"yarn\"}", "yarn"),
        ] {
            let error = DecoderConfig::from_json(&base.replace(from, to), "config.json").unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
