//! Turns texts, completions and chats into token ids with their scored tokens.

#![allow(clippy::single_range_in_vec_init, reason = "a text may have one range of scored tokens")]

use super::chat_spans::ChatText;
use super::classes::common_prefix;
use super::text_dataset::{TextDataset, TextExample};
use super::texts::{ChatTurn, Role, TextContent, TextItem};
use super::tokens::{SpannedTokens, Tokenizer};
use super::truncate::Truncation;
use crate::error::{Error, Result};
use crate::setters::setters;
use std::ops::Range;

/// Which tokens are scored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ScoredPart {
    /// Completions, what the assistant says, and texts that have no prompt.
    #[default]
    Answers,
    /// Everything but a text's first token.
    Everything,
}

/// How texts become tokens.
///
/// ```
/// use bayes_lora::data::{TextEncoding, TextItem, Tokenizer};
///
/// let json = br#"{"version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
///     "pre_tokenizer": {"type": "Whitespace"}, "post_processor": null, "decoder": null,
///     "model": {"type": "WordLevel", "vocab": {"?": 0, "is": 1, "it": 2, "yes": 3, "no": 4}, "unk_token": "?"}}"#;
/// let tokenizer = Tokenizer::from_bytes(json)?;
/// let encoding = TextEncoding::default().with_end_token(false);
/// let data = encoding.encode("demo", &[TextItem::completion("1", "is it?", " yes yes")], &tokenizer)?;
/// assert_eq!((&data.examples[0].ids[..], &data.examples[0].scored[..]), (&[1, 2, 0, 3, 3][..], &[3..5][..]));
/// assert_eq!(data.example(0, &tokenizer)?, "text `1`: 5 tokens, 2 scored\nis it ?⟦ yes yes⟧\n");
/// # Ok::<(), bayes_lora::error::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TextEncoding {
    /// The most tokens of a text, the model's context; `None` leaves it to the model to refuse.
    pub max_tokens: Option<usize>,
    /// What to do with longer ones: [`Truncation::End`] cuts off what is beyond, and counts.
    pub truncation: Truncation,
    /// Which tokens are scored.
    pub scored: ScoredPart,
    /// Whether texts and completions get the token that ends a sequence, scored; chats have what their template writes.
    pub end_token: bool,
}

impl Default for TextEncoding {
    /// Answers are scored, an end token is appended, nothing is cut.
    fn default() -> Self {
        Self { max_tokens: None, truncation: Truncation::Refuse, scored: ScoredPart::Answers, end_token: true }
    }
}

/// Tokens, the scored ones among them, how many stand before the first answer, and where they come from.
struct Tokens {
    ids: Vec<u32>,
    scored: Vec<Range<usize>>,
    prompt: usize,
    text: String,
    spans: Vec<Option<(usize, usize)>>,
    answer: Range<usize>,
}

/// A text as the trainer sees it, and where its tokens come from.
pub(super) struct ReadText {
    pub(super) example: TextExample,
    pub(super) is_cut: bool,
    /// All that was tokenised.
    pub(super) text: String,
    /// The bytes of it that each token holds; `None` for tokens that were added.
    pub(super) spans: Vec<Option<(usize, usize)>>,
    /// The bytes of what answers: of a chat the last message's.
    pub(super) answer: Range<usize>,
}

impl TextEncoding {
    setters! {
        /// Sets the most tokens of a text.
        with_max_tokens(max_tokens: impl Into<Option<usize>>);
        /// Sets what to do with longer ones.
        with_truncation(truncation: Truncation);
        /// Sets which tokens are scored.
        with_scored(scored: ScoredPart);
        /// Sets whether an end token is appended.
        with_end_token(end_token: bool);
    }

    /// Encodes every item.
    ///
    /// A completion is tokenised together with its prompt. Its scored tokens begin where the ids first differ from the prompt's own: if
    /// the tokenizer merges the end of the prompt with the completion, the merged token is scored. In a chat the tokens that hold
    /// something of the assistant's words, and of what the template ends them with, are scored.
    ///
    /// # Errors
    /// [`Error::Format`] with the item for words that are empty and for a template that rewrites earlier turns or drops the assistant's
    /// words; [`Error::Config`] for a limit below 2 and for [`Truncation::Start`]; [`Error::PromptTooLong`] for a prompt that leaves no
    /// room for its answer, and for any text that does not fit where nothing is cut; [`Error::Incompatible`] for a tokenizer without end
    /// token or chat template where one is needed.
    pub fn encode(&self, name: impl Into<String>, items: &[TextItem], tokenizer: &Tokenizer) -> Result<TextDataset> {
        let name = name.into();
        if items.is_empty() {
            return Err(Error::empty(format!("texts `{name}`")));
        }
        if let Some(limit) = self.max_tokens.filter(|limit| *limit < 2) {
            return Err(Error::config("max_tokens", "at least 2", limit));
        }
        if self.truncation == Truncation::Start {
            return Err(Error::config("truncation of texts", "`Refuse` or `End`", "Start"));
        }
        let mut n_truncated = 0;
        let examples = items
            .iter()
            .map(|item| {
                let read = self.read(item, tokenizer)?;
                n_truncated += usize::from(read.is_cut);
                Ok(read.example)
            })
            .collect::<Result<_>>()?;
        Ok(TextDataset { n_truncated, ..TextDataset::new(name, examples)? })
    }

