//! Reads labelled texts and pairs of texts, one JSON object a line, as a task whose choices are the labels.

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use super::jsonl;
use super::task::{Item, Task, name_of};
use crate::error::{Error, Result};

/// One line.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    id: Option<Value>,
    text: Option<String>,
    text_a: Option<String>,
    text_b: Option<String>,
    label: Option<Value>,
}

impl Task {
    /// Reads a `.jsonl` or `.jsonl.gz` file of `{"text": …, "label": …, "id"?: …}`; the task's items have the labels as their choices, as
    /// [`AnswerForm::Labels`](super::AnswerForm::Labels) asks. A pair of texts is `{"text_a": …, "text_b": …, "label": …}`; the tokenizer
    /// puts the second behind the first in its own way.
    ///
    /// A label is a name, or a number from 0; a line without one is a text whose class is unknown. Without an id a text is
    /// called by its line. `labels` are the names of the classes in their order; where they are `None` they are found in the file: names in
    /// alphabetical order, or the numbers up to the largest. Read the training items first, and the others with their labels.
    ///
    /// ```
    /// use bayes_lora::data::Task;
    ///
    /// let path = std::env::temp_dir().join("bayes_lora_doc_labelled.jsonl");
    /// std::fs::write(&path, r#"{"text": "A joy.", "label": "good"}
    /// {"text": "Tepid.", "label": "bad"}"#)?;
    /// let task = Task::from_labelled_jsonl(&path, None)?;
    /// assert_eq!(task.items[0].choices, ["bad", "good"]);
    /// assert_eq!(task.items[0].answer, Some(1));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Format`] with `file:line` for what is no labelled text: an unknown field, a label of another kind than the others or, where
    /// `labels` are given, none of them; [`Error::Config`] for fewer than two labels; [`Error::Empty`] for a file without texts.
    pub fn from_labelled_jsonl(path: impl AsRef<Path>, labels: Option<&[String]>) -> Result<Self> {
        let path = path.as_ref();
        let mut lines: Vec<(usize, Line)> = Vec::new();
        jsonl::for_each_line(path, |number, text| {
            lines.push((number, jsonl::object(text, &jsonl::location(path, number))?));
            Ok(())
        })?;
        if lines.is_empty() {
            return Err(Error::empty(format!("the file of labelled texts {}", path.display())));
        }
        let found = lines.iter().filter_map(|(number, line)| Some((*number, line.label.as_ref()?)));
        let names = match labels {
            Some(labels) => labels.to_vec(),
            None => names_of(path, found.collect())?,
        };
        if names.len() < 2 {
            return Err(Error::config(format!("labels of {}", path.display()), "at least 2", names.len()));
        }
        let item = |(number, line): (usize, Line)| line.item(number, &jsonl::location(path, number), &names);
        Task::new(name_of(path), lines.into_iter().map(item).collect::<Result<_>>()?)
    }
}

impl Item {
    /// Reads line `number` of a file of labelled texts, see [`Task::from_labelled_jsonl`]; `place` is where it stands, for errors, and
    /// `labels` are the names of the classes.
    ///
    /// # Errors
    /// [`Error::Format`] with `place` for what is no labelled text.
    pub fn from_labelled_line(text: &str, number: usize, place: &str, labels: &[String]) -> Result<Self> {
        jsonl::object::<Line>(text, place)?.item(number, place, labels)
    }
}

impl Line {
    fn item(self, number: usize, place: &str, names: &[String]) -> Result<Item> {
        let (text, second) = match (self.text, self.text_a, self.text_b) {
            (Some(text), None, None) => (text, None),
            (None, Some(first), Some(second)) => (first, Some(second)),
            (text, first, second) => {
                let there = [("text", text), ("text_a", first), ("text_b", second)];
                let there = there.into_iter().filter_map(|(name, text)| text.map(|_| name)).collect::<Vec<_>>();
                let there = if there.is_empty() { "none of them".to_string() } else { there.join(", ") };
                let reason = format!("needs `text`, or `text_a` and `text_b`, and has {there}");
                return Err(Error::format(place, reason));
            }
        };
        let id = jsonl::name(self.id, place, number)?;
        let answer = self.label.map(|label| {
            let unknown = || Error::format(place, format!("label {label} is none of {}", names.join(", ")));
            index_of(&label, names).ok_or_else(unknown)
        });
        Ok(Item { answer: answer.transpose()?, second, ..Item::new(id, text, names.iter().cloned()) })
    }
}

/// The place of a label among the names, by its name or its number.
fn index_of(label: &Value, names: &[String]) -> Option<usize> {
    match label {
        Value::String(name) => names.iter().position(|known| known == name),
        number => number.as_u64().map(|place| place as usize).filter(|place| *place < names.len()),
    }
}

/// Largest number that a label may be: each class is an output of the model.
const MAX_LABEL: u64 = 9_999;

