//! The numbers beside the weights that logits depend on in some families.

use super::family::{Factors, Traits};
use super::settings::{Settings, unsupported};
use crate::error::{Error, Result};

/// Factors and caps; the default changes nothing.
#[derive(Debug, Clone, PartialEq)]
pub struct Scales {
    /// Factor of the embeddings.
    pub embedding: f64,
    /// Factor of what attention and MLP add to the residual stream.
    pub residual: f64,
    /// Factor of the scores; `None` is one over the root of the head's width.
    pub scores: Option<f64>,
    /// `c` of the scores' `c·tanh(x/c)`.
    pub score_cap: Option<f64>,
    /// Factor of queries by their positions.
    pub positions: Option<PositionScale>,
    /// Divisor of the logits.
    pub logit_divisor: f64,
    /// `c` of the logits' `c·tanh(x/c)`.
    pub logit_cap: Option<f64>,
}

/// Queries times `1 + β·ln(1 + ⌊position / context⌋)`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PositionScale {
    /// `β`
    pub beta: f64,
    /// Context length before stretching.
    pub context: f64,
}

impl Default for Scales {
    fn default() -> Self {
        Self {
            embedding: 1.0,
            residual: 1.0,
            scores: None,
            score_cap: None,
            positions: None,
            logit_divisor: 1.0,
            logit_cap: None,
        }
    }
}

const MULTIPLIERS: [&str; 4] =
    ["embedding_multiplier", "residual_multiplier", "attention_multiplier", "logits_scaling"];
const SCORE_CAP: &str = "attn_logit_softcapping";
const LOGIT_CAP: &str = "final_logit_softcapping";

impl Scales {
    /// What `config` says where the family hears it; a number that it does not hear, and that is not neutral, is refused.
    pub(super) fn read(config: Settings<'_>, traits: &Traits, hidden: usize, context: Option<f64>) -> Result<Self> {
        let deaf = |keys: &[&str], neutral: Option<f64>| {
            let said = |key: &&str| config.number(key).map(|found| found.filter(|found| Some(*found) != neutral));
            for key in keys {
                if let Some(found) = said(key)? {
                    let supported = format!("none: `{}` does not compute with it", traits.model_type);
                    return Err(unsupported(config.location, key, &found.to_string(), &supported));
                }
            }
            Ok(())
        };
        if traits.factors != Factors::Multipliers {
            deaf(&MULTIPLIERS, Some(1.0))?;
        }
        match traits.factors {
            Factors::Gemma { score_cap: Some(_), .. } => {}
            Factors::Gemma { score_cap: None, .. } => deaf(&[SCORE_CAP], None)?,
            _ => deaf(&[SCORE_CAP, LOGIT_CAP], None)?,
        }
        let plain = Self::default();
        match traits.factors {
            Factors::None => Ok(plain),
            Factors::Multipliers => {
                let [embedding, residual, scores, logits] = MULTIPLIERS.map(|key| number(config, key, Some(1.0)));
                let logit_divisor = logits?.unwrap_or(1.0);
                if logit_divisor == 0.0 {
                    return Err(Error::config(format!("{}: logits_scaling", config.location), "not zero", 0));
                }
                let (embedding, residual) = (embedding?.unwrap_or(1.0), residual?.unwrap_or(1.0));
                Ok(Self { embedding, residual, scores: scores?, logit_divisor, ..plain })
            }
            Factors::Gemma { score_cap, logit_cap } => {
                let by = number(config, "query_pre_attn_scalar", Some(256.0))?.unwrap_or(256.0);
                if by <= 0.0 {
                    return Err(Error::config(format!("{}: query_pre_attn_scalar", config.location), "positive", by));
                }
                let embedding = (hidden as f64).sqrt();
                let (score_cap, logit_cap) = (cap(config, SCORE_CAP, score_cap)?, cap(config, LOGIT_CAP, logit_cap)?);
                Ok(Self { embedding, scores: Some(by.sqrt().recip()), score_cap, logit_cap, ..plain })
            }
            Factors::Positions => {
                let places = ["rope_scaling", "rope_parameters"];
                let objects = places.map(|place| Settings::object(config.get(place), config.location, place));
                let mut positions = None;
                for object in objects {
                    let Some(object) = object? else { continue };
                    if let Some(beta) = number(object, "llama_4_scaling_beta", None)? {
                        let shown =
                            || Error::config(object.name("original_max_position_embeddings"), "there", "nothing");
                        positions = Some(PositionScale { beta, context: context.ok_or_else(shown)? });
                    }
                }
                Ok(Self { positions, ..plain })
            }
        }
    }
}

/// A finite number; `absent` where there is none.
fn number(config: Settings<'_>, key: &str, absent: Option<f64>) -> Result<Option<f64>> {
    match config.number(key)? {
        Some(found) if !found.is_finite() => {
            Err(Error::config(format!("{}: {}", config.location, config.name(key)), "finite", found))
        }
        Some(found) => Ok(Some(found)),
        None => Ok(absent),
    }
}

/// A cap, by default `absent`; null is none.
fn cap(config: Settings<'_>, key: &str, absent: Option<f64>) -> Result<Option<f64>> {
    if !config.has(key) {
        return Ok(absent);
    }
    match number(config, key, None)? {
        Some(found) if found <= 0.0 => Err(Error::config(format!("{}: {key}", config.location), "positive", found)),
        found => Ok(found),
    }
}
