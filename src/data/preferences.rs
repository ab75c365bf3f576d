//! Reads preferences, one JSON object a line, as a task whose items have two choices.

use std::path::Path;

use serde_json::{Map, Value};

use super::jsonl;
use super::task::{Item, Task, name_of};
use crate::error::{Error, Result};
use crate::hash::{fnv1a, fnv1a_words};

/// What a line may hold; the first three it must.
const FIELDS: [&str; 4] = ["prompt", "chosen", "rejected", "id"];

impl Task {
    /// Reads a `.jsonl` or `.jsonl.gz` file of `{"prompt": …, "chosen": …, "rejected": …, "id"?: …}`, texts all of them: two answers to a
    /// prompt of which the first was preferred, as [`AnswerForm::Rewards`](super::AnswerForm::Rewards) asks. Without an id a pair is called
    /// by its line.
    ///
    /// The order of an item's two choices is a function of the prompt and the two texts, and the same if the other one had been preferred:
    /// the position says nothing about the answer.
    ///
    /// ```
    /// use bayes_lora::data::Task;
    ///
    /// let path = std::env::temp_dir().join("bayes_lora_doc_preferences.jsonl");
    /// std::fs::write(&path, r#"{"prompt": "Is it?", "chosen": "It is.", "rejected": "Go away."}"#)?;
    /// let item = &Task::from_preferences_jsonl(&path)?.items[0];
    /// assert_eq!(item.choices[item.answer.unwrap()], "It is.");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Format`] with `file:line` for what is no preference: a field that is missing, unknown or no text (a list of messages is
    /// none: [`Encoding::with_chat`](super::Encoding::with_chat) wraps a prompt in the chat template), or two answers that are the same;
    /// [`Error::Empty`] for a file without preferences.
    pub fn from_preferences_jsonl(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let mut items = Vec::new();
        jsonl::for_each_line(path, |number, text| {
            items.push(preference(number, text, &jsonl::location(path, number))?);
            Ok(())
        })?;
        if items.is_empty() {
            return Err(Error::empty(format!("the file of preferences {}", path.display())));
        }
        Task::new(name_of(path), items)
    }

    /// Makes a task of texts that are asked for their rewards one by one: prompts with one answer each, called by their places from 0.
    pub fn of_answers<S: Into<String>>(name: impl Into<String>, texts: impl IntoIterator<Item = (S, S)>) -> Self {
        let item = |(place, (prompt, text)): (usize, (S, S))| Item::new(place.to_string(), prompt, [text]);
        Self { name: name.into(), items: texts.into_iter().enumerate().map(item).collect() }
    }
}

impl Item {
    /// Reads line `number` of a file of preferences, see [`Task::from_preferences_jsonl`]; `place` is where it stands, for errors.
    ///
    /// # Errors
    /// [`Error::Format`] with `place` for what is no preference.
    pub fn from_preference_line(text: &str, number: usize, place: &str) -> Result<Self> {
        preference(number, text, place)
    }
}

