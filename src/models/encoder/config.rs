//! Reads the shape of an encoder, and how it is pooled, from the files of its directory.

use super::modern::ModernBert;
use crate::error::{Error, Result};
use crate::file_kind::parse_json;
use crate::memory::Activations;
use crate::models::activations::LayerShape;
use crate::models::config::{MAX_DEPTH, MAX_DIMENSION, check_range};
use crate::models::problem::ProblemType;
use crate::models::settings::{Settings, agreed, unsupported};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::Path;

/// Where sentence-transformers says how a model is pooled.
pub(super) const POOLING_FILE: &str = "1_Pooling/config.json";
/// What it calls the kinds that are computed here; it may say others.
pub(super) const POOLING_PREFIX: &str = "pooling_mode_";

/// How the hidden states of a row become one vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Pooling {
    /// What the family's `…ForSequenceClassification` reads. BERT's pooler, `tanh(Wh + b)` of the first token's state h; or
    /// ModernBERT's layer before the classifier, `norm(gelu(Wh))`, h being what `classifier_pooling` says.
    Pooler,
    /// The first token's state.
    FirstToken,
    /// The mean over the real tokens.
    Mean,
}

/// The architecture of an encoder.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum EncoderFamily {
    /// BERT, MiniLM and others with `model_type: bert`.
    Bert,
    /// ModernBERT.
    ModernBert(ModernBert),
}

/// The shape of an encoder, as its `config.json` says.
#[derive(Debug, Clone, PartialEq)]
pub struct EncoderConfig {
    /// The architecture, with what is peculiar to it.
    pub family: EncoderFamily,
    /// Width of the hidden states.
    pub hidden_size: usize,
    /// Width of the feed-forward layers.
    pub intermediate_size: usize,
    /// Number of layers.
    pub n_layers: usize,
    /// Number of attention heads, each `hidden_size / n_heads` wide.
    pub n_heads: usize,
    /// Number of tokens.
    pub vocab_size: usize,
    /// Longest row.
    pub max_positions: usize,
    /// Number of kinds of tokens, by which the texts of a pair are told apart; 0 where they are not.
    pub n_token_types: usize,
    /// Added to the variance in every norm.
    pub norm_eps: f64,
    /// How a row becomes one vector.
    pub pooling: Pooling,
    /// The names of the classes of a checkpoint that classifies, in order.
    pub labels: Vec<String>,
    /// What the outputs of a checkpoint's head are, where the file says it.
    pub problem_type: Option<ProblemType>,
}

impl EncoderConfig {
    /// Bytes of the activations of a graph, for elements of so many bytes.
    pub(super) fn activations(&self, rows: usize, tokens: usize, bytes: usize) -> Activations {
        let shape = LayerShape {
            hidden: self.hidden_size,
            queries: self.hidden_size,
            keys_values: 2 * self.hidden_size,
            heads: self.n_heads,
            intermediate: self.intermediate_size,
        };
        shape.of_graph(self.n_layers, (rows, tokens), bytes)
    }

    /// Reads `config.json` and, where it is there, what sentence-transformers says about pooling.
    ///
    /// # Errors
    /// If a file is missing or malformed, the model is of another family or has a setting that is not computed, or dimensions
    /// contradict each other.
    pub fn from_dir(dir: impl AsRef<Path>) -> Result<Self> {
        let dir = dir.as_ref();
        let read = |path: &Path| std::fs::read(path).map_err(|e| Error::io(path, e));
        let path = dir.join("config.json");
        let mut config = Self::from_bytes(&read(&path)?, &path.display().to_string())?;
        let path = dir.join(POOLING_FILE);
        if path.is_file() {
            config.pooling = pooling(&read(&path)?, &path.display().to_string())?;
        }
        Ok(config)
    }

    /// Reads the text of a `config.json`; `location` names it in errors. Its pooling is BERT's own.
    ///
    /// # Errors
    /// As [`EncoderConfig::from_dir`].
    pub fn from_json(text: &str, location: &str) -> Result<Self> {
        Self::from_bytes(text.as_bytes(), location)
    }

