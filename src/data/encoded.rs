//! Holds a task as token ids: what the models are given.

use std::fmt::Write;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::asked::Asked;
use super::tokens::Tokenizer;
use crate::error::{Error, Result};
use crate::number::significant;

/// One sequence for the model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EncodedRow {
    /// The token ids.
    pub ids: Vec<u32>,
    /// The indices into `ids` of the tokens whose log-probabilities (nats) count, each given all tokens before it;
    /// never contains 0. Empty for class tokens.
    pub scored: Range<usize>,
    /// The factor of the summed log-probability: 1, or 1 / characters.
    pub weight: f64,
    /// The kind of each token, by which an encoder tells the texts of a pair apart; empty where all are of the first, 0.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub types: Vec<u32>,
}

/// One question with its rows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EncodedItem {
    /// The item's identifier.
    pub id: String,
    /// One row (class tokens) or one row for each choice (continuation).
    pub rows: Vec<EncodedRow>,
    /// The index of the right choice, where it is known.
    pub label: Option<usize>,
    /// The number of this item's choices: classes from here on do not exist for it.
    pub n_choices: usize,
}

impl EncodedRow {
    /// The first token that something is read off: the one before the scored ones, else the last.
    pub(crate) fn first_read(&self) -> usize {
        let behind = if self.scored.is_empty() { self.ids.len() } else { self.scored.start };
        behind.saturating_sub(1)
    }
}

impl EncodedItem {
    /// The length of the longest row.
    pub fn longest(&self) -> usize {
        self.rows.iter().map(|row| row.ids.len()).max().unwrap_or(0)
    }
}

/// How the model's outputs become class logits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ResolvedAnswers {
    /// Class `c`'s logit is the output at token `ids[c]` after the prompt's last position.
    ClassTokens(Vec<u32>),
    /// Class `c`'s logit is `weight · Σ log p(token)` over the scored tokens of row `c`.
    Continuation,
    /// Class `c`'s logit is output `c` of the model's head.
    Labels,
    /// Choice `c`'s logit is the one output of the model's head on row `c`.
    Rewards,
    /// There are no classes: the one output of the model's head is a number.
    Value,
}

impl ResolvedAnswers {
    /// True if every choice of an item is a row of its own.
    pub fn rows_are_choices(&self) -> bool {
        matches!(self, Self::Continuation | Self::Rewards)
    }
}

/// A task as token ids.
///
/// An item is one row (class tokens: the prompt, whose last position is asked for the classes) or one row for each
/// choice (continuation scoring: the prompt and the choice, whose tokens' log-probabilities are added).
///
/// ```
/// use bayes_lora::data::{EncodedDataset, EncodedItem, EncodedRow, ResolvedAnswers};
///
/// let row = |ids: Vec<u32>| EncodedRow { scored: 2..ids.len(), ids, weight: 1.0, types: vec![] };
/// let item = EncodedItem { id: "q".into(), rows: vec![row(vec![1, 2, 3]), row(vec![1, 2, 4, 5])], label: Some(0), n_choices: 2 };
/// let answers = ResolvedAnswers::Continuation;
/// let data = EncodedDataset { name: "t".into(), items: vec![item], answers, n_classes: 2, n_truncated: 0, asked: None };
/// assert_eq!((data.n_tokens(), data.longest(), data.labels()?), (7, 4, vec![0]));
/// assert!(data.check_vocab(6).is_ok() && data.check_vocab(5).is_err());
/// # Ok::<(), bayes_lora::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EncodedDataset {
    /// The task's name.
    pub name: String,
    /// The questions, in the task's order.
    pub items: Vec<EncodedItem>,
    /// How outputs become class logits.
    pub answers: ResolvedAnswers,
    /// The number of class tokens, or the largest number of choices.
    pub n_classes: usize,
    /// How many items were shortened.
    pub n_truncated: usize,
    /// How the questions were put, where that is known: what is fitted on the data remembers it.
    pub asked: Option<Asked>,
}

