//! Reads `config.json` as the plain description of a decoder.

use super::activation::GateActivation;
use super::activations::LayerShape;
use super::family::{AttentionBias, Family, LARGER, Traits};
use super::layers::{LayerKind, layers};
use super::problem::ProblemType;
use super::rope_scaling::RopeScaling;
use super::rope_settings::ropes;
use super::scales::Scales;
use super::settings::{Settings, contradiction, unsupported};
use crate::error::{Error, Result};
use crate::file_kind::parse_json;
use serde::Deserialize;
use serde_json::{Value, json};
use std::path::Path;

/// Largest width or vocabulary that a config may ask for.
pub(super) const MAX_DIMENSION: usize = 10_000_000;

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
    /// The decoder is the language model of a larger one, whose `text_config` this is; its modules are at
    /// `model.language_model` then.
    pub inside: bool,
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
    /// What a layer holds of every token.
    pub(super) fn layer_shape(&self) -> LayerShape {
        LayerShape {
            hidden: self.hidden_size,
            queries: self.n_heads * self.head_dim,
            keys_values: 2 * self.n_kv_heads * self.head_dim,
            heads: self.n_heads,
            intermediate: self.intermediate_size,
        }
    }

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
        match text_config(&value, location)? {
            Some(inner) => Self::from_value(inner, &format!("{location}: text_config"), true),
            None => Self::from_value(value, location, false),
        }
    }

    fn from_value(mut value: Value, location: &str, inside: bool) -> Result<Self> {
        let traits = Traits::of(settings(&value, location)?)?;
        for (key, absent) in traits.absent {
            if let Some(fields) = value.as_object_mut().filter(|fields| !fields.contains_key(*key)) {
                // counts are whole numbers in JSON
                let whole = absent.fract() == 0.0;
                fields.insert(key.to_string(), if whole { json!(*absent as u64) } else { json!(absent) });
            }
        }
        let settings = settings(&value, location)?;
        if let Some((key, found)) = NOT_COMPUTED.iter().find_map(|key| Some((key, settings.get(key)?)).filter(says)) {
            return Err(unsupported(location, key, &found.to_string(), "none"));
        }
        ProblemType::read(settings)?;
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
            inside,
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

fn settings<'a>(value: &'a Value, location: &'a str) -> Result<Settings<'a>> {
    let empty = || Error::format(location, "is an empty JSON object");
    Settings::object(Some(value), location, "")?.ok_or_else(empty)
}

/// The configuration of the language model of a larger model; what the larger one says of all its parts is in it.
fn text_config(value: &Value, location: &str) -> Result<Option<Value>> {
    let outer = settings(value, location)?;
    if !outer.text("model_type")?.is_some_and(|name| LARGER.contains(&name)) {
        return Ok(None);
    }
    let inner = Settings::object(outer.get("text_config"), location, "text_config")?;
    let missing = || unsupported(location, "text_config", "nothing", "an object");
    let mut fields = inner.ok_or_else(missing)?.fields().clone();
    for key in ["tie_word_embeddings", "quantization_config"] {
        if let Some(said) = outer.get(key) {
            fields.entry(key).or_insert_with(|| said.clone());
        }
    }
    Ok(Some(Value::Object(fields)))
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

pub(super) fn check_range(location: &str, field: &str, value: usize, most: usize) -> Result<()> {
    if value == 0 || value > most {
        return Err(Error::config(format!("{location}: {field}"), format!("from 1 to {most}"), value));
    }
    Ok(())
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
