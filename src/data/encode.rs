//! Turns a task into token ids: by class tokens or by continuations.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::data::classes::common_prefix;
use crate::data::encoded::{EncodedDataset, EncodedItem, EncodedRow, ResolvedAnswers};
use crate::data::prompt::PromptTemplate;
use crate::data::task::{Item, Task};
use crate::data::tokens::{SpannedTokens, Tokenizer};
use crate::data::truncate::{Truncation, cut, droppable};
use crate::data::wording::{PromptWriter, Wording};
use crate::error::{Error, Result};

/// By what a continuation's log-likelihood is divided.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Normalization {
    /// By nothing: the log-likelihood of the whole text.
    #[default]
    Sum,
    /// By the number of characters of the choice, so that long choices are not at a disadvantage.
    PerCharacter,
}

/// How a class is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AnswerForm {
    /// By one token each at the prompt's last position; class `c` stands for choice `c`.
    ClassTokens {
        /// The classes as they are written right after the prompt, such as `" A"`, with the space if there is one.
        classes: Vec<String>,
    },
    /// By the likelihood of each choice's text after the prompt.
    Continuation {
        /// By what the log-likelihood is divided.
        normalization: Normalization,
    },
}

impl AnswerForm {
    /// Makes [`AnswerForm::ClassTokens`].
    pub fn class_tokens<S: Into<String>>(classes: impl IntoIterator<Item = S>) -> Self {
        Self::ClassTokens { classes: classes.into_iter().map(Into::into).collect() }
    }
}

/// How a task becomes token ids.
///
/// ```
/// use bayes_lora::data::{AnswerForm, Encoding, Normalization};
/// use bayes_lora::data::PromptTemplate;
/// use bayes_lora::data::{Item, Task};
/// use bayes_lora::data::Tokenizer;
///
/// let json = br#"{"version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
///     "pre_tokenizer": {"type": "Whitespace"}, "post_processor": null, "decoder": null,
///     "model": {"type": "WordLevel", "unk_token": "?",
///               "vocab": {"?": 0, "Answer": 1, ":": 2, "yes": 3, "no": 4, "Question": 5}}}"#;
/// let tokenizer = Tokenizer::from_bytes(json)?;
/// let task = Task::new("t", vec![Item::new("q", "yes?", ["no", "yes yes"]).with_answer(1)])?;
///
/// // One row for each choice; the choice's tokens are scored.
/// let form = AnswerForm::Continuation { normalization: Normalization::Sum };
/// let data = Encoding::new(PromptTemplate::question_answer(), form).encode(&task, &tokenizer)?;
/// assert_eq!(data.items[0].rows[1].ids, [5, 2, 3, 0, 1, 2, 3, 3]);
/// assert_eq!(data.items[0].rows[1].scored, 6..8);
///
/// // One row; the classes are single tokens after the prompt.
/// let form = AnswerForm::class_tokens([" no", " yes"]);
/// let data = Encoding::new(PromptTemplate::question_answer(), form).encode(&task, &tokenizer)?;
/// assert_eq!(data.items[0].rows[0].ids, [5, 2, 3, 0, 1, 2]);
/// # Ok::<(), bayes_lora::error::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Encoding {
    /// The prompt's wording.
    pub template: PromptTemplate,
    /// How a class is asked for.
    pub answers: AnswerForm,
    /// The most tokens a row may have, a continuation included; `None` for no limit.
    pub max_tokens: Option<usize>,
    /// What to do with rows beyond the limit.
    pub truncation: Truncation,
    /// Whether the prompt is wrapped in the model's chat template: the body is the user's message and the cue opens
    /// the assistant's answer.
    pub chat: bool,
}

impl Encoding {
    /// Makes an encoding without limit and without chat template, which refuses to truncate.
    pub fn new(template: PromptTemplate, answers: AnswerForm) -> Self {
        Self { template, answers, max_tokens: None, truncation: Truncation::Refuse, chat: false }
    }

    /// Sets the most tokens a row may have.
    pub fn with_max_tokens(mut self, max_tokens: usize) -> Self {
        self.max_tokens = Some(max_tokens);
        self
    }

    /// Sets what to do with rows beyond the limit.
    pub fn with_truncation(mut self, truncation: Truncation) -> Self {
        self.truncation = truncation;
        self
    }

    /// Sets whether the prompt is wrapped in the model's chat template.
    pub fn with_chat(mut self, chat: bool) -> Self {
        self.chat = chat;
        self
    }

    /// Encodes every item.
    ///
    /// A continuation is the prompt, one space (none after a prompt that is empty or ends in white space) and the
    /// trimmed choice, tokenised **together**. Its scored tokens begin where the ids first differ from the prompt's
    /// own: if the tokenizer merges the end of the prompt with the choice, the merged token is scored.
    ///
    /// # Errors
    /// [`Error::Empty`] for a task without items; [`Error::Config`] for a limit of 0 or fewer than two classes;
    /// [`Error::Count`] for an item with more choices than classes; [`Error::LabelOutOfRange`];
    /// [`Error::PromptTooLong`]; [`Error::ClassNotOneToken`] and [`Error::ClassesCollide`]; and those of the
    /// template and the tokenizer.
    pub fn encode(&self, task: &Task, tokenizer: &Tokenizer) -> Result<EncodedDataset> {
        self.check()?;
        if task.is_empty() {
            return Err(Error::empty(format!("task `{}`", task.name)));
        }
        let mut encoder = Encoder {
            encoding: self,
            tokenizer,
            writer: PromptWriter::new(&self.template, tokenizer, self.chat)?,
            classes: None,
            n_truncated: 0,
        };
        let items = task.items.iter().map(|item| encoder.item(item)).collect::<Result<Vec<EncodedItem>>>()?;
        let (answers, n_classes) = match encoder.classes {
            Some(resolved) => {
                let n_classes = resolved.ids.len();
                (ResolvedAnswers::ClassTokens(resolved.ids), n_classes)
            }
            None => (ResolvedAnswers::Continuation, task.n_classes()),
        };
        Ok(EncodedDataset { name: task.name.clone(), items, answers, n_classes, n_truncated: encoder.n_truncated })
    }

