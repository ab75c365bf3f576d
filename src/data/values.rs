//! Reads texts with a number each, one JSON object a line, and holds them beside their token ids.

use std::path::Path;

use rand::seq::SliceRandom;
use serde::Deserialize;
use serde_json::Value;

use super::encoded::{EncodedDataset, ResolvedAnswers};
use super::encoding::Encoding;
use super::jsonl;
use super::task::{Item, Task, name_of};
use super::tokens::Tokenizer;
use crate::draws::{Purpose, generator};
use crate::error::{Error, Result};

/// One line.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    id: Option<Value>,
    text: String,
    label: Option<Value>,
}

/// Texts with a number each, where it is known: a regression.
///
/// ```
/// use bayes_lora::data::ValuedTask;
///
/// let path = std::env::temp_dir().join("bayes_lora_doc_values.jsonl");
/// std::fs::write(&path, r#"{"text": "A joy.", "label": 3.7}
/// {"text": "Tepid."}"#)?;
/// let task = ValuedTask::from_jsonl(&path)?;
/// assert_eq!(task.values, [Some(3.7), None]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct ValuedTask {
    /// The texts: items without choices.
    pub texts: Task,
    /// The number of each.
    pub values: Vec<Option<f64>>,
}

impl ValuedTask {
    /// Reads a `.jsonl` or `.jsonl.gz` file of `{"text": …, "label": number, "id"?: …}`; a line without a label is a text whose number is
    /// unknown. Without an id a text is called by its line.
    ///
    /// # Errors
    /// [`Error::Format`] with `file:line` for what is none: an unknown field, or a label that is no number; [`Error::Empty`] for a file
    /// without texts.
    pub fn from_jsonl(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let (mut items, mut values) = (Vec::new(), Vec::new());
        jsonl::for_each_line(path, |number, text| {
            let (item, value) = Self::read_line(text, number, &jsonl::location(path, number))?;
            items.push(item);
            values.push(value);
            Ok(())
        })?;
        if items.is_empty() {
            return Err(Error::empty(format!("the file of texts with numbers {}", path.display())));
        }
        Ok(Self { texts: Task { name: name_of(path), items }, values })
    }

    /// Reads line `number` of such a file: a text and its number; `place` is where it stands, for errors.
    ///
    /// # Errors
    /// [`Error::Format`] with `place`, as [`ValuedTask::from_jsonl`].
    pub fn read_line(text: &str, number: usize, place: &str) -> Result<(Item, Option<f64>)> {
        let line: Line = jsonl::object(text, place)?;
        let id = jsonl::name(line.id, place, number)?;
        let no_number = |label: &Value| {
            let reason = format!("`label` is {label}, no number: labels that are names make a classification");
            Error::format(place, reason)
        };
        let value = line.label.map(|label| label.as_f64().ok_or_else(|| no_number(&label))).transpose()?;
        Ok((Item::new(id, line.text, Vec::<String>::new()), value))
    }

    /// Shuffles with a seed and cuts after `n_first` texts, in the order of [`Task::split`].
    ///
    /// # Errors
    /// [`Error::Count`] when there are fewer than `n_first` texts.
    pub fn split(&self, n_first: usize, seed: u64) -> Result<(Self, Self)> {
        let (first, rest) = self.texts.split(n_first, seed)?;
        let mut values = self.values.clone();
        // the order depends on the seed and the number of items alone
        values.shuffle(&mut generator(seed, Purpose::TaskSplit, 0, 0));
        let of_rest = values.split_off(n_first);
        Ok((Self { texts: first, values }, Self { texts: rest, values: of_rest }))
    }

    /// Turns the texts into token ids; the encoding asks for [`AnswerForm::Value`](super::AnswerForm::Value).
    ///
    /// # Errors
    /// As [`Encoding::encode`], and those of [`ValuedDataset::new`].
    pub fn encode(&self, encoding: &Encoding, tokenizer: &Tokenizer) -> Result<ValuedDataset> {
        ValuedDataset::new(encoding.encode(&self.texts, tokenizer)?, self.values.clone())
    }
}

/// Texts as token ids, with a number each where it is known: the target of a [`Gaussian`](crate::likelihood::Gaussian) likelihood.
#[derive(Clone, Debug, PartialEq)]
pub struct ValuedDataset {
    encoded: EncodedDataset,
    values: Vec<Option<f64>>,
}

