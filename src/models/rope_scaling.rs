//! How rotary frequencies are stretched for long contexts, and how one place of a `config.json` says so.

use super::settings::{Settings, agreed, unsupported};
use crate::error::{Error, Result};

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
        /// Upper edge of the band, in turns over the original context; not below the lower one.
        high_freq_factor: f64,
        /// Context length before stretching.
        original_context: f64,
    },
    /// YaRN (Peng et al. 2023): frequencies that turn seldom within the original context divided, those that turn often kept,
    /// those between interpolated by their place.
    Yarn {
        /// Stretch of the context.
        factor: f64,
        /// Turns over the original context from which on a frequency is kept.
        beta_fast: f64,
        /// Turns over the original context up to which a frequency is divided.
        beta_slow: f64,
        /// Context length before stretching.
        original_context: f64,
        /// Factor of cosines and sines.
        attention_factor: f64,
        /// The places of both edges are rounded to whole frequencies.
        truncate: bool,
    },
    /// LongRoPE (Ding et al. 2024): each frequency divided by a factor of its own, by other ones in rows longer than the
    /// original context. Whether a row is longer is its own matter here; transformers goes by the longest row of a batch.
    LongRope {
        /// Factors of rows within the original context, one for each rotating pair.
        short: Vec<f64>,
        /// Factors of longer rows.
        long: Vec<f64>,
        /// Context length before stretching.
        original_context: f64,
        /// Factor of cosines and sines.
        attention_factor: f64,
    },
    /// Each frequency divided by a factor of its own, as GGUF files say what `Llama3` does; `head_dim / 2` of them.
    Factors(Vec<f64>),
}

impl RopeScaling {
    /// Context length before stretching, where it matters.
    pub(super) fn original_context(&self) -> Option<f64> {
        match self {
            Self::None | Self::Linear { .. } | Self::Factors(_) => None,
            Self::Llama3 { original_context, .. }
            | Self::Yarn { original_context, .. }
            | Self::LongRope { original_context, .. } => Some(*original_context),
        }
    }

    /// Checks that there are as many factors as rotating pairs.
    pub(super) fn check_width(&self, rotary_dim: usize, location: &str) -> Result<()> {
        let lists = match self {
            Self::LongRope { short, long, .. } => [short, long],
            Self::Factors(factors) => [factors, factors],
            _ => return Ok(()),
        };
        match lists.into_iter().find(|list| list.len() != rotary_dim / 2) {
            Some(list) => {
                let what = format!("{location}: factors of rotary frequencies, one for each rotating pair");
                Err(Error::Count { what, expected: rotary_dim / 2, found: list.len() })
            }
            None => Ok(()),
        }
    }
}

/// Context length before stretching.
pub(super) const ORIGINAL: &str = "original_max_position_embeddings";

/// What one place says of stretching; `original` is the context before it, where anything says it.
pub(super) fn scaling(
    object: Settings<'_>,
    config: Settings<'_>,
    theta: f64,
    original: Option<f64>,
) -> Result<RopeScaling> {
    let location = object.location;
    let kinds = ["rope_type", "type"].map(|key| (object.name(key), object.text(key)));
    let [(first, a), (second, b)] = kinds;
    let kind = agreed(location, [(first, a?), (second, b?)])?.unwrap_or("default");
    // the first names of what became LongRoPE
    let kind = if matches!(kind, "su" | "yarn") && object.get("short_factor").is_some() { "longrope" } else { kind };
    let original = positive(object, ORIGINAL, original);
    match kind {
        "default" => Ok(RopeScaling::None),
        "linear" => Ok(RopeScaling::Linear { factor: required(object, "factor")? }),
        "llama3" => {
            let (low, high) = (required(object, "low_freq_factor")?, required(object, "high_freq_factor")?);
            if high < low {
                let bound = format!("at least `low_freq_factor`, which is {low}");
                return Err(Error::config(format!("{location}: {}", object.name("high_freq_factor")), bound, high));
            }
            Ok(RopeScaling::Llama3 {
                factor: required(object, "factor")?,
                low_freq_factor: low,
                high_freq_factor: high,
                original_context: original?,
            })
        }
        "yarn" => yarn(object, theta, original?),
        "longrope" => longrope(object, config, original?),
        other => {
            let supported = "default, linear, llama3, yarn, longrope";
            Err(unsupported(location, &object.name("rope_type"), other, supported))
        }
    }
}

fn positive(object: Settings<'_>, key: &str, found: Option<f64>) -> Result<f64> {
    let shown = found.map_or("nothing".into(), |v| v.to_string());
    let bad = || Error::config(format!("{}: {}", object.location, object.name(key)), "positive and finite", shown);
    found.filter(|v| *v > 0.0 && v.is_finite()).ok_or_else(bad)
}

fn required(object: Settings<'_>, key: &str) -> Result<f64> {
    positive(object, key, object.number(key)?)
}

fn optional(object: Settings<'_>, key: &str) -> Result<Option<f64>> {
    object.number(key)?.map(|found| positive(object, key, Some(found))).transpose()
}

fn yarn(object: Settings<'_>, theta: f64, original_context: f64) -> Result<RopeScaling> {
    if theta <= 1.0 {
        let field = format!("{}: rope_theta with rope_type yarn", object.location);
        return Err(Error::config(field, "above 1", theta));
    }
    let factor = required(object, "factor")?;
    let grown = |by: f64| if factor <= 1.0 { 1.0 } else { 0.1 * by * factor.ln() + 1.0 };
    let attention_factor = match (optional(object, "mscale")?, optional(object, "mscale_all_dim")?) {
        (Some(scale), Some(all)) => grown(scale) / grown(all),
        _ => grown(1.0),
    };
    Ok(RopeScaling::Yarn {
        factor,
        beta_fast: optional(object, "beta_fast")?.unwrap_or(32.0),
        beta_slow: optional(object, "beta_slow")?.unwrap_or(1.0),
        original_context,
        attention_factor: optional(object, "attention_factor")?.unwrap_or(attention_factor),
        truncate: object.flag("truncate")?.unwrap_or(true),
    })
}

fn longrope(object: Settings<'_>, config: Settings<'_>, original_context: f64) -> Result<RopeScaling> {
    let factor = match optional(object, "factor")? {
        Some(factor) => factor,
        None => required(config, "max_position_embeddings")? / original_context,
    };
    let grown = if factor <= 1.0 { 1.0 } else { (1.0 + factor.ln() / original_context.ln()).sqrt() };
    let attention_factor = optional(object, "attention_factor")?.unwrap_or(grown);
    let [short, long] = ["short_factor", "long_factor"].map(|key| object.numbers(key).map(|found| (key, found)));
    let factors = |(key, found): (&str, Option<Vec<f64>>)| {
        let shown = found.as_ref().map_or("nothing".into(), |found| format!("{found:?}"));
        let bad = || Error::config(format!("{}: {}", object.location, object.name(key)), "positive numbers", shown);
        found.filter(|all| all.iter().all(|v| *v > 0.0 && v.is_finite())).ok_or_else(bad)
    };
    Ok(RopeScaling::LongRope {
        short: factors(short?)?,
        long: factors(long?)?,
        original_context,
        attention_factor: positive(object, "attention_factor", Some(attention_factor))?,
    })
}
