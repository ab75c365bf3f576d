//! Holds a task: named questions with choices, answers, and where there are any, passages and subjects.

use std::path::Path;

use rand::seq::SliceRandom;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use super::jsonl;
use super::texts::ChatTurn;
use crate::draws::{Purpose, generator};
use crate::error::{Error, Result};

/// One question with its choices.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Item {
    /// The identifier that errors and reports name; a file may write it as text or as an integer.
    #[serde(deserialize_with = "text_or_integer")]
    pub id: String,
    /// The question.
    #[serde(deserialize_with = "question")]
    pub question: String,
    /// The possible answers, at least two.
    #[serde(deserialize_with = "choices")]
    pub choices: Vec<String>,
    /// The index of the right choice; `None` for a question whose answer is unknown.
    #[serde(default, deserialize_with = "answer")]
    pub answer: Option<usize>,
    /// A text that the question is about.
    #[serde(default, deserialize_with = "passage", skip_serializing_if = "Option::is_none")]
    pub passage: Option<String>,
    /// A second text, which the tokenizer puts behind the question in its own way: for heads for labels only.
    #[serde(default, deserialize_with = "second", skip_serializing_if = "Option::is_none")]
    pub second: Option<String>,
    /// The subject that the question belongs to.
    #[serde(default, deserialize_with = "subject", skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// A whole chat for each choice, which the model's chat template writes in the place of question and choice: for rewards only. Empty
    /// for items of texts.
    #[serde(default, deserialize_with = "chats", skip_serializing_if = "Vec::is_empty")]
    pub chats: Vec<Vec<ChatTurn>>,
}

impl Item {
    /// Makes an item without answer, passage, second text and subject.
    pub fn new<S: Into<String>>(
        id: impl Into<String>,
        question: impl Into<String>,
        choices: impl IntoIterator<Item = S>,
    ) -> Self {
        Self {
            id: id.into(),
            question: question.into(),
            choices: choices.into_iter().map(Into::into).collect(),
            answer: None,
            passage: None,
            second: None,
            subject: None,
            chats: Vec::new(),
        }
    }

    /// Reads one line of a task file and [checks](Item::check) it; `place` is where it stands, for errors. The answer may be
    /// missing or null.
    ///
    /// # Errors
    /// [`Error::Format`] with `place` and the field for anything that is not an item: a field that is missing, of the wrong kind,
    /// or unknown, which may be another name of one that is known; [`Error::LabelOutOfRange`] for an answer
    /// beyond the choices (its `item` names the place too).
    pub fn from_json_line(text: &str, place: &str) -> Result<Self> {
        let item: Self = jsonl::object_or_reason(text).map_err(|reason: String| {
            let unknown = reason.strip_prefix("unknown field `").and_then(|rest| rest.split('`').next());
            match unknown.and_then(meant) {
                Some(field) => Error::format(place, format!("{reason}; here it is called `{field}`")),
                None => Error::format(place, reason),
            }
        })?;
        item.check().map_err(|error| match error {
            Error::LabelOutOfRange { item, label, n_classes } => {
                Error::LabelOutOfRange { item: format!("{item}` at `{place}"), label, n_classes }
            }
            other => Error::format(place, other),
        })?;
        Ok(item)
    }

    /// Sets the index of the right choice.
    pub fn with_answer(mut self, answer: usize) -> Self {
        self.answer = Some(answer);
        self
    }

    /// Sets the passage.
    pub fn with_passage(mut self, passage: impl Into<String>) -> Self {
        self.passage = Some(passage.into());
        self
    }

    /// Sets the second text of a pair.
    pub fn with_second(mut self, second: impl Into<String>) -> Self {
        self.second = Some(second.into());
        self
    }

    /// Sets the subject.
    pub fn with_subject(mut self, subject: impl Into<String>) -> Self {
        self.subject = Some(subject.into());
        self
    }

    /// Sets the chats, one for each choice.
    pub fn with_chats(mut self, chats: impl IntoIterator<Item = Vec<ChatTurn>>) -> Self {
        self.chats = chats.into_iter().collect();
        self
    }

