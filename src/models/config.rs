//! Reads `config.json` as the plain description of a decoder.

use super::activation::GateActivation;
use super::family::{AttentionBias, Family, Traits};
use super::layers::{LayerKind, layers};
use super::rope_scaling::RopeScaling;
use super::rope_settings::ropes;
use super::scales::Scales;
use super::settings::{Settings, contradiction, unsupported};
use crate::error::{Error, Result};
use crate::file_kind::parse_json;
use serde::Deserialize;
use serde_json::Value;
use std::path::Path;

/// Largest width or vocabulary that a config may ask for.
const MAX_DIMENSION: usize = 10_000_000;

/// Most blocks that a config may ask for.
pub(super) const MAX_DEPTH: usize = 10_000;

/// Names of one setting, of which each family hears one.
const ACTIVATIONS: [&str; 2] = ["hidden_act", "hidden_activation"];

/// Settings that no family here computes; zero, false and null say the same as nothing.
const NOT_COMPUTED: [&str; 8] = [
    "num_experts",
    "num_local_experts",
    "n_routed_experts",
    "kv_lora_rank",
    "clip_qkv",
    "use_bidirectional_attention",
    "attention_sink_size",
    "quantization_config",
];

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
    /// Both for the layers that slide, where they have their own.
    pub sliding_rope: Option<(f64, RopeScaling)>,
    /// How many elements of each head rotate, the first ones.
    pub rotary_dim: usize,
    /// What each layer does.
    pub layers: Vec<LayerKind>,
    /// How many tokens a layer that slides looks back over, its own included.
    pub window: Option<usize>,
    /// Activation of the MLP's gate.
    pub activation: GateActivation,
    /// Factors and caps.
    pub scales: Scales,
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
}

impl DecoderConfig {
    /// Reads a `config.json`.
    ///
    /// # Errors
    /// If it is missing or malformed, of another family, its dimensions contradict each other, or a setting is not computed.
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
        let traits = Traits::of(settings)?;
        if let Some((key, found)) = NOT_COMPUTED.iter().find_map(|key| Some((key, settings.get(key)?)).filter(says)) {
            return Err(unsupported(location, key, &found.to_string(), "none"));
        }
        let activation = activation(settings, traits)?;
        let (rope, sliding_rope) = ropes(settings, traits)?;
        let raw: RawConfig = RawConfig::deserialize(&value).map_err(|e| Error::format(location, e))?;
        check_range(location, "num_hidden_layers", raw.num_hidden_layers, MAX_DEPTH)?;
        let (layers, window) = layers(settings, traits, raw.num_hidden_layers)?;
        let share = |rope: &super::rope_settings::Rope, dim: usize| (rope.share * dim as f64) as usize;
        // absent and null differ: null is the width by the heads
        let by_heads = raw.hidden_size / raw.num_attention_heads.max(1);
        let absent = if settings.has("head_dim") { by_heads } else { traits.head_dim.unwrap_or(by_heads) };
        let head_dim = raw.head_dim.unwrap_or(absent);
        let scales = Scales::read(settings, traits, raw.hidden_size, rope.scaling.original_context())?;
        let attention_bias = raw.attention_bias.unwrap_or(false) && traits.attention_bias == AttentionBias::Asked;
        let config = Self {
            family: traits.family,
            hidden_size: raw.hidden_size,
            intermediate_size: raw.intermediate_size,
            n_layers: raw.num_hidden_layers,
            n_heads: raw.num_attention_heads,
            n_kv_heads: raw.num_key_value_heads.unwrap_or(raw.num_attention_heads),
            head_dim,
            vocab_size: raw.vocab_size,
            max_positions: raw.max_position_embeddings,
            norm_eps: raw.rms_norm_eps,
            rotary_dim: share(&rope, head_dim),
            rope_theta: rope.theta,
            rope_scaling: rope.scaling,
            sliding_rope: sliding_rope.map(|rope| (rope.theta, rope.scaling)),
            layers,
            window,
            activation,
            scales,
            qkv_bias: attention_bias || traits.attention_bias == AttentionBias::QueryKeyValue,
            output_bias: attention_bias,
            mlp_bias: raw.mlp_bias.unwrap_or(false) && traits.mlp_bias,
            tied_head: raw.tie_word_embeddings.unwrap_or(traits.tied),
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
            let most = if field == "num_hidden_layers" { MAX_DEPTH } else { MAX_DIMENSION };
            check_range(location, field, value, most)?;
        }
        if !self.n_heads.is_multiple_of(self.n_kv_heads) {
            return Err(Error::config(
                format!("{location}: num_key_value_heads"),
                format!("a divisor of num_attention_heads = {}", self.n_heads),
                self.n_kv_heads,
            ));
        }
        for (field, value) in [("head_dim", self.head_dim), ("partial_rotary_factor · head_dim", self.rotary_dim)] {
            if value == 0 || !value.is_multiple_of(2) {
                return Err(Error::config(format!("{location}: {field}"), "even and not 0", value));
            }
        }
        let sliding = self.sliding_rope.as_ref();
        let ropes = [Some(&self.rope_scaling), sliding.map(|(_, scaling)| scaling)];
        for scaling in ropes.into_iter().flatten() {
            scaling.check_width(self.rotary_dim, location)?;
        }
        let sliding_theta = sliding.map_or(self.rope_theta, |(theta, _)| *theta);
        let thetas = [("rope_theta", self.rope_theta), ("rope_theta of sliding layers", sliding_theta)];
        for (field, value) in [("rms_norm_eps", self.norm_eps)].into_iter().chain(thetas) {
            if !(value > 0.0 && value.is_finite()) {
                return Err(Error::config(format!("{location}: {field}"), "positive and finite", value));
            }
        }
        Ok(())
    }
}