/// One line, which stands at `place`.
fn preference(number: usize, text: &str, place: &str) -> Result<Item> {
    let wrong = |reason: String| Error::format(place, reason);
    let mut fields: Map<String, Value> = jsonl::object(text, place)?;
    if let Some(unknown) = fields.keys().find(|name| !FIELDS.contains(&name.as_str())) {
        let known = FIELDS.map(|name| format!("`{name}`")).join(", ");
        return Err(wrong(format!("unknown field `{unknown}`, expected {known}")));
    }
    let field = |name: &str| match fields.get(name) {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(Value::Array(_)) => Err(wrong(format!(
            "`{name}` is a list: messages are not read, write the text (the chat template can wrap the prompt, `Encoding::with_chat`)"
        ))),
        Some(other) => Err(wrong(format!("`{name}` is {other}, no text"))),
        None => Err(wrong(format!("missing field `{name}`"))),
    };
    let [prompt, chosen, rejected] = ["prompt", "chosen", "rejected"].map(field);
    let (prompt, chosen, rejected) = (prompt?, chosen?, rejected?);
    if chosen.trim() == rejected.trim() {
        return Err(wrong(format!("`chosen` and `rejected` are both `{}`", chosen.trim())));
    }
    let id = jsonl::name(fields.remove("id"), place, number)?;
    let key = |text: &String| (fnv1a_words([fnv1a(prompt.bytes()), fnv1a(text.bytes())]), text.clone());
    let is_first = key(&chosen) < key(&rejected);
    let choices = if is_first { [chosen, rejected] } else { [rejected, chosen] };
    Ok(Item::new(id, prompt, choices).with_answer(usize::from(!is_first)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{AnswerForm, Encoding, PromptTemplate, ResolvedAnswers, tiny};

    fn read(text: &str) -> Result<Task> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pairs.jsonl");
        std::fs::write(&path, text).unwrap();
        Task::from_preferences_jsonl(path)
    }

    fn line(prompt: &str, chosen: &str, rejected: &str) -> String {
        serde_json::json!({"prompt": prompt, "chosen": chosen, "rejected": rejected}).to_string()
    }

    #[test]
    fn the_order_of_two_answers_is_the_same_whichever_was_preferred_and_even() {
        let mut first = 0;
        for k in 0..2000 {
            // what all preferred answers have in common must not show
            let (prompt, good, bad) = (format!("question {k}?"), format!("answer {k} is right."), format!("no {k}"));
            let one = preference(1, &line(&prompt, &good, &bad), "here").unwrap();
            let other = preference(1, &line(&prompt, &bad, &good), "here").unwrap();
            assert_eq!(one.choices, other.choices);
            assert_eq!(one.answer.unwrap() + other.answer.unwrap(), 1);
            assert_eq!(one.choices[one.answer.unwrap()], good);
            first += usize::from(one.answer == Some(0));
        }
        // 1,000 with a standard deviation of √500 = 22
        assert!((900..1100).contains(&first), "{first}");
    }

    #[test]
    fn what_is_no_preference_is_named_with_its_line() {
        let good = line("a", "b", "c");
        for (text, words) in [
            (r#"{"prompt": "a", "chosen": "b"}"#.to_string(), ["jsonl:1", "missing field `rejected`"]),
            (format!("{good}\n{}", line("a", "b ", " b")), ["jsonl:2", "both `b`"]),
            (
                r#"{"prompt": "a", "chosen": "b", "rejected": "c", "score": 1}"#.into(),
                ["unknown field `score`", "`chosen`"],
            ),
            (
                r#"{"prompt": "a", "chosen": [{"role": "user"}], "rejected": "c"}"#.into(),
                ["`chosen` is a list", "with_chat"],
            ),
            (r#"{"prompt": "a", "chosen": 3, "rejected": "c"}"#.into(), ["jsonl:1", "`chosen` is 3, no text"]),
            (r#"["a"]"#.into(), ["jsonl:1", "JSON object"]),
            ("\n".into(), ["preferences", "pairs.jsonl"]),
        ] {
            let error = read(&text).unwrap_err().to_string();
            assert!(words.iter().all(|word| error.contains(word)), "{error}");
        }
        assert_eq!(read(&format!("{good}\n\n{good}")).unwrap().items[1].id, "3");
    }

    #[test]
    fn a_pair_is_two_rows_of_prompt_and_answer_and_a_single_answer_one() {
        let words = tiny::words();
        let encoding = Encoding::new(PromptTemplate::text(), AnswerForm::Rewards);
        let data = encoding.encode(&read(&line("is it", "yes", "no no")).unwrap(), &words).unwrap();
        assert_eq!((data.answers.clone(), data.n_classes), (ResolvedAnswers::Rewards, 2));
        let item = &data.items[0];
        let texts = ["is it yes", "is it no no"].map(|text| words.encode(text, true).unwrap());
        let label = item.label.unwrap();
        assert_eq!((&item.rows[label].ids, &item.rows[1 - label].ids), (&texts[0], &texts[1]));
        assert!(item.rows.iter().all(|row| row.scored.is_empty() && row.weight == 1.0));
        assert!(data.example(0, &words).unwrap().contains("<- label"));

        let alone = encoding.encode(&Task::of_answers("answers", [("is it", "yes")]), &words).unwrap();
        assert_eq!((alone.items[0].rows.len(), alone.items[0].label, alone.n_classes), (1, None, 1));
        assert_eq!(alone.items[0].rows[0].ids, texts[0]);
        // a long prompt loses the same tokens for both answers
        let short = encoding.with_max_tokens(3).with_truncation(crate::data::Truncation::Start);
        let cut = short.encode(&read(&line("is it", "yes", "no no")).unwrap(), &words).unwrap();
        assert_eq!(cut.items[0].rows[label].ids, texts[0][1..]);
        assert_eq!(cut.items[0].rows[1 - label].ids, texts[1][1..]);
    }
}
