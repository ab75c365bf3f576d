//! What ModernBERT's `config.json` says beside what every encoder's does.

use crate::error::{Error, Result};
use crate::models::activation::GateActivation;
use crate::models::family::SlidingTheta;
use crate::models::layers::given;
use crate::models::rope_scaling::RopeScaling;
use crate::models::rope_settings::two_ropes;
use crate::models::settings::{Settings, unsupported};

/// What transformers takes where the file does not say.
const GLOBAL_THETA: SlidingTheta = SlidingTheta { default: 160_000.0, key: Some("global_rope_theta") };
const LOCAL_THETA: SlidingTheta = SlidingTheta { default: 10_000.0, key: Some("local_rope_theta") };
const LOCAL_ATTENTION: usize = 128;
const EVERY: usize = 3;

/// Settings of other families, which transformers would not hear in this one, or hear in half of its places.
const NOT_HEARD: [&str; 3] = ["rope_scaling", "rope_theta", "head_dim"];

/// What ModernBERT has beside BERT (Warner et al. 2024): rotated queries and keys instead of a table of positions, gated
/// feed-forward layers, norms before instead of behind, and layers whose tokens see their neighbours only.
#[derive(Debug, Clone, PartialEq)]
pub struct ModernBert {
    /// Which layers see their neighbours only.
    pub slides: Vec<bool>,
    /// How far their tokens see, on either side.
    pub reach: usize,
    /// Base of the rotary frequencies, and their stretching, in layers that see everything.
    pub rope: (f64, RopeScaling),
    /// Both in the other layers.
    pub sliding_rope: (f64, RopeScaling),
    /// Activation of the gate of the feed-forward layers.
    pub activation: GateActivation,
    /// Biases of attention.
    pub attention_bias: bool,
    /// Biases of the feed-forward layers.
    pub mlp_bias: bool,
    /// Biases of norms.
    pub norm_bias: bool,
    /// A classifier reads the mean over the tokens, not the first token.
    pub classifier_mean: bool,
    /// Activation of the layer before a classifier.
    pub classifier_activation: GateActivation,
    /// The bias of that layer.
    pub classifier_bias: bool,
}

impl ModernBert {
    /// # Errors
    /// If a setting is of the wrong kind, contradicts another, or is not computed.
    pub(super) fn read(settings: Settings<'_>, n_layers: usize, head_dim: usize) -> Result<Self> {
        let location = settings.location;
        if let Some((key, found)) = NOT_HEARD.iter().find_map(|key| Some((key, settings.get(key)?))) {
            return Err(unsupported(location, key, &found.to_string(), "none: it is not read in this family"));
        }
        if let Some(null) = LOCAL_THETA.key.filter(|key| settings.has(key) && settings.get(key).is_none()) {
            let supported = "a number: versions of transformers take different ones for null";
            return Err(unsupported(location, null, "null", supported));
        }
        if !head_dim.is_multiple_of(2) {
            let what = format!("{location}: hidden_size / num_attention_heads");
            return Err(Error::config(what, "even, since halves of a head rotate", head_dim));
        }
        let (full, sliding) = two_ropes(settings, [GLOBAL_THETA, LOCAL_THETA])?;
        for (name, rope) in [("global", &full), ("local", &sliding)] {
            rope.scaling.check_width(head_dim, location)?;
            if !(rope.theta > 0.0 && rope.theta.is_finite()) {
                let what = format!("{location}: rope_theta of {name} attention");
                return Err(Error::config(what, "positive and finite", rope.theta));
            }
        }
        let positive = |field: &str, absent: usize| match settings.count(field)?.unwrap_or(absent) {
            0 => Err(Error::config(format!("{location}: {field}"), "1 or more", 0)),
            n => Ok(n),
        };
        let every = positive("global_attn_every_n_layers", EVERY)?;
        let computed = || (0..n_layers).map(|layer| !layer.is_multiple_of(every)).collect();
        let activation = |field: &str| {
            let name = settings.text(field)?.unwrap_or("gelu");
            let refused = || unsupported(location, field, name, "silu, gelu, gelu_pytorch_tanh");
            GateActivation::named(name).ok_or_else(refused)
        };
        let flag = |field: &str| settings.flag(field).map(|said| said.unwrap_or(false));
        let classifier_mean = match settings.text("classifier_pooling")?.unwrap_or("cls") {
            "cls" => false,
            "mean" => true,
            other => return Err(unsupported(location, "classifier_pooling", other, "cls, mean")),
        };
        Ok(Self {
            slides: given(settings, n_layers)?.unwrap_or_else(computed),
            reach: positive("local_attention", LOCAL_ATTENTION)? / 2,
            rope: (full.theta, full.scaling),
            sliding_rope: (sliding.theta, sliding.scaling),
            activation: activation("hidden_activation")?,
            attention_bias: flag("attention_bias")?,
            mlp_bias: flag("mlp_bias")?,
            norm_bias: flag("norm_bias")?,
            classifier_mean,
            classifier_activation: activation("classifier_activation")?,
            classifier_bias: flag("classifier_bias")?,
        })
    }
}