    /// Checks that there are choices, that the answer is one of them, and that there is a chat for each of them or none.
    ///
    /// # Errors
    /// [`Error::Empty`] without choices; [`Error::Config`] for a single one, which has probability 1 whatever a model says;
    /// [`Error::LabelOutOfRange`] for an answer beyond them; [`Error::Count`] for another number of chats.
    pub fn check(&self) -> Result<()> {
        if !self.chats.is_empty() && self.chats.len() != self.choices.len() {
            let what = format!("`chats` of item `{}`, one for each choice", self.id);
            return Err(Error::Count { what, expected: self.choices.len(), found: self.chats.len() });
        }
        match self.choices.len() {
            0 => return Err(Error::empty(format!("the list of choices of item `{}`", self.id))),
            1 => return Err(Error::config(format!("`choices` of item `{}`", self.id), "at least 2 texts", 1)),
            _ => {}
        }
        match self.answer {
            Some(label) if label >= self.choices.len() => {
                Err(Error::LabelOutOfRange { item: self.id.clone(), label, n_classes: self.choices.len() })
            }
            _ => Ok(()),
        }
    }
}

/// A named list of questions.
///
/// On disk a task is a JSON Lines file (plain or gzipped), one object a line:
/// `{"id", "question", "choices": [...], "answer": index, "passage"?: text, "second"?: text, "subject"?: text,
/// "chats"?: [[messages], ...]}`, and no other fields: one that
/// nobody reads may be the answer under another name.
///
/// ```
/// use bayes_lora::data::{Item, Task};
///
/// let items = (0..10)
///     .map(|i| Item::new(i.to_string(), "Is it?", ["no", "yes"]).with_answer(i % 2))
///     .collect();
/// let task = Task::new("yes or no", items)?;
/// assert_eq!((task.len(), task.n_classes()), (10, 2));
/// let (first, rest) = task.split(3, 7)?;
/// assert_eq!((first.len(), rest.len()), (3, 7));
/// assert_eq!(task.majority_share(), Some(0.5));
/// # Ok::<(), bayes_lora::error::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// The name that reports show.
    pub name: String,
    /// The questions, in the order of the file.
    pub items: Vec<Item>,
}

impl Task {
    /// Makes a task of items, each of which is [checked](Item::check).
    ///
    /// # Errors
    /// Those of [`Item::check`]. An empty list is allowed here; [`Task::from_jsonl`] and encoding refuse it.
    pub fn new(name: impl Into<String>, items: Vec<Item>) -> Result<Self> {
        items.iter().try_for_each(Item::check)?;
        Ok(Self { name: name.into(), items })
    }

    /// Reads a `.jsonl` or `.jsonl.gz` file; its parent folder and stem become the name (`arc_easy/train`).
    ///
    /// # Errors
    /// [`Error::Format`] with `file:line` for anything that is not an item, [`Error::LabelOutOfRange`] for an
    /// answer beyond the choices (its `item` names the line too), [`Error::Empty`] for a file without items, and
    /// those of [`jsonl::for_each_line`].
    pub fn from_jsonl(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let mut items = Vec::new();
        jsonl::for_each_line(path, |line, text| {
            items.push(Item::from_json_line(text, &jsonl::location(path, line))?);
            Ok(())
        })?;
        if items.is_empty() {
            return Err(Error::empty(format!("the task file {}", path.display())));
        }
        Ok(Self { name: name_of(path), items })
    }

    /// The number of items.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there are no items.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The largest number of choices of any item; 0 for an empty task.
    pub fn n_classes(&self) -> usize {
        self.items.iter().map(|i| i.choices.len()).max().unwrap_or(0)
    }

    /// The share of the most frequent answer index among the items whose answer is known: what a constant
    /// classifier reaches. `None` when no answer is known.
    pub fn majority_share(&self) -> Option<f64> {
        let mut counts = vec![0usize; self.n_classes()];
        let mut n_known = 0usize;
        for answer in self.items.iter().filter_map(|i| i.answer) {
            if let Some(count) = counts.get_mut(answer) {
                *count += 1;
                n_known += 1;
            }
        }
        let largest = counts.into_iter().max()?;
        (n_known > 0).then(|| largest as f64 / n_known as f64)
    }

