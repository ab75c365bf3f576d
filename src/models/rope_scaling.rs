//! How rotary frequencies are stretched for long contexts, and where a `config.json` says so.

use super::settings::{Settings, agreed, contradiction, unsupported};
use crate::error::{Error, Result};
use serde_json::Value;

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
    /// Each frequency divided by a factor of its own, as GGUF files say what `Llama3` does; `head_dim / 2` of them.
    Factors(Vec<f64>),
}

/// The older and the newer key. transformers 5 takes the first that is not empty.
const PLACES: [&str; 2] = ["rope_scaling", "rope_parameters"];

/// Base of the rotary frequencies where nothing is said.
const DEFAULT_THETA: f64 = 10_000.0;

/// Rotary base and stretching of a `config.json`.
///
/// Each place is read as transformers reads it where it stands alone. Two that come out different are refused: transformers drops
/// the second one whole, its base too, which nobody who wrote it can have meant.
pub(super) fn rope(config: Settings<'_>) -> Result<(f64, RopeScaling)> {
    let location = config.location;
    check_partial(config)?;
    let mut read: Option<(&str, &Value, (f64, RopeScaling))> = None;
    for place in PLACES {
        let value = config.get(place);
        let (Some(object), Some(value)) = (Settings::object(value, location, place)?, value) else { continue };
        let found = in_place(config, object)?;
        match &read {
            Some((first, said, earlier)) if *earlier != found => {
                return Err(contradiction(location, [(first, said), (place, value)]));
            }
            Some(_) => {}
            None => read = Some((place, value, found)),
        }
    }
    match read {
        Some((_, _, found)) => Ok(found),
        None => Ok((config.number("rope_theta")?.unwrap_or(DEFAULT_THETA), RopeScaling::None)),
    }
}

/// What one place says, with the keys outside it that belong to it.
fn in_place(config: Settings<'_>, object: Settings<'_>) -> Result<(f64, RopeScaling)> {
    let location = config.location;
    if let Some((key, _)) = object.fields().iter().find(|(_, value)| value.is_object()) {
        return Err(unsupported(location, &object.name(key), "an object", "one setting for all layers"));
    }
    check_partial(object)?;
    let both = |key: &str| {
        let (inside, outside) = (object.number(key)?, config.number(key)?);
        agreed(location, [(object.name(key), inside), (key.into(), outside)])
    };
    let theta = both("rope_theta")?.unwrap_or(DEFAULT_THETA);
    let positive = |key: &str, found: Option<f64>| {
        let shown = found.map_or("nothing".into(), |v| v.to_string());
        let bad = || Error::config(format!("{location}: {}", object.name(key)), "positive and finite", shown);
        found.filter(|v| *v > 0.0 && v.is_finite()).ok_or_else(bad)
    };
    let required = |key: &str| positive(key, object.number(key)?);
    let kinds = ["rope_type", "type"].map(|key| (object.name(key), object.text(key)));
    let [(first, a), (second, b)] = kinds;
    let scaling = match agreed(location, [(first, a?), (second, b?)])?.unwrap_or("default") {
        "default" => RopeScaling::None,
        "linear" => RopeScaling::Linear { factor: required("factor")? },
        "llama3" => {
            let (low, high) = (required("low_freq_factor")?, required("high_freq_factor")?);
            if high < low {
                let bound = format!("at least `low_freq_factor`, which is {low}");
                return Err(Error::config(format!("{location}: {}", object.name("high_freq_factor")), bound, high));
            }
            let original = "original_max_position_embeddings";
            RopeScaling::Llama3 {
                factor: required("factor")?,
                low_freq_factor: low,
                high_freq_factor: high,
                original_context: positive(original, both(original)?)?,
            }
        }
        other => return Err(unsupported(location, &object.name("rope_type"), other, "default, linear, llama3")),
    };
    Ok((theta, scaling))
}