    /// Encodes one item.
    ///
    /// # Errors
    /// As [`TextEncoding::encode`].
    pub(super) fn read(&self, item: &TextItem, tokenizer: &Tokenizer) -> Result<ReadText> {
        let wrong = |reason: String| Error::format(format!("text `{}`", item.id), reason);
        if let Some(reason) = item.fault() {
            return Err(wrong(reason));
        }
        let Tokens { mut ids, mut scored, prompt, text, spans, answer } = match &item.content {
            TextContent::Text(text) => self.plain("", text, tokenizer)?,
            TextContent::Completion { prompt, completion } => self.plain(prompt, completion, tokenizer)?,
            TextContent::Chat(turns) => chat(turns, tokenizer).map_err(|e| wrong(e.to_string()))?,
        };
        if self.scored == ScoredPart::Everything {
            scored = vec![1..ids.len()];
        }
        let mut is_cut = false;
        if let Some(limit) = self.max_tokens.filter(|limit| *limit < ids.len()) {
            if prompt >= limit || self.truncation == Truncation::Refuse {
                let tokens = if prompt >= limit { prompt } else { ids.len() };
                return Err(Error::PromptTooLong { item: item.id.clone(), tokens, limit });
            }
            is_cut = true;
            ids.truncate(limit);
            scored.iter_mut().for_each(|range| range.end = range.end.min(limit));
        }
        // nothing predicts the first token
        scored.iter_mut().for_each(|range| range.start = range.start.max(1));
        scored.retain(|range| !range.is_empty());
        let example = TextExample { id: item.id.clone(), ids, scored };
        example.check()?;
        Ok(ReadText { example, is_cut, text, spans, answer })
    }

    fn plain(&self, prompt: &str, rest: &str, tokenizer: &Tokenizer) -> Result<Tokens> {
        let before = tokenizer.encode(prompt, true)?;
        let (text, answer) = (format!("{prompt}{rest}"), prompt.len()..prompt.len() + rest.len());
        let SpannedTokens { mut ids, spans, .. } = tokenizer.encode_with_spans(&text, true)?;
        let prompt = common_prefix(&before, &ids);
        if self.end_token {
            ids.push(tokenizer.eos_id().ok_or_else(|| {
                Error::Incompatible(format!(
                    "tokenizer {}: there is no end token to learn where a text ends; encode `with_end_token(false)`",
                    tokenizer.location()
                ))
            })?);
        }
        let n = ids.len();
        Ok(Tokens { ids, scored: vec![prompt..n], prompt, text, spans, answer })
    }
}

fn chat(turns: &[ChatTurn], tokenizer: &Tokenizer) -> Result<Tokens> {
    let ChatText { text, said } = ChatText::new(tokenizer.chat_format()?, turns)?;
    // a chat template writes its special tokens itself
    let tokens = tokenizer.encode_with_spans(&text, false)?;
    let scored: Vec<Range<usize>> = said.iter().filter_map(|bytes| within(&tokens, bytes)).collect();
    let prompt = scored.first().map_or(tokens.ids.len(), |range| range.start);
    let answer = last_words(&text, &said, turns);
    Ok(Tokens { ids: tokens.ids, scored, prompt, text, spans: tokens.spans, answer })
}

/// The words of the last answer, without what the template ends them with.
fn last_words(text: &str, said: &[Range<usize>], turns: &[ChatTurn]) -> Range<usize> {
    let words = turns.iter().rfind(|turn| turn.role == Role::Assistant).map_or("", |turn| turn.content.trim());
    let bytes = said.last().cloned().unwrap_or(text.len()..text.len());
    match text[bytes.clone()].find(words) {
        Some(at) => bytes.start + at..bytes.start + at + words.len(),
        None => bytes,
    }
}

/// The tokens from the first to the last that hold some of these bytes.
fn within(tokens: &SpannedTokens, bytes: &Range<usize>) -> Option<Range<usize>> {
    let holds = |span: &Option<(usize, usize)>| span.is_some_and(|(a, b)| a < bytes.end && b > bytes.start);
    let first = tokens.spans.iter().position(holds)?;
    let last = tokens.spans.iter().rposition(holds)?;
    Some(first..last + 1)
}

#[cfg(test)]
#[path = "text_encoding_tests.rs"]
mod tests;