    /// Draws `n` items without replacement: the first `n` of a seeded shuffle.
    ///
    /// # Errors
    /// [`Error::Count`] when there are fewer than `n`.
    pub fn sample(&self, n: usize, seed: u64) -> Result<Self> {
        Ok(self.split(n, seed)?.0)
    }

    /// Shuffles with a seed and cuts after `n_first` items, so that the two parts share none.
    ///
    /// `split(n, seed)?.0` equals [`sample(n, seed)`](Task::sample).
    ///
    /// # Errors
    /// [`Error::Count`] when there are fewer than `n_first` items.
    pub fn split(&self, n_first: usize, seed: u64) -> Result<(Self, Self)> {
        let mut shuffled = self.items.clone();
        shuffled.shuffle(&mut generator(seed, Purpose::TaskSplit, 0, 0));
        self.with_items(shuffled).cut(n_first)
    }

    /// Cuts after `n_first` items, in their order.
    ///
    /// # Errors
    /// [`Error::Count`] when there are fewer than `n_first` items.
    pub fn split_at(&self, n_first: usize) -> Result<(Self, Self)> {
        self.clone().cut(n_first)
    }

    fn cut(mut self, n_first: usize) -> Result<(Self, Self)> {
        if n_first > self.len() {
            return Err(Error::Count {
                what: format!("items to draw from task `{}`", self.name),
                expected: n_first,
                found: self.len(),
            });
        }
        let rest = self.items.split_off(n_first);
        let rest = self.with_items(rest);
        Ok((self, rest))
    }

    /// Keeps the items that satisfy `keep`, in order.
    pub fn filter(&self, mut keep: impl FnMut(&Item) -> bool) -> Self {
        self.with_items(self.items.iter().filter(|i| keep(i)).cloned().collect())
    }

    fn with_items(&self, items: Vec<Item>) -> Self {
        Self { name: self.name.clone(), items }
    }
}

pub(super) fn name_of(path: &Path) -> String {
    let file = path.file_name().unwrap_or_default().to_string_lossy();
    let stem = file.split('.').next().unwrap_or_default();
    match path.parent().and_then(Path::file_name) {
        Some(folder) => format!("{}/{stem}", folder.to_string_lossy()),
        None => stem.to_owned(),
    }
}

fn text_or_integer<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<String, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "`id` must be a text or an integer")]
    enum Id {
        Text(String),
        Integer(i64),
    }
    Ok(match Id::deserialize(deserializer)? {
        Id::Text(text) => text,
        Id::Integer(number) => number.to_string(),
    })
}

/// The field that other task files call `key`.
fn meant(key: &str) -> Option<&'static str> {
    Some(match key {
        "label" | "labels" | "target" | "gold" | "correct" | "answer_index" | "answer_idx" | "answerKey" => "answer",
        "options" | "answers" | "endings" => "choices",
        "text_b" | "sentence2" | "hypothesis" => "second",
        "text" | "text_a" | "prompt" | "query" | "question_stem" => "question",
        "context" | "article" | "support" => "passage",
        "category" | "topic" => "subject",
        "qid" | "idx" | "index" => "id",
        _ => return None,
    })
}

/// A field whose name stands before what serde says about its value.
fn named<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    name: &str,
    deserializer: D,
) -> std::result::Result<T, D::Error> {
    T::deserialize(deserializer).map_err(|e| D::Error::custom(format_args!("field `{name}`: {e}")))
}

fn question<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<String, D::Error> {
    named("question", deserializer)
}

fn choices<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Vec<String>, D::Error> {
    named("choices", deserializer)
}

fn answer<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Option<usize>, D::Error> {
    named("answer", deserializer)
}

fn passage<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Option<String>, D::Error> {
    named("passage", deserializer)
}

fn second<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Option<String>, D::Error> {
    named("second", deserializer)
}

fn chats<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Vec<Vec<ChatTurn>>, D::Error> {
    named("chats", deserializer)
}

fn subject<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Option<String>, D::Error> {
    named("subject", deserializer)
}

#[cfg(test)]
#[path = "task_tests.rs"]
mod tests;
