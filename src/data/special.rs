//! Finds a tokenizer's special tokens and chat template in the files that lie beside `tokenizer.json`.

use serde_json::Value;

use crate::error::{Error, Result};

/// Names and ids of special tokens, as far as the files give them.
///
/// Names come first from `tokenizer_config.json`, then from `special_tokens_map.json`; ids from the vocabulary, then
/// from `config.json`. A chat template comes from `chat_template.jinja`, else from `tokenizer_config.json`.
///
/// ```
/// use bayes_lora::data::SpecialTokens;
///
/// let config = br#"{"bos_token": {"content": "<s>"}, "pad_token": null, "add_bos_token": true}"#;
/// let map = br#"{"pad_token": "<pad>"}"#;
/// let special = SpecialTokens::from_json(Some(config), Some(map), None)?;
/// assert_eq!(special.bos.as_deref(), Some("<s>"));
/// assert_eq!(special.pad.as_deref(), Some("<pad>"));
/// assert_eq!(special.add_bos, Some(true));
/// # Ok::<(), bayes_lora::error::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpecialTokens {
    /// The token that begins a sequence.
    pub bos: Option<String>,
    /// The token that ends a sequence.
    pub eos: Option<String>,
    /// The token that fills up a batch.
    pub pad: Option<String>,
    /// The token for what the vocabulary lacks.
    pub unk: Option<String>,
    /// `bos_token_id` of `config.json`.
    pub bos_id: Option<u32>,
    /// `eos_token_id` of `config.json`; the first one of a list.
    pub eos_id: Option<u32>,
    /// `pad_token_id` of `config.json`.
    pub pad_id: Option<u32>,
    /// `add_bos_token`: whether every text begins with the token `bos`; `None` leaves it to `tokenizer.json`.
    pub add_bos: Option<bool>,
    /// The source of the chat template.
    pub chat_template: Option<String>,
}

impl SpecialTokens {
    /// Reads `tokenizer_config.json`, `special_tokens_map.json` and `config.json`, each where there is one.
    ///
    /// # Errors
    /// [`Error::Format`] naming the file that is not a JSON object, or whose chat template has no default.
    pub fn from_json(
        tokenizer_config: Option<&[u8]>,
        special_tokens_map: Option<&[u8]>,
        config: Option<&[u8]>,
    ) -> Result<Self> {
        let tokenizer_config = object("tokenizer_config.json", tokenizer_config)?;
        let map = object("special_tokens_map.json", special_tokens_map)?;
        let config = object("config.json", config)?;
        let name = |field: &str| text_of(&tokenizer_config[field]).or_else(|| text_of(&map[field]));
        Ok(Self {
            bos: name("bos_token"),
            eos: name("eos_token"),
            pad: name("pad_token"),
            unk: name("unk_token"),
            bos_id: id_of(&config["bos_token_id"]),
            eos_id: id_of(&config["eos_token_id"]),
            pad_id: id_of(&config["pad_token_id"]),
            add_bos: tokenizer_config["add_bos_token"].as_bool(),
            chat_template: chat_template_of(&tokenizer_config["chat_template"])?,
        })
    }
}

fn object(file: &str, bytes: Option<&[u8]>) -> Result<Value> {
    let Some(bytes) = bytes else {
        return Ok(Value::Null);
    };
    let value: Value = serde_json::from_slice(bytes).map_err(|e| Error::format(file, e))?;
    if !value.is_object() {
        return Err(Error::format(file, "is not a JSON object"));
    }
    Ok(value)
}

/// A token is written as a text or as an object with its text under `content`.
fn text_of(value: &Value) -> Option<String> {
    value.as_str().or_else(|| value["content"].as_str()).map(str::to_owned)
}

/// An id is written as a number or as a list of numbers; some files write −1 for "none".
fn id_of(value: &Value) -> Option<u32> {
    let first = value.as_array().and_then(|list| list.first()).unwrap_or(value);
    first.as_u64().and_then(|id| u32::try_from(id).ok())
}

/// A chat template is written as a text or as a list of named ones.
fn chat_template_of(value: &Value) -> Result<Option<String>> {
    let Some(list) = value.as_array() else {
        return Ok(value.as_str().map(str::to_owned));
    };
    let named = |name: &str| list.iter().find(|entry| entry["name"] == name);
    let chosen = match (named("default"), list.as_slice()) {
        (Some(entry), _) => entry,
        (None, [only]) => only,
        _ => {
            return Err(Error::format(
                "tokenizer_config.json",
                format!("none of its {} chat templates is named `default`", list.len()),
            ));
        }
    };
    Ok(chosen["template"].as_str().map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from_config(json: &str) -> Result<SpecialTokens> {
        SpecialTokens::from_json(Some(json.as_bytes()), None, None)
    }

    #[test]
    fn the_tokenizer_config_wins_over_the_map() {
        let special = SpecialTokens::from_json(
            Some(br#"{"bos_token": "<a>"}"#),
            Some(br#"{"bos_token": "<b>", "eos_token": {"content": "<c>"}}"#),
            None,
        )
        .unwrap();
        assert_eq!(special.bos.as_deref(), Some("<a>"));
        assert_eq!(special.eos.as_deref(), Some("<c>"));
    }

    #[test]
    fn ids_may_be_lists_or_minus_one() {
        let config = br#"{"bos_token_id": 1, "eos_token_id": [128001, 128008], "pad_token_id": -1}"#;
        let special = SpecialTokens::from_json(None, None, Some(config)).unwrap();
        assert_eq!((special.bos_id, special.eos_id, special.pad_id), (Some(1), Some(128_001), None));
    }

    #[test]
    fn the_default_of_several_chat_templates_is_taken() {
        let list =
            r#"{"chat_template": [{"name": "tool_use", "template": "T"}, {"name": "default", "template": "D"}]}"#;
        assert_eq!(from_config(list).unwrap().chat_template.as_deref(), Some("D"));
        let only = r#"{"chat_template": [{"name": "rag", "template": "R"}]}"#;
        assert_eq!(from_config(only).unwrap().chat_template.as_deref(), Some("R"));
        let ambiguous = r#"{"chat_template": [{"name": "a", "template": "A"}, {"name": "b", "template": "B"}]}"#;
        assert!(from_config(ambiguous).unwrap_err().to_string().contains("default"));
    }

    #[test]
    fn a_file_that_is_not_an_object_is_named() {
        for bad in ["[]", "{", "3"] {
            let message = from_config(bad).unwrap_err().to_string();
            assert!(message.contains("tokenizer_config.json"), "{message}");
        }
    }
}
