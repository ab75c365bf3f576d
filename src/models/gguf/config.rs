//! Reads the metadata of a GGUF file as the configuration of a decoder.

use super::rope::{rope_scaling, with_factors, with_long_factors};
use crate::error::{Error, Result};
use crate::gguf::GgufFile;
use crate::models::activation::GateActivation;
use crate::models::config::{DecoderConfig, MAX_DEPTH};
use crate::models::family::{Factors, Family, Windows};
use crate::models::layers::LayerKind;
use crate::models::names::gguf as names;
use crate::models::rope_scaling::RopeScaling;
use crate::models::scales::{PositionScale, Scales};
use crate::models::settings::unsupported;

/// Families of which llama.cpp's files are read, under their names there. Mistral's are of `llama`, and OLMo 3's of `olmo2`: they say a
/// window.
const FAMILIES: [(&str, Family); 10] = [
    ("llama", Family::Llama),
    ("qwen2", Family::Qwen2),
    ("qwen3", Family::Qwen3),
    ("smollm3", Family::SmolLm3),
    ("olmo2", Family::Olmo2),
    ("granite", Family::Granite),
    ("mistral3", Family::Ministral3),
    ("phi3", Family::Phi3),
    ("gemma2", Family::Gemma2),
    ("gemma3", Family::Gemma3),
];

/// Base of the rotary frequencies of Gemma 3's sliding layers, where the file does not say it.
const GEMMA3_SLIDING_THETA: f64 = 10_000.0;

/// Numbers of layers of the models of Gemma 2 and 3 whose scores are divided by the root of the width by the heads, and not of the
/// width of a head: the files do not say it, and llama.cpp tells by this too.
const GEMMA_27B: [(Family, usize); 2] = [(Family::Gemma2, 46), (Family::Gemma3, 62)];

/// Factor of queries by their positions.
const TEMPERATURE: &str = "attention.temperature_scale";
/// Granite's factors: of embeddings, of what is added to the residual stream, of scores, and the divisor of the logits.
const MULTIPLIERS: [&str; 4] = ["embedding_scale", "residual_scale", "attention.scale", "logit_scale"];
/// Of scores and of logits.
const CAPS: [&str; 2] = ["attn_logit_softcapping", "final_logit_softcapping"];
const WINDOW: &str = "attention.sliding_window";
const PATTERN: &str = "attention.sliding_window_pattern";

