//! Finds a tokenizer's special tokens and chat template in the files that lie beside `tokenizer.json`.

use serde_json::Value;

use crate::error::{Error, Result};
use crate::file_kind::{mistaken, parse_json};

const CONFIG: &str = "tokenizer_config.json";
const MAP: &str = "special_tokens_map.json";
const TEMPLATE: &str = "chat_template.jinja";

/// Names and ids of special tokens, as far as the files give them.
///
/// Names come from `tokenizer_config.json` and `special_tokens_map.json`; ids from the vocabulary, then from `config.json`. A
/// chat template comes from `chat_template.jinja` or `tokenizer_config.json`. Where two files name different ones, nobody can
/// tell which was meant: that is an error, for chat templates only to who asks for chat.
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
    /// Why none of the chat templates that the files hold is taken.
    pub no_chat_template: Option<String>,
}

impl SpecialTokens {
    /// Reads `tokenizer_config.json`, `special_tokens_map.json` and `config.json`, each where there is one.
    ///
    /// # Errors
    /// [`Error::Format`] naming the file that is not a JSON object; [`Error::Incompatible`] for a token that the first two name
    /// differently.
    pub fn from_json(
        tokenizer_config: Option<&[u8]>,
        special_tokens_map: Option<&[u8]>,
        config: Option<&[u8]>,
    ) -> Result<Self> {
        let tokenizer_config = object(CONFIG, tokenizer_config)?;
        let of_map = object(MAP, special_tokens_map)?;
        let config = object("config.json", config)?;
        // beside this list, transformers no longer reads the map
        let is_complete = tokenizer_config["added_tokens_decoder"].is_object();
        let name = |field: &str| match (text_of(&tokenizer_config[field]), text_of(&of_map[field])) {
            (Some(a), Some(b)) if a != b && !is_complete => Err(Error::Incompatible(format!(
                "`{field}` is `{a}` in {CONFIG} and `{b}` in {MAP}: transformers takes the second; remove the wrong one"
            ))),
            (a, b) => Ok(a.or(b)),
        };
        let add_bos = &tokenizer_config["add_bos_token"];
        if !(add_bos.is_boolean() || add_bos.is_null()) {
            return Err(Error::format(CONFIG, format!("`add_bos_token` is {add_bos}, not true or false")));
        }
        let mut special = Self {
            bos: name("bos_token")?,
            eos: name("eos_token")?,
            pad: name("pad_token")?,
            unk: name("unk_token")?,
            bos_id: id_of(&config["bos_token_id"]),
            eos_id: id_of(&config["eos_token_id"]),
            pad_id: id_of(&config["pad_token_id"]),
            add_bos: add_bos.as_bool(),
            chat_template: None,
            no_chat_template: None,
        };
        special.set_chat_template(chat_template_of(&tokenizer_config["chat_template"]));
        Ok(special)
    }

    /// Adds the content of `chat_template.jinja`.
    pub(crate) fn add_chat_template_file(&mut self, bytes: &[u8]) {
        let of_file = match std::str::from_utf8(bytes) {
            _ if mistaken(bytes).is_some() => Err(format!("{TEMPLATE} {}", mistaken(bytes).unwrap_or_default())),
            Err(e) => Err(format!("{TEMPLATE} is not UTF-8: {e}")),
            Ok(source) => match &self.chat_template {
                // Jinja drops a line break at the end
                Some(other) if other.trim_end() != source.trim_end() => Err(format!(
                    "{TEMPLATE} and the `chat_template` of {CONFIG} differ: transformers takes the first; remove the wrong one"
                )),
                _ => Ok(Some(source.to_owned())),
            },
        };
        self.set_chat_template(of_file);
    }

    fn set_chat_template(&mut self, found: std::result::Result<Option<String>, String>) {
        (self.chat_template, self.no_chat_template) = match found {
            Ok(template) => (template, None),
            Err(reason) => (None, Some(reason)),
        };
    }
}