    fn from_bytes(bytes: &[u8], location: &str) -> Result<Self> {
        let value: Value = parse_json(bytes, location)?;
        let empty = || Error::format(location, "is an empty JSON object");
        let settings = Settings::object(Some(&value), location, "")?.ok_or_else(empty)?;
        let family = settings.text("model_type")?.unwrap_or("(none)");
        if !["bert", "modernbert"].contains(&family) {
            return Err(unsupported(location, "model_type", family, "bert, modernbert"));
        }
        if let Some(found) = settings.get("quantization_config") {
            return Err(unsupported(location, "quantization_config", &found.to_string(), "none"));
        }
        let count = |field: &str, most: usize| {
            let missing = || Error::config(format!("{location}: {field}"), format!("from 1 to {most}"), "nothing");
            let found = settings.count(field)?.ok_or_else(missing)?;
            check_range(location, field, found, most).map(|()| found)
        };
        let (hidden_size, n_heads) =
            (count("hidden_size", MAX_DIMENSION)?, count("num_attention_heads", MAX_DIMENSION)?);
        if !hidden_size.is_multiple_of(n_heads) {
            let bound = format!("a multiple of the {n_heads} of num_attention_heads");
            return Err(Error::config(format!("{location}: hidden_size"), bound, hidden_size));
        }
        let n_layers = count("num_hidden_layers", MAX_DEPTH)?;
        let (family, n_token_types, (eps, absent)) = match family {
            "bert" => {
                check_bert(settings)?;
                let types =
                    settings.get("type_vocab_size").map_or(Ok(2), |_| count("type_vocab_size", MAX_DIMENSION))?;
                (EncoderFamily::Bert, types, ("layer_norm_eps", 1e-12))
            }
            _ => {
                let modern = ModernBert::read(settings, n_layers, hidden_size / n_heads)?;
                (EncoderFamily::ModernBert(modern), 0, ("norm_eps", 1e-5))
            }
        };
        let norm_eps = settings.number(eps)?.unwrap_or(absent);
        if !(norm_eps > 0.0 && norm_eps.is_finite()) {
            return Err(Error::config(format!("{location}: {eps}"), "positive and finite", norm_eps));
        }
        Ok(Self {
            family,
            hidden_size,
            intermediate_size: count("intermediate_size", MAX_DIMENSION)?,
            n_layers,
            n_heads,
            vocab_size: count("vocab_size", MAX_DIMENSION)?,
            max_positions: count("max_position_embeddings", MAX_DIMENSION)?,
            n_token_types,
            norm_eps,
            pooling: Pooling::Pooler,
            labels: labels(settings, location)?,
            problem_type: ProblemType::read(settings)?,
        })
    }

    /// Width of an attention head.
    pub fn head_dim(&self) -> usize {
        self.hidden_size / self.n_heads
    }
}

/// Refuses what no BERT here computes.
fn check_bert(settings: Settings<'_>) -> Result<()> {
    let location = settings.location;
    for (field, supported) in [("hidden_act", "gelu"), ("position_embedding_type", "absolute")] {
        if let Some(found) = settings.text(field)?.filter(|found| *found != supported) {
            return Err(unsupported(location, field, found, supported));
        }
    }
    for field in ["is_decoder", "add_cross_attention"] {
        if settings.flag(field)? == Some(true) {
            return Err(unsupported(location, field, "true", "false"));
        }
    }
    Ok(())
}

/// The names of `id2label` in the order of their numbers; none where the file has none.
fn labels(settings: Settings, location: &str) -> Result<Vec<String>> {
    let Some(names) = Settings::object(settings.get("id2label"), location, "id2label")? else { return Ok(Vec::new()) };
    let n = names.fields().len();
    let named = |id: usize| {
        let name = names.text(&id.to_string())?;
        let missing = || Error::format(location, format!("`id2label` has {n} names and none of `{id}`"));
        name.map(str::to_string).ok_or_else(missing)
    };
    (0..n).map(named).collect()
}

