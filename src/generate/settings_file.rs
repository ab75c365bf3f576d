//! Reads how a model's owner generates with it: `generation_config.json`, and the end tokens of `config.json`.

use super::config::GenerationConfig;
use crate::error::{Error, Result};
use crate::file_kind::parse_json;
use serde_json::{Map, Value};
use std::path::Path;

const FILE: &str = "generation_config.json";
const MODEL_FILE: &str = "config.json";
const END: &str = "eos_token_id";

/// What transformers takes where a file that draws says nothing.
const DEFAULT_TOP_K: u64 = 50;

/// Settings that would change the answers and are not computed, each with the values that change nothing; null is one always.
const OTHERS: [(&str, &[f64]); 20] = [
    ("num_beams", &[1.0]),
    ("num_beam_groups", &[1.0]),
    ("penalty_alpha", &[0.0]),
    ("top_h", &[]),
    ("typical_p", &[1.0]),
    ("epsilon_cutoff", &[0.0]),
    ("eta_cutoff", &[0.0]),
    ("diversity_penalty", &[0.0]),
    ("encoder_repetition_penalty", &[1.0]),
    ("no_repeat_ngram_size", &[0.0]),
    ("encoder_no_repeat_ngram_size", &[0.0]),
    ("guidance_scale", &[1.0]),
    ("min_length", &[0.0]),
    ("min_new_tokens", &[0.0]),
    ("bad_words_ids", &[]),
    ("sequence_bias", &[]),
    ("suppress_tokens", &[]),
    ("begin_suppress_tokens", &[]),
    ("forced_bos_token_id", &[]),
    ("forced_eos_token_id", &[]),
];

impl GenerationConfig {
    /// The settings of a Hugging Face directory, as transformers reads them: those of `generation_config.json`, with the end tokens of
    /// `config.json` where it has none. The most tokens of an answer are the default's: what the files say of them counts the prompt.
    ///
    /// # Errors
    /// If a file is no JSON object, a setting is of the wrong kind or out of its bounds, or the file asks for something that this crate does
    /// not compute.
    pub fn from_dir(dir: impl AsRef<Path>) -> Result<Self> {
        let dir = dir.as_ref();
        let (own, model) = (fields(dir, FILE)?, fields(dir, MODEL_FILE)?);
        let mut config = read(&own).map_err(|error| within(dir, FILE, error))?;
        if config.end_tokens.is_none() {
            config.end_tokens = ids(&model, END).map_err(|error| within(dir, MODEL_FILE, error))?;
        }
        Ok(config)
    }
}

fn within(dir: &Path, file: &str, error: Error) -> Error {
    Error::format(dir.join(file).display(), error)
}

/// The fields of a file, none where it is missing.
fn fields(dir: &Path, file: &str) -> Result<Map<String, Value>> {
    let path = dir.join(file);
    match std::fs::read(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Map::new()),
        Err(error) => Err(Error::io(&path, error)),
        Ok(bytes) => parse_json(&bytes, path.display()),
    }
}

fn read(fields: &Map<String, Value>) -> Result<GenerationConfig> {
    for (key, neutral) in OTHERS {
        let is_neutral = |value: &Value| value.is_null() || value.as_f64().is_some_and(|v| neutral.contains(&v));
        if let Some(value) = fields.get(key).filter(|value| !is_neutral(value)) {
            let supported = "greedy, temperature, top_k, top_p, min_p, repetition_penalty".into();
            return Err(Error::Unsupported { what: key.into(), found: value.to_string(), supported });
        }
    }
    let number = |key: &str| match fields.get(key).filter(|value| !value.is_null()) {
        None => Ok(None),
        Some(value) => value.as_f64().map(Some).ok_or_else(|| Error::config(key, "a number", value)),
    };
    let draws = match fields.get("do_sample") {
        None | Some(Value::Null) => false,
        Some(value) => value.as_bool().ok_or_else(|| Error::config("do_sample", "true or false", value))?,
    };
    let top_k = match fields.get("top_k").filter(|value| !value.is_null()) {
        None if draws => DEFAULT_TOP_K,
        None => 0,
        Some(value) => value.as_u64().ok_or_else(|| Error::config("top_k", "a whole number", value))?,
    };
    let config = GenerationConfig {
        greedy: !draws,
        temperature: number("temperature")?.unwrap_or(1.0),
        // 0 is none
        top_k: usize::try_from(top_k).ok().filter(|k| *k > 0),
        top_p: number("top_p")?.unwrap_or(1.0),
        min_p: number("min_p")?.unwrap_or(0.0),
        repetition_penalty: number("repetition_penalty")?.unwrap_or(1.0),
        end_tokens: ids(fields, END)?,
        ..GenerationConfig::default()
    };
    config.validate()?;
    Ok(config)
}

