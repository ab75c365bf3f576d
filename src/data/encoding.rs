//! Says how a task becomes token ids: the wording, the form of the answers, the limit, chat or not.

use serde::{Deserialize, Serialize};

use super::prompt::PromptTemplate;
use super::task::Item;
use super::truncate::Truncation;
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
    /// By a head of the model, one output a label; the choices of every item are these labels.
    Labels {
        /// The names of the classes.
        names: Vec<String>,
    },
    /// By one number of a model's head for each choice's text after the prompt, its reward: of the choices the one is preferred whose reward
    /// is larger, `p(c) = softmax(r)_c`.
    Rewards,
    /// By one number of a model's head for the text, which has no choices.
    Value,
}

impl AnswerForm {
    /// Makes [`AnswerForm::Labels`].
    pub fn labels<S: Into<String>>(names: impl IntoIterator<Item = S>) -> Self {
        Self::Labels { names: names.into_iter().map(Into::into).collect() }
    }

    /// Makes [`AnswerForm::ClassTokens`].
    pub fn class_tokens<S: Into<String>>(classes: impl IntoIterator<Item = S>) -> Self {
        Self::ClassTokens { classes: classes.into_iter().map(Into::into).collect() }
    }
}

/// How a task becomes token ids.
///
/// ```
/// use bayes_lora::data::{AnswerForm, Encoding, Item, Normalization, PromptTemplate, Task, Tokenizer};
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

    /// Checks every field but the template, which is checked where it is compiled.
    ///
    /// # Errors
    /// [`Error::Config`] for a limit of 0 or fewer than two classes.
    pub(crate) fn check(&self) -> Result<()> {
        if self.max_tokens == Some(0) {
            return Err(Error::config("max_tokens", "at least 1", 0));
        }
        match &self.answers {
            AnswerForm::ClassTokens { classes } if classes.len() < 2 => {
                Err(Error::config("classes", "at least 2 class tokens", classes.len()))
            }
            AnswerForm::Labels { names } if names.len() < 2 => {
                Err(Error::config("labels", "at least 2 names", names.len()))
            }
            _ => Ok(()),
        }
    }

    /// Checks that an item can be asked in this form: a reward is asked of a single text too, and a value of a text without choices.
    ///
    /// # Errors
    /// As [`Item::check`].
    pub(crate) fn check_item(&self, item: &Item) -> Result<()> {
        match self.answers {
            AnswerForm::Value => Ok(()),
            AnswerForm::Rewards if item.choices.len() == 1 && item.answer.is_none() => Ok(()),
            _ => item.check(),
        }
    }
}
