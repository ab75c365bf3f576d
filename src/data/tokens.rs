//! Turns text into token ids and back with a Hugging Face `tokenizer.json`.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use serde_json::Value;

use super::chat::ChatFormat;
use super::jsonl::read_capped;
use super::special::SpecialTokens;
use crate::error::{Error, Result};
use crate::file_kind::mistaken;
use crate::hash::fnv1a;

/// The most round and square brackets that a regular expression of a tokenizer opens; those of published models open at most dozens.
const MAX_OPENED: usize = 256;
/// The most bytes that one tokenizer file may hold (256 MiB).
pub const MAX_TOKENIZER_BYTES: u64 = 1 << 28;

/// The contents of a tokenizer's files; all but the first are optional.
#[derive(Clone, Copy, Debug, Default)]
pub struct TokenizerFiles<'a> {
    /// `tokenizer.json`.
    pub tokenizer: &'a [u8],
    /// `tokenizer_config.json`.
    pub tokenizer_config: Option<&'a [u8]>,
    /// `special_tokens_map.json`.
    pub special_tokens_map: Option<&'a [u8]>,
    /// The model's `config.json`.
    pub config: Option<&'a [u8]>,
    /// `chat_template.jinja`.
    pub chat_template: Option<&'a [u8]>,
}

/// A tokenizer with its special tokens and, where the model has one, its chat template.
///
/// Panics of the tokenizers library on odd files are caught and become [`Error::Tokenizer`] (a program built with
/// `panic = "abort"` loses this net). Truncation and padding that a file asks for are switched off: here they are
/// [`Encoding`](super::Encoding)'s and [`PaddedRows`](super::PaddedRows)' business.
///
/// ```
/// use bayes_lora::data::Tokenizer;
///
/// let json = br#"{"version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
///     "pre_tokenizer": {"type": "Whitespace"}, "post_processor": null, "decoder": null,
///     "model": {"type": "WordLevel", "vocab": {"?": 0, "is": 1, "it": 2, "yes": 3, "no": 4}, "unk_token": "?"}}"#;
/// let tokenizer = Tokenizer::from_bytes(json)?;
/// assert_eq!(tokenizer.encode("is it?", true)?, [1, 2, 0]);
/// assert_eq!(tokenizer.decode(&[2, 1])?, "it is");
/// assert_eq!(tokenizer.class_tokens("is it?", &["yes".into(), "no".into()])?, [3, 4]);
/// # Ok::<(), bayes_lora::error::Error>(())
/// ```
#[derive(Clone)]
pub struct Tokenizer {
    pub(super) inner: tokenizers::Tokenizer,
    location: String,
    pub(super) bos: Option<u32>,
    eos: Option<u32>,
    pad: Option<u32>,
    pub(super) add_bos: Option<bool>,
    fingerprint: u64,
    chat_fingerprint: Option<u64>,
    /// Templates of which none can be taken, or one that does not compile, are an error only for who asks for chat prompts.
    chat: Option<std::result::Result<ChatFormat, String>>,
}

/// Token ids with the bytes of the text that each came from; `None` for tokens that were added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SpannedTokens {
    pub ids: Vec<u32>,
    pub spans: Vec<Option<(usize, usize)>>,
    /// What a post-processor adds behind a text, for a text that does not go on.
    pub tail: Vec<u32>,
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokenizer")
            .field("location", &self.location)
            .field("vocab_size", &self.vocab_size())
            .field("bos", &self.bos)
            .field("eos", &self.eos)
            .field("pad", &self.pad)
            .field("add_bos", &self.add_bos)
            .finish_non_exhaustive()
    }
}

impl Tokenizer {
    /// Reads `tokenizer.json` and what lies beside it in a Hugging Face directory.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Format`] for a malformed JSON file or one beyond [`MAX_TOKENIZER_BYTES`],
    /// [`Error::Tokenizer`] for a `tokenizer.json` that the library refuses.
    pub fn from_dir(dir: impl AsRef<Path>) -> Result<Self> {
        let dir = dir.as_ref();
        let path = dir.join("tokenizer.json");
        let tokenizer = read_capped(&path, MAX_TOKENIZER_BYTES)?;
        let optional = |name: &str| {
            let path = dir.join(name);
            path.exists().then(|| read_capped(&path, MAX_TOKENIZER_BYTES)).transpose()
        };
        let tokenizer_config = optional("tokenizer_config.json")?;
        let special_tokens_map = optional("special_tokens_map.json")?;
        let config = optional("config.json")?;
        let chat_template = optional("chat_template.jinja")?;
        let files = TokenizerFiles {
            tokenizer: &tokenizer,
            tokenizer_config: tokenizer_config.as_deref(),
            special_tokens_map: special_tokens_map.as_deref(),
            config: config.as_deref(),
            chat_template: chat_template.as_deref(),
        };
        Self::from_files_at(&path.display().to_string(), &files)
    }