/// Each family hears one name; the other must not say something else.
fn activation(settings: Settings<'_>, traits: &Traits) -> Result<GateActivation> {
    let location = settings.location;
    let (key, default) = traits.activation;
    let name = settings.text(key)?.unwrap_or(default);
    let read = |key: &str, name: &str| {
        let supported = "silu, gelu, gelu_pytorch_tanh";
        GateActivation::named(name).ok_or_else(|| unsupported(location, key, name, supported))
    };
    let found = read(key, name)?;
    for other in ACTIVATIONS.into_iter().filter(|other| *other != key) {
        if let Some(said) = settings.text(other)?
            && GateActivation::named(said) != Some(found)
        {
            return Err(contradiction(location, [(key, &name), (other, &said)]));
        }
    }
    Ok(found)
}

/// Whether a setting asks for something.
fn says((_, value): &(&&str, &Value)) -> bool {
    !matches!(value, Value::Null | Value::Bool(false)) && value.as_f64() != Some(0.0)
}

fn check_range(location: &str, field: &str, value: usize, most: usize) -> Result<()> {
    if value == 0 || value > most {
        return Err(Error::config(format!("{location}: {field}"), format!("from 1 to {most}"), value));
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
    fn windows_are_in_the_layers_that_the_family_gives_them() {
        let config = |family: &str, rest: &str| {
            let text = LLAMA.replace("\"llama\"", &format!("\"{family}\"")).replace("\"rope_scaling\": SCALING", rest);
            DecoderConfig::from_json(&text.replace("\"rope_theta\": 500000.0, ", ""), "config.json")
        };
        let kinds = |last: &str| format!("\"layer_types\": [{}\"{last}\"]", "\"full_attention\", ".repeat(4));
        for (family, rest, expected) in [
            ("qwen2", r#""use_sliding_window": true, "sliding_window": 64, "max_window_layers": 5"#, "....."),
            ("qwen2", r#""use_sliding_window": true, "sliding_window": 64"#, "....."), // 28 layers look at everything
            ("qwen2", r#""use_sliding_window": true, "sliding_window": 64, "max_window_layers": 3"#, "...ss"),
            ("qwen3", r#""use_sliding_window": true, "sliding_window": null, "max_window_layers": 0"#, "....."),
            ("qwen3", r#""use_sliding_window": false, "sliding_window": 64, "max_window_layers": 0"#, "....."),
            (
                "qwen2",
                &format!("\"use_sliding_window\": true, \"max_window_layers\": 0, {}", kinds("full_attention")),
                ".....",
            ),
            ("qwen3", &format!("\"use_sliding_window\": true, {}", kinds("sliding_attention")), "....s"),
            ("llama", r#""sliding_window": 64"#, "....."),
            ("mistral", r#""sliding_window": 64"#, "sssss"),
            ("mistral", r#""rope_theta": 1e4"#, "sssss"), // 4096
            ("mistral", r#""sliding_window": null"#, "....."),
            ("phi3", r#""sliding_window": 64"#, "sssss"),
            ("phi3", r#""rope_theta": 1e4"#, "....."),
            ("gemma2", r#""rope_theta": 1e4"#, "s.s.s"),
            ("gemma3_text", r#""rope_theta": 1e6"#, "sssss"),
            ("gemma3_text", r#""sliding_window_pattern": 3"#, "ss.ss"),
            ("olmo3", r#""rope_theta": 500000"#, "sss.s"),
            ("smollm3", r#""use_sliding_window": true, "sliding_window": 64"#, "...n."),
            ("smollm3", r#""no_rope_layer_interval": 2, "sliding_window": 64"#, ".N.N."),
            ("smollm3", r#""no_rope_layers": [1, 0, 1, 0, 0, 1]"#, ".N.NN"),
        ] {
            let found = config(family, rest).unwrap_or_else(|error| panic!("{family} {rest}: {error}"));
            let shown = |layer: &LayerKind| match (layer.slides, layer.rotates) {
                (false, true) => '.',
                (true, true) => 's',
                (false, false) => 'N',
                (true, false) => 'n',
            };
            assert_eq!(found.layers.iter().map(shown).collect::<String>(), expected, "{family} {rest}");
            assert_eq!(found.window.is_some(), found.layers.iter().any(|layer| layer.slides), "{family} {rest}");
        }
        for (family, rest, part) in [
            (
                "llama",
                r#""use_sliding_window": true, "sliding_window": 9, "max_window_layers": 4"#,
                "from layer 4 (max",
            ),
            ("llama", &kinds("sliding_attention"), "layer_types[4] `sliding_attention`"),
            ("qwen2", &kinds("sliding_attention"), "window of layer 4"),
            ("qwen2", &kinds("linear_attention"), "layer_types[4] `linear_attention`"),
            ("qwen2", r#""layer_types": ["full_attention"]"#, "expected 5, found 1"),
            ("mistral", &kinds("full_attention"), "layer_types[0] `full_attention`"),
            ("mistral", r#""sliding_window": 0"#, "1 or more, got 0"),
            ("gemma2", r#""sliding_window": null"#, "window of layer 0"),
            ("gemma3_text", r#""sliding_window_pattern": 0"#, "sliding_window_pattern"),
            ("smollm3", r#""no_rope_layer_interval": 0"#, "no_rope_layer_interval"),
            ("smollm3", r#""no_rope_layers": [1]"#, "expected 5, found 1"),
            ("gemma3_text", r#""attn_logit_softcapping": 50.0"#, "attn_logit_softcapping `50`"),
            ("llama", r#""final_logit_softcapping": 30.0"#, "final_logit_softcapping `30`"),
            ("qwen3", r#""logits_scaling": 8.0"#, "logits_scaling `8`"),
            ("granite", r#""logits_scaling": 0"#, "logits_scaling"),
            ("gemma2", r#""query_pre_attn_scalar": -1"#, "query_pre_attn_scalar"),
            ("gemma2", r#""final_logit_softcapping": -1"#, "final_logit_softcapping"),
            ("gemma3_text", r#""use_bidirectional_attention": true"#, "use_bidirectional_attention"),
            ("llama", r#""num_local_experts": 8"#, "num_local_experts `8`"),
            ("qwen3_moe", r#""num_experts": 8"#, "num_experts"),
            ("gemma2", r#""hidden_act": "gelu""#, "`hidden_act` is gelu"),
        ] {
            let error = config(family, rest).unwrap_err().to_string();
            assert!(error.contains(part), "{family} {rest}: {error}");
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
            ("\"rope_scaling\": null", "\"rope_scaling\": {\"rope_type\": \"dynamic\"}", "dynamic"),
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