/// The names that labels have: texts in alphabetical order, or numbers from 0 to the largest.
fn names_of(path: &Path, found: Vec<(usize, &Value)>) -> Result<Vec<String>> {
    let (mut texts, mut largest) = (Vec::new(), None);
    for (line, label) in found {
        match label {
            Value::String(name) => texts.push(name.clone()),
            number => match number.as_u64().filter(|n| *n <= MAX_LABEL) {
                Some(n) => largest = largest.max(Some(n)),
                None => {
                    let reason = format!("`label` is {label}, no name and no whole number up to {MAX_LABEL}");
                    return Err(Error::format(jsonl::location(path, line), reason));
                }
            },
        }
        if let (Some(name), Some(number)) = (texts.first(), largest) {
            let reason = format!("some labels are names such as `{name}` and some numbers such as {number}");
            return Err(Error::format(jsonl::location(path, line), reason));
        }
    }
    texts.sort();
    texts.dedup();
    let numbers = largest.into_iter().flat_map(|n| 0..=n).map(|n| n.to_string());
    Ok(texts.into_iter().chain(numbers).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{AnswerForm, Encoding, PromptTemplate, ResolvedAnswers, tiny};

    fn read(text: &str, labels: Option<&[String]>) -> Result<Task> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("texts.jsonl");
        std::fs::write(&path, text).unwrap();
        Task::from_labelled_jsonl(path, labels)
    }

    #[test]
    fn labels_are_names_in_their_order_or_numbers_up_to_the_largest() {
        let task = read(
            "{\"text\": \"a\", \"label\": 2}\n\n{\"text\": \"b\", \"label\": 0, \"id\": 7}\n{\"text\": \"c\"}",
            None,
        )
        .unwrap();
        assert_eq!(task.items[0].choices, ["0", "1", "2"]);
        let answers: Vec<Option<usize>> = task.items.iter().map(|item| item.answer).collect();
        assert_eq!(answers, [Some(2), Some(0), None]);
        assert_eq!(task.items.iter().map(|item| item.id.as_str()).collect::<Vec<_>>(), ["1", "7", "4"]);
        let pairs = read("{\"text_a\": \"a\", \"text_b\": \"b\", \"label\": 1}\n{\"text\": \"c\", \"label\": 0}", None)
            .unwrap();
        let texts: Vec<_> = pairs.items.iter().map(|item| (item.question.as_str(), item.second.as_deref())).collect();
        assert_eq!(texts, [("a", Some("b")), ("c", None)]);
        let names = ["x".to_string(), "y".to_string(), "z".to_string()];
        let task = read("{\"text\": \"a\", \"label\": \"z\"}\n{\"text\": \"b\", \"label\": 1}", Some(&names)).unwrap();
        assert_eq!((task.items[0].answer, task.items[1].answer), (Some(2), Some(1)));
    }

    #[test]
    fn what_is_no_labelled_text_is_named_with_its_line() {
        let names = ["x".to_string(), "y".to_string()];
        for (text, labels, words) in [
            ("{\"text\": \"a\", \"label\": \"x\"}\n{\"text\": \"a\", \"label\": 1}", None, ["jsonl:2", "`x`"]),
            ("{\"text\": \"a\", \"label\": \"w\"}", Some(&names[..]), ["jsonl:1", "x, y"]),
            ("{\"text\": \"a\", \"label\": 2}", Some(&names[..]), ["jsonl:1", "2"]),
            ("{\"text\": \"a\", \"label\": 1.5}", None, ["jsonl:1", "1.5"]),
            ("{\"text\": \"a\", \"label\": -1}", None, ["jsonl:1", "-1"]),
            ("{\"text\": \"a\", \"label\": 10000}", None, ["10000", "9999"]),
            ("{\"text_a\": \"a\", \"label\": \"x\"}", Some(&names[..]), ["jsonl:1", "`text_b`, and has text_a"]),
            ("{\"text\": \"a\", \"text_b\": \"a\"}", Some(&names[..]), ["jsonl:1", "has text, text_b"]),
            ("{\"text_c\": \"a\"}", None, ["jsonl:1", "text_c"]),
            ("{\"label\": 1}", Some(&names[..]), ["jsonl:1", "none of them"]),
            ("{\"text\": \"a\", \"label\": \"x\"}", None, ["at least 2", "1"]),
            ("\n", None, ["labelled texts", "texts.jsonl"]),
        ] {
            let error = read(text, labels).unwrap_err().to_string();
            assert!(words.iter().all(|word| error.contains(word)), "{error}");
        }
    }

    #[test]
    fn texts_are_encoded_as_they_are_and_other_choices_refused() {
        let task =
            read("{\"text\": \"yes no\", \"label\": \"b\"}\n{\"text\": \"no\", \"label\": \"a\"}", None).unwrap();
        let encoding = Encoding::new(PromptTemplate::text(), AnswerForm::labels(["a", "b"]));
        let data = encoding.encode(&task, &tiny::words()).unwrap();
        assert_eq!((data.answers.clone(), data.n_classes, data.items[0].label), (ResolvedAnswers::Labels, 2, Some(1)));
        assert_eq!(data.items[0].rows[0].ids, tiny::words().encode("yes no", true).unwrap());
        assert!(data.example(0, &tiny::words()).unwrap().contains("2 tokens"));
        let other = Encoding::new(PromptTemplate::text(), AnswerForm::labels(["a", "c"]));
        let error = other.encode(&task, &tiny::words()).unwrap_err().to_string();
        assert!(error.contains("\"c\"") && error.contains("\"b\""), "{error}");
        assert!(
            Encoding::new(PromptTemplate::text(), AnswerForm::labels(["a"])).encode(&task, &tiny::words()).is_err()
        );
    }
}