/// Rotation of a part of each head is not computed.
fn check_partial(settings: Settings<'_>) -> Result<()> {
    let key = "partial_rotary_factor";
    match settings.number(key)? {
        Some(share) if share != 1.0 => {
            Err(unsupported(settings.location, &settings.name(key), &share.to_string(), "1: all of each head"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<(f64, RopeScaling)> {
        let value: Value = serde_json::from_str(json).unwrap();
        rope(Settings::object(Some(&value), "config.json", "")?.unwrap())
    }

    #[test]
    fn the_places_and_names_of_one_setting_mean_the_same() {
        let linear = (500_000.0, RopeScaling::Linear { factor: 4.0 });
        for json in [
            r#"{"rope_theta": 5e5, "rope_scaling": {"type": "linear", "factor": 4}}"#,
            r#"{"rope_scaling": {"rope_type": "linear", "factor": 4.0, "rope_theta": 5e5}}"#,
            r#"{"rope_parameters": {"rope_type": "linear", "type": "linear", "factor": 4, "rope_theta": 5e5}}"#,
            r#"{"rope_theta": 5e5, "rope_parameters": {"rope_type": "linear", "factor": 4}, "rope_scaling": {}}"#,
            r#"{"rope_theta": 5e5, "rope_parameters": {"rope_type": "linear", "factor": 4, "rope_theta": 500000},
                "rope_scaling": {"type": "linear", "factor": 4}, "partial_rotary_factor": 1.0}"#,
        ] {
            assert_eq!(read(json).unwrap(), linear, "{json}");
        }
        assert_eq!(read(r#"{"rope_scaling": null, "other": 1}"#).unwrap(), (DEFAULT_THETA, RopeScaling::None));
    }

    #[test]
    fn what_is_said_twice_differently_is_refused_with_both() {
        for (json, parts) in [
            (
                r#"{"rope_parameters": {"rope_type": "default", "rope_theta": 5e5},
                    "rope_scaling": {"type": "linear", "factor": 4.0}}"#,
                &["`rope_scaling` is", "\"factor\":4.0", "`rope_parameters` is", "500000.0"][..],
            ),
            (
                // the same stretching, but transformers would forget the base
                r#"{"rope_parameters": {"rope_type": "linear", "factor": 4, "rope_theta": 5e5},
                    "rope_scaling": {"type": "linear", "factor": 4}}"#,
                &["rope_scaling", "rope_parameters"],
            ),
            (
                r#"{"rope_theta": 1e4, "rope_parameters": {"rope_theta": 5e5}}"#,
                &["`rope_parameters.rope_theta` is 500000", "`rope_theta` is 10000"],
            ),
            (
                r#"{"rope_scaling": {"type": "linear", "rope_type": "default", "factor": 2}}"#,
                &["`rope_scaling.rope_type` is default", "`rope_scaling.type` is linear"],
            ),
            (
                r#"{"original_max_position_embeddings": 4096, "rope_scaling": {"rope_type": "llama3", "factor": 8,
                    "low_freq_factor": 1, "high_freq_factor": 4, "original_max_position_embeddings": 8192}}"#,
                &["original_max_position_embeddings", "8192", "4096"],
            ),
        ] {
            let error = read(json).unwrap_err().to_string();
            assert!(parts.iter().all(|part| error.contains(part)), "{error}");
        }
    }

    #[test]
    fn what_is_not_computed_is_refused_in_either_place() {
        for (json, parts) in [
            (r#"{"rope_parameters": {"rope_type": "default"}, "rope_scaling": {"type": "yarn", "factor": 4}}"#, "yarn"),
            (r#"{"rope_scaling": {"type": "linear", "factor": 2}, "rope_parameters": {"rope_type": "yarn"}}"#, "yarn"),
            (r#"{"rope_parameters": {"full_attention": {"rope_type": "default"}}}"#, "rope_parameters.full_attention"),
            (r#"{"rope_parameters": {"partial_rotary_factor": 0.5}}"#, "rope_parameters.partial_rotary_factor"),
            (r#"{"partial_rotary_factor": 0.5}"#, "partial_rotary_factor `0.5`"),
            (r#"{"rope_theta": "1e4"}"#, "rope_theta"),
            (r#"{"rope_scaling": ["linear", 4]}"#, "rope_scaling"),
            (r#"{"rope_scaling": {"type": "linear", "factor": -1}}"#, "rope_scaling.factor: must be positive"),
            (
                r#"{"rope_scaling": {"rope_type": "llama3", "factor": 8, "low_freq_factor": 4, "high_freq_factor": 1,
                    "original_max_position_embeddings": 8192}}"#,
                "high_freq_factor: must be at least `low_freq_factor`, which is 4, got 1",
            ),
        ] {
            let error = read(json).unwrap_err().to_string();
            assert!(error.contains(parts), "{error}");
        }
    }
}