/// The kind of pooling that sentence-transformers' file says.
fn pooling(bytes: &[u8], location: &str) -> Result<Pooling> {
    let value: Value = parse_json(bytes, location)?;
    let empty = || Error::format(location, "is an empty JSON object");
    let settings = Settings::object(Some(&value), location, "")?.ok_or_else(empty)?;
    let on = |field: &&String| field.starts_with(POOLING_PREFIX) && settings.get(field) == Some(&Value::Bool(true));
    let kinds: Vec<&str> = settings.fields().keys().filter(on).map(|field| &field[POOLING_PREFIX.len()..]).collect();
    let newer = settings.text("pooling_mode")?;
    let kind = match kinds[..] {
        [one] => agreed(location, [(one.into(), Some(one)), ("pooling_mode".into(), newer)])?,
        [] => newer,
        _ => return Err(unsupported(location, "pooling_mode", &kinds.join(", "), "one of them")),
    };
    match kind {
        Some("mean_tokens" | "mean") => Ok(Pooling::Mean),
        Some("cls_token" | "cls") => Ok(Pooling::FirstToken),
        other => Err(unsupported(location, "pooling_mode", other.unwrap_or("(none)"), "mean_tokens, cls_token")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: &str = r#"{"model_type": "bert", "hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1,
        "num_attention_heads": 2, "vocab_size": 32, "max_position_embeddings": 16"#;

    #[test]
    fn what_is_not_computed_is_named() {
        for (extra, words) in [
            (r#", "hidden_act": "relu""#, ["hidden_act", "relu"]),
            (r#", "position_embedding_type": "relative_key""#, ["position_embedding_type", "relative_key"]),
            (r#", "is_decoder": true"#, ["is_decoder", "true"]),
            (r#", "num_attention_heads": 3"#, ["hidden_size", "8"]),
            (r#", "vocab_size": 0"#, ["vocab_size", "0"]),
            (r#", "id2label": {"0": "no", "2": "yes"}"#, ["id2label", "`1`"]),
            (r#", "id2label": {"0": "a"}, "problem_type": "single_label_classification""#, ["num_labels", "1"]),
            (r#", "problem_type": "multi_label_classification""#, ["problem_type", "multi_label"]),
        ] {
            let error = EncoderConfig::from_json(&format!("{PLAIN}{extra}}}"), "c.json").unwrap_err().to_string();
            assert!(words.iter().all(|word| error.contains(word)) && error.contains("c.json"), "{error}");
        }
        let modern = PLAIN.replace("\"bert\"", "\"modernbert\"");
        for (extra, words) in [
            (r#", "hidden_activation": "relu""#, ["hidden_activation", "relu"]),
            (r#", "classifier_pooling": "max""#, ["classifier_pooling", "max"]),
            (r#", "local_attention": 0"#, ["local_attention", "0"]),
            (r#", "local_rope_theta": null"#, ["local_rope_theta", "null"]),
            (r#", "global_rope_theta": -1"#, ["global", "-1"]),
            (r#", "rope_theta": 10000"#, ["rope_theta", "10000"]),
            (r#", "rope_scaling": {"rope_type": "linear", "factor": 2}"#, ["rope_scaling", "linear"]),
            (r#", "rope_parameters": {"rope_theta": 5}"#, ["rope_parameters", "full_attention"]),
            (r#", "rope_parameters": {"full_attention": {"rope_type": "dynamic"}}"#, ["rope_type", "dynamic"]),
            (r#", "layer_types": ["chunked_attention"]"#, ["layer_types[0]", "chunked_attention"]),
            (r#", "layer_types": []"#, ["layer_types", "0"]),
            (r#", "global_attn_every_n_layers": 0"#, ["global_attn_every_n_layers", "0"]),
            (r#", "num_hidden_layers": 1000000"#, ["num_hidden_layers", "1000000"]),
            (r#", "norm_eps": 0"#, ["norm_eps", "0"]),
            (r#", "hidden_size": 6"#, ["hidden_size / num_attention_heads", "3"]),
            (r#", "quantization_config": {"bits": 4}"#, ["quantization_config", "4"]),
        ] {
            let error = EncoderConfig::from_json(&format!("{modern}{extra}}}"), "c.json").unwrap_err().to_string();
            assert!(words.iter().all(|word| error.contains(word)) && error.contains("c.json"), "{error}");
        }
        let other = EncoderConfig::from_json(r#"{"model_type": "roberta"}"#, "c.json").unwrap_err().to_string();
        assert!(other.contains("roberta") && other.contains("modernbert"), "{other}");
    }

    #[test]
    fn what_a_modernbert_does_not_say_is_what_transformers_takes() {
        let text = PLAIN.replace("\"bert\"", "\"modernbert\"").replace("layers\": 1", "layers\": 4");
        let EncoderFamily::ModernBert(modern) = EncoderConfig::from_json(&format!("{text}}}"), "c").unwrap().family
        else {
            panic!("it is one");
        };
        assert_eq!((modern.slides, modern.reach), (vec![false, true, true, false], 64));
        assert_eq!((modern.rope.0, modern.sliding_rope.0), (160_000.0, 10_000.0));
        assert!(!(modern.attention_bias || modern.mlp_bias || modern.norm_bias || modern.classifier_bias));
        assert!(!modern.classifier_mean);
    }

    #[test]
    fn pooling_is_read_in_both_spellings() {
        let of = |text: &str| pooling(text.as_bytes(), "p.json");
        let old = r#"{"pooling_mode_cls_token": false, "pooling_mode_mean_tokens": true}"#;
        assert_eq!(of(old).unwrap(), Pooling::Mean);
        assert_eq!(of(r#"{"pooling_mode": "cls"}"#).unwrap(), Pooling::FirstToken);
        let error = of(r#"{"pooling_mode_max_tokens": true}"#).unwrap_err().to_string();
        assert!(error.contains("max_tokens") && error.contains("p.json"), "{error}");
    }
}