/// One id or a list of them.
fn ids(fields: &Map<String, Value>, key: &str) -> Result<Option<Vec<u32>>> {
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    let bad = |value: &Value| Error::config(key, "a token id or a list of them", value);
    let all = match fields.get(key) {
        Some(Value::Array(list)) => list.iter().collect(),
        // some files write −1 for none
        Some(value) if value.as_i64() == Some(-1) => Vec::new(),
        other => other.into_iter().filter(|value| !value.is_null()).collect(),
    };
    let all: Vec<u32> = all.into_iter().map(|value| id(value).ok_or_else(|| bad(value))).collect::<Result<_>>()?;
    Ok(Some(all).filter(|ids| !ids.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(own: Option<&str>, model: &str) -> Result<GenerationConfig> {
        let dir = tempfile::tempdir().unwrap();
        own.iter().for_each(|text| std::fs::write(dir.path().join(FILE), text).unwrap());
        std::fs::write(dir.path().join(MODEL_FILE), model).unwrap();
        GenerationConfig::from_dir(dir.path())
    }

    #[test]
    fn the_owners_settings_and_end_tokens_are_taken_and_those_of_the_model_where_there_are_none() {
        let own = r#"{"do_sample": true, "temperature": 0.7, "top_p": 0.8, "top_k": 20, "repetition_penalty": 1.05,
            "eos_token_id": [5, 3], "pad_token_id": 3, "max_length": 20, "num_beams": 1, "typical_p": 1.0, "min_p": null}"#;
        let config = from(Some(own), r#"{"eos_token_id": 9}"#).unwrap();
        let expected =
            GenerationConfig::default().with_greedy(false).with_temperature(0.7).with_top_p(0.8).with_top_k(20);
        assert_eq!(config, expected.with_repetition_penalty(1.05).with_end_tokens(vec![5, 3]));
        let config = from(Some(r#"{"do_sample": true, "eos_token_id": null}"#), r#"{"eos_token_id": [9, 8]}"#).unwrap();
        assert_eq!((config.end_tokens, config.top_k), (Some(vec![9, 8]), Some(50)));
        assert_eq!(from(None, r#"{"eos_token_id": -1}"#).unwrap(), GenerationConfig::default());
        assert_eq!(from(Some(r#"{"top_k": 0}"#), "{}").unwrap().top_k, None);
    }

    #[test]
    fn what_is_not_computed_or_not_understood_is_refused_by_file_and_key() {
        for (own, parts) in [
            (r#"{"num_beams": 4}"#, ["num_beams", "`4`"]),
            (r#"{"suppress_tokens": [1]}"#, ["suppress_tokens", "[1]"]),
            (r#"{"eos_token_id": "</s>"}"#, ["eos_token_id", "</s>"]),
            (r#"{"temperature": "hot"}"#, ["temperature", "hot"]),
            (r#"{"top_p": 2}"#, ["top_p", "got 2"]),
            (r#"{"top_k": 1.5}"#, ["top_k", "1.5"]),
            ("[]", ["expected a map", ""]),
        ] {
            let error = from(Some(own), "{}").unwrap_err().to_string();
            assert!(error.contains(FILE), "{error}");
            parts.iter().for_each(|part| assert!(error.contains(part), "{error} lacks {part}"));
        }
    }
}