    /// Reads a `tokenizer.json` alone.
    ///
    /// # Errors
    /// [`Error::Tokenizer`].
    pub fn from_bytes(tokenizer_json: &[u8]) -> Result<Self> {
        Self::from_files(&TokenizerFiles { tokenizer: tokenizer_json, ..TokenizerFiles::default() })
    }

    /// Reads files that are already in memory, such as embedded ones.
    ///
    /// # Errors
    /// Those of [`Tokenizer::from_dir`], but for the file system's.
    pub fn from_files(files: &TokenizerFiles<'_>) -> Result<Self> {
        Self::from_files_at("in memory", files)
    }

    fn from_files_at(location: &str, files: &TokenizerFiles<'_>) -> Result<Self> {
        let mut special = SpecialTokens::from_json(files.tokenizer_config, files.special_tokens_map, files.config)?;
        if let Some(source) = files.chat_template {
            special.add_chat_template_file(source);
        }
        if let Some(reason) = mistaken(files.tokenizer) {
            return Err(Error::Tokenizer { location: location.to_owned(), reason });
        }
        // what is no JSON at all is refused by the library, in its words
        let json: serde_json::Result<Value> = serde_json::from_slice(files.tokenizer);
        if let Ok(json) = &json {
            check_expressions(location, json)?;
        }
        let inner = guarded(location, || {
            let mut inner = tokenizers::Tokenizer::from_bytes(files.tokenizer)?;
            inner.with_truncation(None)?;
            inner.with_padding(None);
            Ok(inner)
        })?;
        let find = |name: &Option<String>, id: Option<u32>| {
            name.as_ref()
                .and_then(|name| inner.token_to_id(name))
                .or_else(|| id.filter(|id| inner.id_to_token(*id).is_some()))
        };
        let bos = find(&special.bos, special.bos_id);
        if special.add_bos == Some(true) && bos.is_none() {
            return Err(Error::Tokenizer {
                location: location.to_owned(),
                reason: format!("add_bos_token is true, but bos_token {:?} is not in the vocabulary", special.bos),
            });
        }
        let eos = find(&special.eos, special.eos_id);
        let pad = find(&special.pad, special.pad_id);
        Ok(Self {
            location: location.to_owned(),
            bos,
            eos,
            pad,
            add_bos: special.add_bos,
            fingerprint: fingerprint(json.map_err(|e| Error::format(location, e))?, (special.add_bos, bos)),
            chat_fingerprint: special.chat_template.as_ref().map(|source| fnv1a(source.bytes())),
            chat: ChatFormat::from_special(&special).map(|c| c.map_err(|e| e.to_string())),
            inner,
        })
    }

    /// Turns text into ids.
    ///
    /// With `add_special` the text gets the tokens that stand **before** a text: what the file's post-processor adds,
    /// and the BOS token if and only if `add_bos_token` says so (when that flag is absent the post-processor
    /// decides). Tokens that a post-processor would add at the end (EOS, `[SEP]`) are left out, because a prompt goes
    /// on; an [`Encoding`](super::Encoding) for a head, which reads texts whole, has them.
    ///
    /// # Errors
    /// [`Error::Tokenizer`].
    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>> {
        Ok(self.encode_with_spans(text, add_special)?.ids)
    }

    /// As [`encode`](Self::encode), with each token's place in the text.
    pub(crate) fn encode_with_spans(&self, text: &str, add_special: bool) -> Result<SpannedTokens> {
        let encoding = guarded(&self.location, || self.inner.encode(text, add_special))?;
        let mut ids = encoding.get_ids().to_vec();
        let mut spans: Vec<Option<(usize, usize)>> = encoding
            .get_offsets()
            .iter()
            .zip(encoding.get_special_tokens_mask())
            .map(|(span, added)| (*added == 0).then_some(*span))
            .collect();
        let n_kept = spans.iter().rposition(Option::is_some).map_or_else(
            // An empty text: keep the BOS token alone, if the post-processor begins with it.
            || usize::from(ids.first().is_some_and(|id| Some(*id) == self.bos)),
            |last| last + 1,
        );
        let tail = ids.split_off(n_kept);
        spans.truncate(n_kept);
        if let (true, Some(add), Some(bos)) = (add_special, self.add_bos, self.bos) {
            let has = ids.first() == Some(&bos) && spans.first() == Some(&None);
            if add && !has {
                ids.insert(0, bos);
                spans.insert(0, None);
            } else if !add && has {
                ids.remove(0);
                spans.remove(0);
            }
        }
        Ok(SpannedTokens { ids, spans, tail })
    }