impl ValuedDataset {
    /// Joins texts with their numbers.
    ///
    /// # Errors
    /// If the texts were encoded for another form of answers, there is not one entry a text, or a number is not finite.
    pub fn new(encoded: EncodedDataset, values: Vec<Option<f64>>) -> Result<Self> {
        if encoded.answers != ResolvedAnswers::Value {
            let reason = format!("task `{}` is not encoded for a value (`AnswerForm::Value`)", encoded.name);
            return Err(Error::Incompatible(reason));
        }
        if encoded.len() != values.len() {
            let what = format!("numbers of the texts of task `{}`", encoded.name);
            return Err(Error::Count { what, expected: encoded.len(), found: values.len() });
        }
        for (item, value) in encoded.items.iter().zip(&values) {
            if let Some(value) = value.filter(|value| !value.is_finite()) {
                return Err(Error::config(format!("number of item `{}`", item.id), "finite", value));
            }
        }
        Ok(Self { encoded, values })
    }

    /// The token ids.
    pub fn encoded(&self) -> &EncodedDataset {
        &self.encoded
    }

    /// The numbers.
    pub fn values(&self) -> &[Option<f64>] {
        &self.values
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{AnswerForm, PromptTemplate, tiny};

    fn read(text: &str) -> Result<ValuedTask> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("texts.jsonl");
        std::fs::write(&path, text).unwrap();
        ValuedTask::from_jsonl(path)
    }

    #[test]
    fn labels_are_numbers_and_whole_ones_too() {
        let task = read(
            "{\"text\": \"is it\", \"label\": -2}\n\n{\"text\": \"no\", \"label\": 0.25, \"id\": 7}\n{\"text\": \"yes\"}",
        );
        let task = task.unwrap();
        assert_eq!(task.values, [Some(-2.0), Some(0.25), None]);
        assert_eq!(task.texts.items.iter().map(|item| item.id.as_str()).collect::<Vec<_>>(), ["1", "7", "4"]);
        let data = task.encode(&Encoding::new(PromptTemplate::text(), AnswerForm::Value), &tiny::words()).unwrap();
        assert_eq!((data.encoded().n_classes, data.encoded().items[0].label), (1, None));
        assert_eq!(data.encoded().items[0].rows[0].ids, tiny::words().encode("is it", true).unwrap());
    }

    #[test]
    fn numbers_stay_with_their_texts_where_a_seed_draws_them() {
        let item = |k: usize| Item::new(k.to_string(), "a", Vec::<String>::new());
        let texts = Task { name: "t".into(), items: (0..20).map(item).collect() };
        let task = ValuedTask { texts: texts.clone(), values: (0..20).map(|k| Some(k as f64)).collect() };
        let (first, rest) = task.split(7, 3).unwrap();
        assert_eq!((&first.texts, &rest.texts), (&texts.split(7, 3).unwrap().0, &texts.split(7, 3).unwrap().1));
        for part in [&first, &rest] {
            let ids: Vec<Option<f64>> = part.texts.items.iter().map(|item| item.id.parse().ok()).collect();
            assert_eq!(part.values, ids);
        }
        assert!(task.split(21, 0).is_err());
    }

    #[test]
    fn what_is_no_text_with_a_number_is_named_with_its_line() {
        for (text, words) in [
            (
                "{\"text\": \"a\", \"label\": 1}\n{\"text\": \"b\", \"label\": \"good\"}",
                ["jsonl:2", "\"good\", no number"],
            ),
            ("{\"text\": \"a\", \"label\": true}", ["jsonl:1", "true"]),
            ("{\"label\": 1}", ["jsonl:1", "text"]),
            ("{\"text\": \"a\", \"score\": 1}", ["jsonl:1", "score"]),
            ("\n", ["numbers", "texts.jsonl"]),
        ] {
            let error = read(text).unwrap_err().to_string();
            assert!(words.iter().all(|word| error.contains(word)), "{error}");
        }
        let task = read("{\"text\": \"yes\", \"label\": 1}").unwrap();
        let encode = |form| Encoding::new(PromptTemplate::text(), form).encode(&task.texts, &tiny::words()).unwrap();
        let error = ValuedDataset::new(encode(AnswerForm::Value), vec![]).unwrap_err().to_string();
        assert!(error.contains("expected 1, found 0"), "{error}");
        let error = ValuedDataset::new(encode(AnswerForm::Value), vec![Some(f64::NAN)]).unwrap_err().to_string();
        assert!(error.contains("`1`") && error.contains("NaN"), "{error}");
        let labels =
            task.encode(&Encoding::new(PromptTemplate::text(), AnswerForm::labels(["a", "b"])), &tiny::words());
        assert!(labels.is_err());
    }
}