fn object(file: &str, bytes: Option<&[u8]>) -> Result<Value> {
    let Some(bytes) = bytes else {
        return Ok(Value::Null);
    };
    let value: Value = parse_json(bytes, file)?;
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
fn chat_template_of(value: &Value) -> std::result::Result<Option<String>, String> {
    let list = match value {
        Value::Null => return Ok(None),
        Value::String(source) => return Ok(Some(source.clone())),
        Value::Array(list) => list,
        _ => return Err(format!("the `chat_template` of {CONFIG} is neither a text nor a list")),
    };
    let defaults: Vec<&Value> = list.iter().filter(|entry| entry["name"] == "default").collect();
    let all: Vec<&Value> = list.iter().collect();
    match (defaults.as_slice(), all.as_slice()) {
        ([only], _) | ([], [only]) => {
            let source = only["template"].as_str();
            source.map(|s| Some(s.to_owned())).ok_or_else(|| format!("a chat template in {CONFIG} is not a text"))
        }
        ([], []) => Ok(None),
        (several, _) => {
            let names: Vec<String> = list.iter().map(|entry| entry["name"].to_string()).collect();
            Err(format!(
                "{} of the {} chat templates in {CONFIG} are named `default`, and one must be: {}",
                several.len(),
                list.len(),
                names.join(", ")
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from_config(json: &str) -> Result<SpecialTokens> {
        SpecialTokens::from_json(Some(json.as_bytes()), None, None)
    }

    #[test]
    fn two_files_that_name_a_token_differently_are_refused_unless_one_of_them_is_no_longer_read() {
        let read =
            |config: &str, map: &str| SpecialTokens::from_json(Some(config.as_bytes()), Some(map.as_bytes()), None);
        let map = r#"{"bos_token": "<b>", "eos_token": {"content": "<c>"}}"#;
        let error = read(r#"{"bos_token": "<a>"}"#, map).unwrap_err().to_string();
        for part in ["bos_token", "`<a>` in tokenizer_config.json", "`<b>` in special_tokens_map.json"] {
            assert!(error.contains(part), "{error}");
        }
        let special = read(r#"{"bos_token": {"content": "<b>"}, "eos_token": null}"#, map).unwrap();
        assert_eq!((special.bos.as_deref(), special.eos.as_deref()), (Some("<b>"), Some("<c>")));
        let special = read(r#"{"bos_token": "<a>", "added_tokens_decoder": {}}"#, map).unwrap();
        assert_eq!((special.bos.as_deref(), special.eos.as_deref()), (Some("<a>"), Some("<c>")));
        assert!(from_config(r#"{"add_bos_token": "yes"}"#).unwrap_err().to_string().contains("\"yes\""));
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
        let special = from_config(ambiguous).unwrap();
        assert_eq!(special.chat_template, None);
        let reason = special.no_chat_template.unwrap();
        assert!(reason.contains("0 of the 2") && reason.contains("\"a\", \"b\""), "{reason}");
    }

    #[test]
    fn a_template_in_two_files_is_taken_if_it_is_one_template() {
        let read = |file: &[u8]| {
            let mut special = from_config(r#"{"chat_template": "T"}"#).unwrap();
            special.add_chat_template_file(file);
            (special.chat_template, special.no_chat_template)
        };
        assert_eq!(read(b"T\n"), (Some("T\n".into()), None));
        for (file, part) in
            [(&b"U"[..], "differ"), (b"\xff", "UTF-8"), (b"<!doctype html>", "web page"), (b"", "empty")]
        {
            let (template, reason) = read(file);
            assert_eq!(template, None);
            assert!(reason.unwrap().contains(part));
        }
    }

    #[test]
    fn a_file_that_is_not_an_object_is_named() {
        for bad in ["[]", "{", "3"] {
            let message = from_config(bad).unwrap_err().to_string();
            assert!(message.contains("tokenizer_config.json"), "{message}");
        }
    }
}