    /// Turns ids into text, special tokens included.
    ///
    /// # Errors
    /// [`Error::Tokenizer`].
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        guarded(&self.location, || self.inner.decode(ids, false))
    }

    /// Turns ids into text, special tokens left out.
    ///
    /// # Errors
    /// [`Error::Tokenizer`].
    pub fn decode_text(&self, ids: &[u32]) -> Result<String> {
        guarded(&self.location, || self.inner.decode(ids, true))
    }

    /// The token of an id as the vocabulary writes it (`Ġyes`, `▁the`); `<id>` for an id that is not in it.
    pub fn token(&self, id: u32) -> String {
        self.inner.id_to_token(id).unwrap_or_else(|| format!("<{id}>"))
    }

    /// The number of tokens, added ones included.
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// The id that begins a sequence, if there is one.
    pub fn bos_id(&self) -> Option<u32> {
        self.bos
    }

    /// The id that ends a sequence, if there is one.
    pub fn eos_id(&self) -> Option<u32> {
        self.eos
    }

    /// The id that fills up batches: the pad token, else EOS, else BOS, else 0. Pads are masked, so any valid id does.
    pub fn pad_id(&self) -> u32 {
        self.pad.or(self.eos).or(self.bos).unwrap_or(0)
    }

    /// A hash of all that ids depend on: `tokenizer.json` whatever its white space, and the token that begins a text.
    pub fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    /// A hash of the chat template's source, where the model has one.
    pub fn chat_fingerprint(&self) -> Option<u64> {
        self.chat_fingerprint
    }

    /// Whether the model brings a chat template.
    pub fn has_chat_template(&self) -> bool {
        self.chat.is_some()
    }

    /// The model's chat template.
    ///
    /// # Errors
    /// [`Error::Incompatible`] for a model without one, [`Error::Format`] for one that does not compile.
    pub fn chat_format(&self) -> Result<&ChatFormat> {
        match &self.chat {
            Some(Ok(chat)) => Ok(chat),
            Some(Err(reason)) => Err(Error::format("chat template", reason)),
            None => Err(Error::Incompatible(format!(
                "tokenizer {}: the model has no chat template; ask without `chat`",
                self.location()
            ))),
        }
    }

    /// Renders one user message with the model's chat template, up to where the assistant's answer begins.
    ///
    /// The text holds the model's special tokens already: encode it with `add_special = false`.
    ///
    /// # Errors
    /// [`Error::Incompatible`] for a model without a template, [`Error::Format`] for a template that fails.
    pub fn chat_prompt(&self, user: &str) -> Result<String> {
        self.chat_format()?.render(user)
    }

    /// The file, or "in memory".
    pub fn location(&self) -> &str {
        &self.location
    }
}

/// Truncation and padding that a file asks for are switched off, and enter no hash.
fn fingerprint(mut file: Value, begin: (Option<bool>, Option<u32>)) -> u64 {
    if let Some(fields) = file.as_object_mut() {
        fields.retain(|name, _| name != "truncation" && name != "padding");
    }
    fnv1a(format!("{file}{begin:?}").bytes())
}

/// Refuses regular expressions that could nest too deeply: Oniguruma takes stack for every level, and ends the process where
/// there is none left.
fn check_expressions(location: &str, json: &Value) -> Result<()> {
    match json {
        Value::Array(items) => items.iter().try_for_each(|item| check_expressions(location, item)),
        Value::Object(fields) => fields.iter().try_for_each(|(name, value)| match value {
            Value::String(expression) if name == "Regex" => {
                let opened = expression.matches(['(', '[']).count();
                if opened <= MAX_OPENED {
                    return Ok(());
                }
                let reason = format!("a regular expression opens {opened} brackets, more than {MAX_OPENED}");
                Err(Error::Tokenizer { location: location.to_owned(), reason })
            }
            value => check_expressions(location, value),
        }),
        _ => Ok(()),
    }
}

/// Calls into the tokenizers library and turns both its errors and its panics into [`Error::Tokenizer`].
pub(super) fn guarded<T>(location: &str, call: impl FnOnce() -> tokenizers::Result<T>) -> Result<T> {
    let reason = match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => return Ok(value),
        Ok(Err(error)) => error.to_string(),
        Err(panic) => {
            let text =
                panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
            format!("panicked: {}", text.unwrap_or("no message"))
        }
    };
    Err(Error::Tokenizer { location: location.to_owned(), reason })
}

#[cfg(test)]
#[path = "tokens_tests.rs"]
mod tests;