impl EncodedDataset {
    /// The tokens that every row of every item begins with, before the first token that anything is read off.
    pub fn common_beginning(&self) -> &[u32] {
        let mut rows = self.items.iter().flat_map(|item| &item.rows);
        let Some(first) = rows.next() else { return &[] };
        let start = first.first_read().min(first.ids.len());
        let shared = |n: usize, row: &EncodedRow| {
            let alike = first.ids[..n].iter().zip(&row.ids).take_while(|(a, b)| a == b).count();
            alike.min(row.first_read())
        };
        &first.ids[..rows.fold(start, shared)]
    }

    /// The same items with `n_classes` classes, so that splits whose largest items differ suit one model; an item lacks the
    /// classes that it has no choice for.
    ///
    /// # Errors
    /// If the answers are class tokens, whose number is fixed, or an item has more choices.
    pub fn with_classes(mut self, n_classes: usize) -> Result<Self> {
        if let ResolvedAnswers::ClassTokens(ids) = &self.answers
            && ids.len() != n_classes
        {
            return Err(Error::Count { what: "class tokens".into(), expected: ids.len(), found: n_classes });
        }
        if let Some(item) = self.items.iter().find(|item| item.n_choices > n_classes) {
            return Err(Error::config(
                "n_classes",
                format!("at least the {} choices of item `{}`", item.n_choices, item.id),
                n_classes,
            ));
        }
        self.n_classes = n_classes;
        Ok(self)
    }

    /// The number of items.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there are no items.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The items' labels, in their order.
    ///
    /// # Errors
    /// [`Error::Incompatible`] naming the first item without one.
    pub fn labels(&self) -> Result<Vec<usize>> {
        let no_label = |item: &EncodedItem| Error::Incompatible(format!("item `{}` has no label", item.id));
        self.items.iter().map(|item| item.label.ok_or_else(|| no_label(item))).collect()
    }

    /// The number of real tokens over all rows.
    pub fn n_tokens(&self) -> usize {
        self.items.iter().flat_map(|i| &i.rows).map(|r| r.ids.len()).sum()
    }

    /// The length of the longest row.
    pub fn longest(&self) -> usize {
        self.items.iter().map(EncodedItem::longest).max().unwrap_or(0)
    }

    /// Checks that every token id is one of a model's `vocab_size`.
    ///
    /// # Errors
    /// [`Error::Incompatible`] naming the item, the id and the size.
    pub fn check_vocab(&self, vocab_size: usize) -> Result<()> {
        let beyond = |id: &&u32| **id as usize >= vocab_size;
        let refuse = |place: String, id: u32| {
            Err(Error::Incompatible(format!(
                "{place}: token id {id} is not in the model's vocabulary of {vocab_size}; \
                 is this the model's own tokenizer?"
            )))
        };
        if let ResolvedAnswers::ClassTokens(ids) = &self.answers
            && let Some(id) = ids.iter().find(beyond)
        {
            return refuse(format!("the class tokens of task `{}`", self.name), *id);
        }
        for item in &self.items {
            if let Some(id) = item.rows.iter().flat_map(|row| &row.ids).find(beyond) {
                return refuse(format!("item `{}`", item.id), *id);
            }
        }
        Ok(())
    }

