//! Reads preferences, one JSON object a line, as a task whose items have two choices.

use std::path::Path;

use serde_json::{Map, Value};

use super::jsonl;
use super::preference_chats::{ChatPair, turns};
use super::task::{Item, Task, name_of};
use super::texts::ChatTurn;
use crate::error::{Error, Result};
use crate::hash::{fnv1a, fnv1a_words};

/// What a line may hold; chosen and rejected it must.
const FIELDS: [&str; 4] = ["prompt", "chosen", "rejected", "id"];

impl Task {
    /// Reads a `.jsonl` or `.jsonl.gz` file of `{"prompt"?: …, "chosen": …, "rejected": …, "id"?: …}`: two answers to a prompt of which the
    /// first was preferred, as [`AnswerForm::Rewards`](super::AnswerForm::Rewards) asks. Without an id a pair is called by its line.
    ///
    /// The forms are those of TRL. **Texts**: the prompt is a text; without it both answers begin with it, and it ends at the last white space
    /// that they share. **Chats**: `chosen` and `rejected` are lists of `{"role": …, "content": …}`, and the prompt is a list of them too, or a
    /// text, which is the user's message; without it the messages that both chats begin with are the prompt. Chats are written by the model's
    /// chat template, whole: the assistant's last words are followed by what the template puts behind them.
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
    /// [`Error::Format`] with `file:line` for what is no preference: a field that is missing, unknown or of another kind, an unknown role, two
    /// answers that are the same, chats that begin differently or do not end with the assistant's words; [`Error::Empty`] for a file without
    /// preferences.
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
    let id = jsonl::name(fields.remove("id"), place, number)?;
    let prompt = fields.remove("prompt").filter(|prompt| !prompt.is_null());
    let mut side = |name: &str| match fields.remove(name) {
        Some(Value::String(text)) => Ok(Side::Text(text)),
        Some(other) => turns(name, &other, place).map(Side::Chat),
        None => Err(wrong(format!("missing field `{name}`"))),
    };
    let (chosen, rejected) = (side("chosen")?, side("rejected")?);
    match (chosen, rejected) {
        (Side::Text(chosen), Side::Text(rejected)) => of_texts(id, prompt, [chosen, rejected], place),
        (Side::Chat(chosen), Side::Chat(rejected)) => {
            let pair = ChatPair::new(prompt.as_ref(), [chosen, rejected], place)?;
            let keys = pair.chats.each_ref().map(serde_json::to_string);
            let [chosen, rejected] = keys.map(|key| key.map_err(|error| wrong(error.to_string())));
            let is_first = key("", chosen?) < key("", rejected?);
            let (question, answers) = (pair.question().to_string(), pair.answers());
            Ok(ordered(Item::new(id, question, answers).with_chats(pair.chats), is_first))
        }
        (Side::Text(_), Side::Chat(_)) => Err(wrong("`chosen` is a text, and `rejected` a list of messages".into())),
        (Side::Chat(_), Side::Text(_)) => Err(wrong("`chosen` is a list of messages, and `rejected` a text".into())),
    }
}

/// An answer as the file has it.
enum Side {
    Text(String),
    Chat(Vec<ChatTurn>),
}

/// Two texts behind their prompt.
fn of_texts(id: String, prompt: Option<Value>, [chosen, rejected]: [String; 2], place: &str) -> Result<Item> {
    let wrong = |reason: String| Error::format(place, reason);
    if chosen.trim() == rejected.trim() {
        return Err(wrong(format!("`chosen` and `rejected` are both `{}`", chosen.trim())));
    }
    let (prompt, chosen, rejected) = match prompt {
        Some(Value::String(prompt)) => (prompt, chosen, rejected),
        Some(Value::Array(_)) => {
            let reason = "`prompt` is a list of messages, and `chosen` and `rejected` are texts: write all three as one or the other";
            return Err(wrong(reason.into()));
        }
        Some(other) => return Err(wrong(format!("`prompt` is {other}, no text"))),
        None => {
            let shared = chosen.char_indices().zip(rejected.chars()).take_while(|((_, a), b)| a == b);
            // a word that begins alike is not cut
            let end = shared.filter(|((_, c), _)| c.is_whitespace()).map(|((at, c), _)| at + c.len_utf8()).last();
            let (prompt, chosen) = chosen.split_at(end.unwrap_or(0));
            let rejected = &rejected[prompt.len()..];
            for (name, rest) in [("chosen", chosen), ("rejected", rejected)] {
                if rest.trim().is_empty() {
                    let reason =
                        format!("`{name}` holds nothing but what the other one begins with, and there is no `prompt`");
                    return Err(wrong(reason));
                }
            }
            (prompt.to_string(), chosen.to_string(), rejected.to_string())
        }
    };
    let is_first = key(&prompt, chosen.clone()) < key(&prompt, rejected.clone());
    Ok(ordered(Item::new(id, prompt, [chosen, rejected]), is_first))
}

/// By what two answers are ordered.
fn key(prompt: &str, answer: String) -> (u64, String) {
    (fnv1a_words([fnv1a(prompt.bytes()), fnv1a(answer.bytes())]), answer)
}

/// An item whose first choice was preferred, in the order of its keys.
fn ordered(mut item: Item, is_first: bool) -> Item {
    if !is_first {
        item.choices.reverse();
        item.chats.reverse();
    }
    item.with_answer(usize::from(!is_first))
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
                ["`chosen`: message 1 of 1", "content"],
            ),
            (
                r#"{"prompt": "a", "chosen": 3, "rejected": "c"}"#.into(),
                ["jsonl:1", "`chosen` is 3, no text and no list"],
            ),
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
