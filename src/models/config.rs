//! Reads `config.json` of the Llama and Qwen2 families.

use super::rope_scaling::{RopeScaling, rope};
use super::settings::{Settings, agreed, unsupported};
use crate::error::{Error, Result};
use crate::file_kind::parse_json;
use serde::Deserialize;
use serde_json::Value;
use std::path::Path;

/// Largest width, depth or vocabulary that a config may ask for.
const MAX_DIMENSION: usize = 10_000_000;

/// The entry of `layer_types` for a layer whose tokens look at all before them.
const FULL_ATTENTION: &str = "full_attention";

/// What transformers takes for Qwen2's `max_window_layers` where it is absent.
const DEFAULT_MAX_WINDOW_LAYERS: usize = 28;

/// Which published architecture a checkpoint follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Llama 1–3, SmolLM, TinyLlama and others with `model_type: llama`.
    Llama,
    /// Qwen2 and Qwen2.5: biases on the query, key and value projections.
    Qwen2,
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
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    vocab_size: usize,
    max_position_embeddings: usize,
    rms_norm_eps: f64,
    attention_bias: Option<bool>,
    mlp_bias: Option<bool>,
    tie_word_embeddings: Option<bool>,
    use_sliding_window: Option<bool>,
    max_window_layers: Option<usize>,
    layer_types: Option<Vec<String>>,
    quantization_config: Option<Value>,
}

impl DecoderConfig {
    /// Reads a `config.json`.
    ///
    /// # Errors
    /// If it is missing or malformed, of another family, or its dimensions contradict each other.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let bytes = std::fs::read(path).map_err(|e| Error::io(path, e))?;
        Self::from_bytes(&bytes, &path.display().to_string())
    }

    /// Reads the text of a `config.json`; `location` names it in errors.
    ///
    /// # Errors
    /// As [`DecoderConfig::from_file`].
    pub fn from_json(text: &str, location: &str) -> Result<Self> {
        Self::from_bytes(text.as_bytes(), location)
    }

    fn from_bytes(bytes: &[u8], location: &str) -> Result<Self> {
        let value: Value = parse_json(bytes, location)?;
        let empty = || Error::format(location, "is an empty JSON object");
        let settings = Settings::object(Some(&value), location, "")?.ok_or_else(empty)?;
        let family = match settings.text("model_type")?.unwrap_or("(none)") {
            "llama" => Family::Llama,
            "qwen2" => Family::Qwen2,
            other => return Err(unsupported(location, "model_type", other, "llama, qwen2")),
        };
        let names = ["hidden_act", "hidden_activation"];
        let [first, second] = names.map(|name| (name.to_string(), settings.text(name)));
        let activation = agreed(location, [(first.0, first.1?), (second.0, second.1?)])?;
        if let Some(found) = activation.filter(|found| !matches!(*found, "silu" | "swish")) {
            return Err(unsupported(location, "hidden_act", found, "silu"));
        }
        let (rope_theta, rope_scaling) = rope(settings)?;
        // absent and null differ: without a width there is no window
        let without_window = settings.fields().get("sliding_window").is_some_and(Value::is_null);
        let raw: RawConfig = serde_json::from_value(value).map_err(|e| Error::format(location, e))?;
        check_windows(&raw, without_window, location)?;
        if let Some(found) = raw.quantization_config {
            return Err(unsupported(location, "quantization_config", &found.to_string(), "none"));
        }
        // Qwen2 has its biases by definition and knows neither setting
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
            mlp_bias: raw.mlp_bias.unwrap_or(false) && family == Family::Llama,
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

/// Refuses layers that look back over a window only. Qwen2's first `max_window_layers` layers look at everything, if
/// `layer_types` does not say it for each.
fn check_windows(raw: &RawConfig, without_window: bool, location: &str) -> Result<()> {
    if let Some(kinds) = &raw.layer_types {
        if kinds.len() != raw.num_hidden_layers {
            let what = format!("{location}: entries of `layer_types`, one for each of `num_hidden_layers`");
            return Err(Error::Count { what, expected: raw.num_hidden_layers, found: kinds.len() });
        }
        return match kinds.iter().position(|kind| kind != FULL_ATTENTION) {
            Some(layer) => Err(unsupported(location, &format!("layer_types[{layer}]"), &kinds[layer], FULL_ATTENTION)),
            None => Ok(()),
        };
    }
    let full = raw.max_window_layers.unwrap_or(DEFAULT_MAX_WINDOW_LAYERS);
    if raw.use_sliding_window == Some(true) && !without_window && full < raw.num_hidden_layers {
        let found = format!("true from layer {full} (max_window_layers) of {} on", raw.num_hidden_layers);
        return Err(unsupported(location, "use_sliding_window", &found, "false, or full attention in all layers"));
    }
    Ok(())
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
    fn a_window_counts_only_in_layers_that_have_one() {
        let config = |rest: &str| {
            let text = LLAMA.replace("\"llama\"", "\"qwen2\"").replace("\"rope_scaling\": SCALING", rest);
            DecoderConfig::from_json(&text, "config.json")
        };
        let kinds = |last: &str| format!("\"layer_types\": [{}\"{last}\"]", "\"full_attention\", ".repeat(4));
        for rest in [
            r#""use_sliding_window": true, "sliding_window": 64, "max_window_layers": 5"#,
            r#""use_sliding_window": true, "sliding_window": 64"#, // 28 layers at the least look at everything
            r#""use_sliding_window": true, "sliding_window": null, "max_window_layers": 0"#,
            r#""use_sliding_window": false, "sliding_window": 64, "max_window_layers": 0"#,
            &format!("\"use_sliding_window\": true, \"max_window_layers\": 0, {}", kinds("full_attention")),
        ] {
            assert!(config(rest).is_ok(), "{rest}: {}", config(rest).unwrap_err());
        }
        for (rest, part) in [
            (r#""use_sliding_window": true, "max_window_layers": 4"#, "layer 4 (max_window_layers) of 5"),
            (&kinds("sliding_attention"), "layer_types[4] `sliding_attention`"),
            (r#""layer_types": ["full_attention"]"#, "expected 5, found 1"),
        ] {
            let error = config(rest).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
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
            (
                "\"rope_scaling\": null",
                "\"hidden_act\": \"silu\", \"hidden_activation\": \"gelu\"",
                "`hidden_act` is silu",
            ),
            ("\"rope_scaling\": null", "\"hidden_activation\": \"gelu\"", "gelu"),
        ] {
            let error = DecoderConfig::from_json(&base.replace(from, to), "config.json").unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