    /// Writes item `i` as the model sees it: the decoded prompt, its label, and the tokens that are scored.
    ///
    /// # Errors
    /// [`Error::Count`] for an index beyond the items, [`Error::Tokenizer`].
    pub fn example(&self, i: usize, tokenizer: &Tokenizer) -> Result<String> {
        let item = self.items.get(i).ok_or_else(|| Error::Count {
            what: format!("items of task `{}` up to the example", self.name),
            expected: i.saturating_add(1),
            found: self.len(),
        })?;
        let label = item.label.map_or("unknown".to_owned(), |label| label.to_string());
        let mut text =
            format!("task `{}`, item `{}`: label {label} of {} choices\n", self.name, item.id, item.n_choices);
        let marked = |class: usize| {
            if item.label == Some(class) { "  <- label" } else { "" }
        };
        // Writing to a String never fails.
        match (&self.answers, item.rows.as_slice()) {
            (ResolvedAnswers::ClassTokens(classes), [row, ..]) => {
                let _ = writeln!(text, "prompt of {} tokens:", row.ids.len());
                let _ = writeln!(text, "{}", tokenizer.decode(&row.ids)?);
                for (class, id) in classes.iter().enumerate().take(item.n_choices) {
                    let token = tokenizer.token(*id);
                    let _ = writeln!(text, "class {class}: token {id} `{token}`{}", marked(class));
                }
            }
            (ResolvedAnswers::Labels | ResolvedAnswers::Value, [row, ..]) => {
                let _ = writeln!(text, "{} tokens:", row.ids.len());
                let _ = writeln!(text, "{}", tokenizer.decode(&row.ids)?);
            }
            (ResolvedAnswers::Rewards, rows) => {
                for (class, row) in rows.iter().enumerate() {
                    let _ = writeln!(text, "row {class}: {} tokens{}", row.ids.len(), marked(class));
                    let _ = writeln!(text, "{}", tokenizer.decode(&row.ids)?);
                }
            }
            (_, rows) => {
                for (class, row) in rows.iter().enumerate() {
                    let (prompt, scored) = row.ids.split_at(row.scored.start.min(row.ids.len()));
                    if class == 0 {
                        let _ = writeln!(text, "prompt of {} tokens:", prompt.len());
                        let _ = writeln!(text, "{}", tokenizer.decode(prompt)?);
                    }
                    let tokens: Vec<String> = scored.iter().map(|id| tokenizer.token(*id)).collect();
                    let weight = significant(row.weight);
                    let _ = writeln!(text, "row {class}: weight {weight}, scored {tokens:?}{}", marked(class));
                }
            }
        }
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::tiny;

    fn dataset(answers: ResolvedAnswers, rows: Vec<EncodedRow>) -> EncodedDataset {
        EncodedDataset {
            name: "t".into(),
            items: vec![EncodedItem { id: "q1".into(), rows, label: Some(1), n_choices: 2 }],
            answers,
            n_classes: 2,
            n_truncated: 0,
            asked: None,
        }
    }

    fn row(ids: &[u32], scored: Range<usize>) -> EncodedRow {
        EncodedRow { ids: ids.to_vec(), scored, weight: 0.5, types: vec![] }
    }

    #[test]
    fn an_item_without_a_label_is_named() {
        let mut data = dataset(ResolvedAnswers::Continuation, vec![row(&[1, 2], 1..2)]);
        assert_eq!(data.labels().unwrap(), [1]);
        data.items[0].label = None;
        assert_eq!(data.labels().unwrap_err().to_string(), "item `q1` has no label");
    }

    #[test]
    fn ids_beyond_the_vocabulary_name_the_item_and_both_numbers() {
        let data = dataset(ResolvedAnswers::ClassTokens(vec![3, 4]), vec![row(&[1, 2, 9], 0..0)]);
        assert!(data.check_vocab(10).is_ok());
        let message = data.check_vocab(9).unwrap_err().to_string();
        assert!(["q1", "id 9", "of 9"].iter().all(|part| message.contains(part)), "{message}");
        let message = data.check_vocab(4).unwrap_err().to_string();
        assert!(message.contains("class tokens") && message.contains("id 4"), "{message}");
    }

    #[test]
    fn an_example_shows_prompt_classes_and_label() {
        let data = dataset(ResolvedAnswers::ClassTokens(vec![4, 3]), vec![row(&[1, 2, 0], 0..0)]);
        let text = data.example(0, &tiny::words()).unwrap();
        assert!(text.contains("prompt of 3 tokens:\nis it ?"), "{text}");
        assert!(text.contains("class 1: token 3 `yes`  <- label"), "{text}");
        assert!(matches!(data.example(1, &tiny::words()), Err(Error::Count { .. })));
    }

    #[test]
    fn an_example_of_a_continuation_shows_the_scored_tokens() {
        let rows = vec![row(&[5, 6, 7], 2..3), row(&[5, 6, 8, 9], 2..4)];
        let text = dataset(ResolvedAnswers::Continuation, rows).example(0, &tiny::words()).unwrap();
        assert!(text.contains("Answer :"), "{text}");
        assert!(text.contains(r#"row 1: weight 0.5, scored ["two", "three"]  <- label"#), "{text}");
    }
}