/// Reads the shape of the model from the metadata and from which tensors there are.
///
/// # Errors
/// As [`Pretrained::from_gguf`](super::Pretrained::from_gguf).
pub(in crate::models) fn config(file: &mut GgufFile) -> Result<DecoderConfig> {
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
    let windowed = file.count(&key(WINDOW))?.is_some_and(|window| window > 0);
    let family = if family == Family::Olmo2 && windowed { Family::Olmo3 } else { family };
    let count = |name: &str| file.count(&key(name));
    let required = |name: &str| count(name)?.ok_or_else(|| missing(&key(name)));
    if let Some(n) = count("expert_count")?.filter(|n| *n > 0) {
        return Err(unsupported(&location, &key("expert_count"), &n.to_string(), "0"));
    }
    let (hidden_size, n_heads) = (required("embedding_length")?, required("attention.head_count")?);
    let head_dim = count("attention.key_length")?.unwrap_or(hidden_size / n_heads.max(1));
    let traits = family.traits();
    let rotary_dim = count("rope.dimension_count")?.unwrap_or(head_dim);
    let same =
        [("attention.value_length", count("attention.value_length")?), ("rope.dimension_count", Some(rotary_dim))];
    for (name, n) in &same[..if traits.partial { 1 } else { 2 }] {
        if let Some(n) = n.filter(|n| *n != head_dim) {
            return Err(unsupported(&location, &key(name), &n.to_string(), &format!("the head's width, {head_dim}")));
        }
    }
    let n_layers = required("block_count")?;
    let source = Source { file, family, architecture, location: &location };
    let (layers, window) = source.layers(n_layers.min(MAX_DEPTH))?;
    let max_positions = required("context_length")?;
    let rope_theta = file.number(&key("rope.freq_base"))?.unwrap_or(10_000.0);
    let rope_scaling = rope_scaling(file, &key("rope"), (rope_theta, max_positions), &location)?;
    let original = count("rope.scaling.original_context_length")?.unwrap_or(max_positions) as f64;
    let scales = source.scales((hidden_size, head_dim), n_heads, n_layers, original)?;
    let sliding = source.number("rope.freq_base_swa")?;
    let absent = if family == Family::Gemma3 { GEMMA3_SLIDING_THETA } else { rope_theta };
    let sliding_rope = match (traits.sliding_theta, sliding) {
        (Some(_), found) => Some((found.unwrap_or(absent), RopeScaling::None)),
        (None, Some(found)) => return Err(source.not_heard("rope.freq_base_swa", found)),
        (None, None) => None,
    };
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
        n_layers,
        n_heads,
        n_kv_heads: count("attention.head_count_kv")?.unwrap_or(n_heads),
        head_dim,
        inside: false,
        vocab_size,
        max_positions,
        norm_eps: file.number(&key(eps))?.ok_or_else(|| missing(&key(eps)))?,
        rope_theta,
        rope_scaling,
        qkv_bias: has("blk.0.attn_q.bias"),
        output_bias: has("blk.0.attn_output.bias"),
        mlp_bias: has("blk.0.ffn_gate.bias"),
        tied_head: !has(&format!("{}.weight", names::HEAD)),
        sliding_rope,
        rotary_dim: rotary_dim.min(head_dim),
        layers,
        window,
        activation: GateActivation::named(traits.activation.1).unwrap_or(GateActivation::Silu),
        scales,
    };
    config.validate(&location)?;
    let prefix = key("rope.scaling");
    let config = with_factors(file, config, &location)?;
    match traits.partial {
        true => with_long_factors(file, config, &prefix),
        false => Ok(config),
    }
}

/// What single settings of a family are read from.
struct Source<'a> {
    file: &'a GgufFile,
    family: Family,
    architecture: &'a str,
    location: &'a str,
}

