//! Reads how a GGUF file stretches the rotary frequencies: by settings, or by factors in tensors.

use super::weights::shape_error;
use crate::error::{Error, Result};
use crate::gguf::GgufFile;
use crate::models::config::DecoderConfig;
use crate::models::names::gguf::{LONG_FACTORS, ROPE_FACTORS};
use crate::models::rope_scaling::RopeScaling;
use crate::models::settings::{agreed, unsupported};

/// As llama.cpp reads it: a factor means linear scaling where no type is given, and stands under an older key too. `theta` is the base of
/// the frequencies, and `context` what a model was trained on, which YaRN takes where the file does not say more.
pub(super) fn rope_scaling(
    file: &GgufFile,
    prefix: &str,
    (theta, context): (f64, usize),
    location: &str,
) -> Result<RopeScaling> {
    let kind = format!("{prefix}.scaling.type");
    let factors = [format!("{prefix}.scaling.factor"), format!("{prefix}.scale_linear")];
    let [newer, older] = factors.clone().map(|key| file.number(&key).map(|factor| (key, factor)));
    let factor = agreed(location, [newer?, older?])?;
    let required = || positive(location, factors[0].clone(), factor);
    match file.text(&kind)?.unwrap_or(if factor.is_some() { "linear" } else { "none" }) {
        "none" => Ok(RopeScaling::None),
        "linear" => Ok(RopeScaling::Linear { factor: required()? }),
        "yarn" => yarn(file, &format!("{prefix}.scaling"), (theta, context, required()?), location),
        other => Err(unsupported(location, &kind, other, "none, linear, yarn")),
    }
}

/// A number that must be there, positive and finite.
fn positive(location: &str, key: String, found: Option<f64>) -> Result<f64> {
    let shown = found.map_or("nothing".into(), |found| found.to_string());
    let bad = || Error::config(format!("{location}: {key}"), "positive and finite", shown);
    found.filter(|found| *found > 0.0 && found.is_finite()).ok_or_else(bad)
}

/// YaRN, whose cosines and sines llama.cpp multiplies by `m(1) / m(c) · a` with `m(c) = 1 + 0.1·c·ln factor`, c being
/// `yarn_log_multiplier` and a `attn_factor`; `m(1) · a` where c is 0 or absent.
fn yarn(
    file: &GgufFile,
    prefix: &str,
    (theta, context, factor): (f64, usize, f64),
    location: &str,
) -> Result<RopeScaling> {
    let key = |name: &str| format!("{prefix}.{name}");
    if theta <= 1.0 {
        return Err(Error::config(format!("{location}: rope.freq_base with {} yarn", key("type")), "above 1", theta));
    }
    let number = |name: &str, absent: f64| {
        let found = file.number(&key(name))?.unwrap_or(absent);
        positive(location, key(name), Some(found))
    };
    let multiplier = file.number(&key("yarn_log_multiplier"))?.unwrap_or(0.0);
    if !(multiplier.is_finite() && multiplier >= 0.0) {
        let what = format!("{location}: {}", key("yarn_log_multiplier"));
        return Err(Error::config(what, "finite and not negative", multiplier));
    }
    let mixture = number("yarn_ext_factor", 1.0)?;
    if mixture != 1.0 {
        return Err(unsupported(location, &key("yarn_ext_factor"), &mixture.to_string(), "1"));
    }
    let grown = |by: f64| if factor <= 1.0 { 1.0 } else { 0.1 * by * factor.ln() + 1.0 };
    // for 0 the divisor is 1
    let attention_factor = grown(1.0) / grown(multiplier) * number("attn_factor", 1.0)?;
    // converters write it, and llama.cpp puts its own in its place
    let written = number("yarn_attn_factor", attention_factor)?;
    if (written - attention_factor).abs() > 1e-4 * attention_factor {
        let supported = format!("{attention_factor}, which llama.cpp computes");
        return Err(unsupported(location, &key("yarn_attn_factor"), &written.to_string(), &supported));
    }
    let original = file.count(&key("original_context_length"))?.filter(|n| *n > 0).unwrap_or(context);
    Ok(RopeScaling::Yarn {
        factor,
        beta_fast: number("yarn_beta_fast", 32.0)?,
        beta_slow: number("yarn_beta_slow", 1.0)?,
        original_context: original as f64,
        attention_factor,
        truncate: true,
    })
}

/// Takes the factors of the rotary frequencies where the file has them, as files of Llama 3.1 and later do.
pub(super) fn with_factors(file: &mut GgufFile, config: DecoderConfig, location: &str) -> Result<DecoderConfig> {
    match factors(file, ROPE_FACTORS, &config, location)? {
        Some(factors) => Ok(DecoderConfig { rope_scaling: RopeScaling::Factors(factors), ..config }),
        None => Ok(config),
    }
}

/// Takes LongRoPE's factors where the file has them, as files of Phi-3 and Phi-4 with a long context do.
pub(super) fn with_long_factors(file: &mut GgufFile, config: DecoderConfig, prefix: &str) -> Result<DecoderConfig> {
    let location = file.path().display().to_string();
    let [short, long] = LONG_FACTORS.map(|name| factors(file, name, &config, &location));
    let (short, long) = match (short?, long?) {
        (None, None) => return Ok(config),
        (Some(short), Some(long)) => (short, long),
        (short, _) => {
            let missing = LONG_FACTORS[usize::from(short.is_some())].to_string();
            return Err(Error::MissingTensor { name: missing, location: file.path().to_path_buf() });
        }
    };
    let positive = |key: String, found: Option<f64>| positive(&location, key, found);
    let (original, factor) = (format!("{prefix}.original_context_length"), format!("{prefix}.attn_factor"));
    let original_context = file.count(&original)?.map(|n| n as f64);
    let original_context = positive(original, original_context)?;
    let attention_factor = file.number(&factor)?.or(Some(1.0));
    let attention_factor = positive(factor, attention_factor)?;
    let rope_scaling = RopeScaling::LongRope { short, long, original_context, attention_factor };
    Ok(DecoderConfig { rope_scaling, ..config })
}

/// Factors of the rotary frequencies in a tensor, where there is one.
fn factors(file: &mut GgufFile, name: &str, config: &DecoderConfig, location: &str) -> Result<Option<Vec<f64>>> {
    let Some(shape) = file.shape(name) else { return Ok(None) };
    let expected = [config.rotary_dim / 2];
    if shape != expected {
        return Err(shape_error(location, name, &expected, shape));
    }
    if config.rope_scaling != RopeScaling::None {
        let found = format!("{:?}", config.rope_scaling);
        return Err(unsupported(location, &format!("rotary scaling beside `{name}`"), &found, "none"));
    }
    let factors: Vec<f64> = file.values(name)?.into_iter().map(f64::from).collect();
    match factors.iter().find(|f| !(f.is_finite() && **f > 0.0)) {
        Some(bad) => Err(Error::config(format!("{location}: {name}"), "positive and finite", bad)),
        None => Ok(Some(factors)),
    }
}