    fn check(&self) -> Result<()> {
        if self.max_tokens == Some(0) {
            return Err(Error::config("max_tokens", "at least 1", 0));
        }
        match &self.answers {
            AnswerForm::ClassTokens { classes } if classes.len() < 2 => {
                Err(Error::config("classes", "at least 2 class tokens", classes.len()))
            }
            _ => Ok(()),
        }
    }
}

/// The class tokens and the cue that they were found after.
struct ResolvedClasses {
    ids: Vec<u32>,
    cue: String,
}

struct Encoder<'a> {
    encoding: &'a Encoding,
    tokenizer: &'a Tokenizer,
    writer: PromptWriter<'a>,
    classes: Option<ResolvedClasses>,
    n_truncated: usize,
}

impl Encoder<'_> {
    fn item(&mut self, item: &Item) -> Result<EncodedItem> {
        item.check()?;
        let wording = self.writer.write(item)?;
        // A chat template writes its special tokens itself.
        let add_special = !self.encoding.chat;
        let prompt = self.tokenizer.encode_with_spans(&wording.text, add_special)?;
        let body = droppable(&prompt, &wording.body);
        let rows = match &self.encoding.answers {
            AnswerForm::ClassTokens { classes } => {
                if item.choices.len() > classes.len() {
                    return Err(Error::Count {
                        what: format!("choices of item `{}`, one class token each", item.id),
                        expected: classes.len(),
                        found: item.choices.len(),
                    });
                }
                self.resolve_classes(item, &wording, classes)?;
                let row = EncodedRow { ids: prompt.ids, scored: 0..0, weight: 1.0 };
                self.shorten(item, vec![row], body)?
            }
            AnswerForm::Continuation { normalization } => {
                let rows = self.continuations(item, &wording, &prompt, *normalization)?;
                // Tokens that a row has changed are no longer the body's to drop.
                let shared = rows.iter().map(|r| r.scored.start).min().unwrap_or(0);
                let body = body.start.min(shared)..body.end.min(shared);
                self.shorten(item, rows, body)?
            }
        };
        Ok(EncodedItem { id: item.id.clone(), rows, label: item.answer, n_choices: item.choices.len() })
    }

    /// Finds the class tokens after the first prompt, and again after every prompt whose end may differ.
    fn resolve_classes(&mut self, item: &Item, wording: &Wording, classes: &[String]) -> Result<()> {
        if let Some(known) = &self.classes
            && known.cue == wording.cue
            && !wording.cue.trim().is_empty()
        {
            return Ok(());
        }
        let ids = self.tokenizer.class_tokens_after(&wording.text, classes, !self.encoding.chat)?;
        match &self.classes {
            Some(known) if known.ids != ids => Err(Error::format(
                format!("item `{}`", item.id),
                format!("its class tokens {ids:?} differ from {:?} of the items before", known.ids),
            )),
            _ => {
                self.classes = Some(ResolvedClasses { ids, cue: wording.cue.clone() });
                Ok(())
            }
        }
    }

    fn continuations(
        &self,
        item: &Item,
        wording: &Wording,
        prompt: &SpannedTokens,
        normalization: Normalization,
    ) -> Result<Vec<EncodedRow>> {
        let joined = wording.text.is_empty() || wording.text.ends_with(char::is_whitespace);
        let separator = if joined { "" } else { " " };
        item.choices
            .iter()
            .map(|choice| {
                let choice = choice.trim();
                let text = format!("{}{separator}{choice}", wording.text);
                let ids = self.tokenizer.encode(&text, !self.encoding.chat)?;
                let start = common_prefix(&prompt.ids, &ids);
                if choice.is_empty() || start == ids.len() {
                    return Err(Error::format(
                        format!("item `{}`", item.id),
                        format!("choice `{choice}` adds no token to the prompt"),
                    ));
                }
                Ok(EncodedRow {
                    scored: start..ids.len(),
                    ids,
                    weight: match normalization {
                        Normalization::Sum => 1.0,
                        Normalization::PerCharacter => 1.0 / choice.chars().count() as f64,
                    },
                })
            })
            .collect()
    }

    /// Drops the same body tokens from all rows of an item, so that its choices are compared after one prompt.
    fn shorten(&mut self, item: &Item, mut rows: Vec<EncodedRow>, body: Range<usize>) -> Result<Vec<EncodedRow>> {
        let longest = rows.iter().map(|row| row.ids.len()).max().unwrap_or(0);
        let Encoding { max_tokens, truncation, .. } = *self.encoding;
        if let Some(dropped) = cut(&item.id, body, longest, max_tokens, truncation)? {
            self.n_truncated += 1;
            for row in &mut rows {
                row.ids.drain(dropped.clone());
                if !row.scored.is_empty() {
                    row.scored = row.scored.start - dropped.len()..row.scored.end - dropped.len();
                }
            }
        }
        for row in &rows {
            if row.ids.is_empty() || (row.scored.start == 0 && !row.scored.is_empty()) {
                return Err(Error::empty(format!("the prompt of item `{}`", item.id)));
            }
        }
        Ok(rows)
    }
}

#[cfg(test)]
#[path = "encode_tests.rs"]
mod tests;