impl Source<'_> {
    fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.architecture)
    }

    /// A number, which must be finite.
    fn number(&self, name: &str) -> Result<Option<f64>> {
        match self.file.number(&self.key(name))? {
            Some(found) if !found.is_finite() => {
                Err(Error::config(format!("{}: {}", self.location, self.key(name)), "finite", found))
            }
            found => Ok(found),
        }
    }

    fn not_heard(&self, name: &str, found: f64) -> Error {
        let supported = format!("none: `{}` does not compute with it", self.architecture);
        unsupported(self.location, &self.key(name), &found.to_string(), &supported)
    }

    /// What each layer does, and the window of those that slide.
    fn layers(&self, n: usize) -> Result<(Vec<LayerKind>, Option<usize>)> {
        let traits = self.family.traits();
        // Gemma 3's files say it where a layer slides
        let absent = traits.window.filter(|_| self.family == Family::Gemma2);
        let window = self.file.count(&self.key(WINDOW))?.or(absent).filter(|window| *window > 0);
        let (pattern, each) = match self.file.flags(&self.key(PATTERN))? {
            Some(each) => (None, Some(each)),
            None => (self.file.count(&self.key(PATTERN))?, None),
        };
        let each = each.map(|each| self.each(each, n)).transpose()?;
        let every = match (traits.windows, window) {
            (Windows::AllButEvery { n, .. }, Some(_)) => Some(pattern.unwrap_or(n)),
            (Windows::AllButEvery { .. }, None) => None,
            // all: there are never so many layers
            (Windows::Always, window) if pattern.is_none() => window.map(|_| usize::MAX),
            _ => {
                for (name, found) in [(PATTERN, pattern), (WINDOW, window)] {
                    if let Some(found) = found {
                        return Err(unsupported(self.location, &self.key(name), &found.to_string(), "0"));
                    }
                }
                None
            }
        };
        if every == Some(0) {
            return Err(Error::config(format!("{}: {}", self.location, self.key(PATTERN)), "1 or more", 0));
        }
        let kind = |layer: usize| LayerKind {
            slides: match &each {
                Some(each) => window.is_some() && each[layer],
                None => every.is_some_and(|every| !(layer + 1).is_multiple_of(every)),
            },
            rotates: traits.unrotated_every.is_none_or(|every| !(layer + 1).is_multiple_of(every)),
        };
        let layers: Vec<LayerKind> = (0..n).map(kind).collect();
        let any = layers.iter().any(|layer| layer.slides);
        Ok((layers, window.filter(|_| any)))
    }

    /// Which layers slide, where the file lists them.
    fn each(&self, each: Vec<bool>, n: usize) -> Result<Vec<bool>> {
        if !matches!(self.family.traits().windows, Windows::AllButEvery { .. }) {
            return Err(unsupported(self.location, &self.key(PATTERN), "a list", "nothing"));
        }
        if each.len() != n {
            let what = format!("{}: {}, one for each layer", self.location, self.key(PATTERN));
            return Err(Error::Count { what, expected: n, found: each.len() });
        }
        Ok(each)
    }

    /// Factors and caps; one that the family does not compute with is refused.
    fn scales(
        &self,
        (hidden, head_dim): (usize, usize),
        n_heads: usize,
        n_layers: usize,
        original: f64,
    ) -> Result<Scales> {
        let factors = self.family.traits().factors;
        let heard: &[&str] = match factors {
            Factors::Multipliers => &MULTIPLIERS,
            Factors::Gemma { score_cap: Some(_), .. } => &CAPS,
            Factors::Gemma { score_cap: None, .. } => &CAPS[1..],
            Factors::Positions => &[TEMPERATURE],
            Factors::None => &[],
        };
        for name in MULTIPLIERS.iter().chain(&CAPS).chain(&[TEMPERATURE]).filter(|name| !heard.contains(name)) {
            if let Some(found) = self.number(name)? {
                return Err(self.not_heard(name, found));
            }
        }
        // llama.cpp takes zero for nothing
        let said = |name: &str| self.number(name).map(|found| found.filter(|found| *found != 0.0));
        match factors {
            Factors::Multipliers => {
                let finetuned = self.key("rope.scaling.finetuned");
                if self.file.flag(&finetuned)? == Some(false) {
                    return Err(unsupported(self.location, &finetuned, "false", "true: queries and keys rotate"));
                }
                let [embedding, residual, scores, logits] = MULTIPLIERS.map(said);
                let missing =
                    || Error::config(format!("{}: {}", self.location, self.key(MULTIPLIERS[3])), "not zero", "nothing");
                Ok(Scales {
                    embedding: embedding?.unwrap_or(1.0),
                    residual: residual?.unwrap_or(1.0),
                    scores: scores?,
                    logit_divisor: logits?.ok_or_else(missing)?,
                    ..Scales::default()
                })
            }
            Factors::Gemma { score_cap, logit_cap } => {
                let by_heads = GEMMA_27B.contains(&(self.family, n_layers));
                let width = if by_heads { hidden / n_heads.max(1) } else { head_dim };
                let cap = |name: &str, absent: Option<f64>| match said(name)? {
                    Some(found) if found < 0.0 => {
                        Err(Error::config(format!("{}: {}", self.location, self.key(name)), "positive", found))
                    }
                    found => Ok(found.or(absent)),
                };
                Ok(Scales {
                    embedding: (hidden as f64).sqrt(),
                    scores: Some((width as f64).sqrt().recip()),
                    score_cap: cap(CAPS[0], score_cap)?,
                    logit_cap: cap(CAPS[1], logit_cap)?,
                    ..Scales::default()
                })
            }
            Factors::Positions => {
                let positions = said(TEMPERATURE)?.map(|beta| PositionScale { beta, context: original });
                Ok(Scales { positions, ..Scales::default() })
            }
            Factors::None => Ok(Scales::default()),
        }
    }
}
