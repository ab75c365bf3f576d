//! Reads texts, prompts with their completions, and chats: one JSON object a line.

use super::jsonl;
use crate::error::{Error, Result};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;

/// The most messages of one chat: each answer is written once with all that comes before it.
pub const MAX_CHAT_TURNS: usize = 1024;

/// One text to learn from, or to be scored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextItem {
    /// What errors and reports name.
    pub id: String,
    /// What there is to learn.
    pub content: TextContent,
}

/// The forms that a text may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TextContent {
    /// `{"text": …}`: all of it is learnt.
    Text(String),
    /// `{"prompt": …, "completion": …}`: `x` and `y` of `p(y | x)`, joined as they are.
    Completion {
        /// x
        prompt: String,
        /// y
        completion: String,
    },
    /// `{"messages": [{"role": …, "content": …}, …]}`: what the assistant says is learnt.
    Chat(Vec<ChatTurn>),
}

/// One message of a chat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ChatTurn {
    /// Who speaks.
    pub role: Role,
    /// What is said.
    pub content: String,
}

impl<'de> Deserialize<'de> for ChatTurn {
    /// From an object with these fields, and from nothing else: a list of two texts is no message.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Fields {
            role: Role,
            content: String,
        }
        let Fields { role, content } = jsonl::only_object(deserializer)?;
        Ok(Self { role, content })
    }
}

/// Who speaks in a chat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", try_from = "String")]
pub enum Role {
    /// The rules of the chat; its first message, where there are any.
    System,
    /// Who asks.
    User,
    /// Who answers.
    Assistant,
}

impl TryFrom<String> for Role {
    type Error = String;

    /// From a text alone: serde would take `{"user": null}` too.
    fn try_from(name: String) -> std::result::Result<Self, String> {
        let all = [Self::System, Self::User, Self::Assistant];
        let known = all.map(|role| format!("`{}`", role.name())).join(", ");
        let found = all.into_iter().find(|role| role.name() == name);
        found.ok_or(format!("unknown role `{name}`, expected one of {known}"))
    }
}

impl Role {
    /// As in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
        }
    }
}

/// A line as it stands.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    id: Option<Value>,
    text: Option<String>,
    prompt: Option<String>,
    completion: Option<String>,
    messages: Option<Vec<ChatTurn>>,
}

impl TextItem {
    /// A prompt with its completion.
    pub fn completion(id: impl Into<String>, prompt: impl Into<String>, completion: impl Into<String>) -> Self {
        let content = TextContent::Completion { prompt: prompt.into(), completion: completion.into() };
        Self { id: id.into(), content }
    }

    /// Reads one line; `place` is where it stands, for errors, and `number` its name where it has none.
    ///
    /// # Errors
    /// [`Error::Format`] with `place` for an unknown field or role, fields that do not go together, a system message that is not the
    /// first, and words that are empty where some are to be learnt.
    pub fn from_json(text: &str, place: &str, number: usize) -> Result<Self> {
        let wrong = |reason: String| Err(Error::format(place, reason));
        let line: Line = jsonl::object(text, place)?;
        let id = jsonl::name(line.id, place, number)?;
        let content = match (line.text, line.prompt, line.completion, line.messages) {
            (Some(text), None, None, None) => TextContent::Text(text),
            (None, Some(prompt), Some(completion), None) => TextContent::Completion { prompt, completion },
            (None, None, None, Some(turns)) => TextContent::Chat(turns),
            _ => return wrong("is none of `text`, `prompt` with `completion`, and `messages`".into()),
        };
        let item = Self { id, content };
        match item.fault() {
            None => Ok(item),
            Some(reason) => wrong(reason),
        }
    }

    /// What makes it impossible to learn anything from it.
    pub(super) fn fault(&self) -> Option<String> {
        let is_empty = |words: &str| words.trim().is_empty();
        match &self.content {
            TextContent::Text(text) => is_empty(text).then(|| "the text is empty".into()),
            TextContent::Completion { completion, .. } => {
                is_empty(completion).then(|| "the completion is empty: there is nothing to learn".into())
            }
            TextContent::Chat(turns) => chat_fault(turns),
        }
    }
}

/// What is wrong with a chat of which something the assistant says is to be judged or learnt.
pub(super) fn chat_fault(turns: &[ChatTurn]) -> Option<String> {
    let late = turns.iter().skip(1).position(|turn| turn.role == Role::System);
    let mut answers = turns.iter().enumerate().filter(|(_, turn)| turn.role == Role::Assistant).peekable();
    if turns.len() > MAX_CHAT_TURNS {
        return Some(format!("its {} messages are more than {MAX_CHAT_TURNS}", turns.len()));
    }
    if let Some(place) = late {
        return Some(format!("message {} of {} is a system message and not the first", place + 2, turns.len()));
    }
    if answers.peek().is_none() {
        return Some(format!("none of the {} messages is the assistant's", turns.len()));
    }
    let silent = answers.find(|(_, turn)| turn.content.trim().is_empty())?.0;
    let n = turns.len();
    Some(format!("message {} of {n} is the assistant's and empty: there is nothing to learn", silent + 1))
}

/// Reads a `.jsonl` or `.jsonl.gz` file of texts, completions and chats, in any mixture.
///
/// A line may have an `id`; without one it is called by its number.
///
/// ```
/// use bayes_lora::data::{TextContent, read_texts};
///
/// let path = std::env::temp_dir().join("bayes_lora_doc_texts.jsonl");
/// std::fs::write(&path, r#"{"prompt": "Is it?", "completion": " Yes."}
/// {"messages": [{"role": "user", "content": "Is it?"}, {"role": "assistant", "content": "Yes."}]}"#)?;
/// let items = read_texts(&path)?;
/// assert!(matches!(&items[0].content, TextContent::Completion { completion, .. } if completion == " Yes."));
/// assert_eq!(items[1].id, "2");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// As [`TextItem::from_json`] with `file:line`; [`Error::Format`] for an id that stands twice, [`Error::Empty`] for a file without
/// texts.
pub fn read_texts(path: impl AsRef<Path>) -> Result<Vec<TextItem>> {
    let path = path.as_ref();
    let (mut items, mut seen) = (Vec::new(), BTreeSet::new());
    jsonl::for_each_line(path, |number, text| {
        let place = jsonl::location(path, number);
        let item = TextItem::from_json(text, &place, number)?;
        if !seen.insert(item.id.clone()) {
            return Err(Error::format(place, format!("the id `{}` stands above already", item.id)));
        }
        items.push(item);
        Ok(())
    })?;
    if items.is_empty() {
        return Err(Error::empty(format!("the file of texts {}", path.display())));
    }
    Ok(items)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<TextItem>> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("texts.jsonl");
        std::fs::write(&path, text).unwrap();
        read_texts(path)
    }

    #[test]
    fn three_forms_are_read_in_any_mixture() {
        let items = read(
            r#"{"text": "a b"}

{"prompt": "", "completion": " c", "id": 7}
{"id": "x", "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": ""}, {"role": "assistant", "content": "d"}]}"#,
        )
        .unwrap();
        assert_eq!(items.iter().map(|item| item.id.as_str()).collect::<Vec<_>>(), ["1", "7", "x"]);
        assert_eq!(items[0].content, TextContent::Text("a b".into()));
        assert_eq!(items[1], TextItem::completion("7", "", " c"));
        let TextContent::Chat(turns) = &items[2].content else { panic!("a chat was written") };
        assert_eq!(turns.iter().map(|turn| turn.role.name()).collect::<Vec<_>>(), ["system", "user", "assistant"]);
    }

    #[test]
    fn what_is_no_text_is_named_with_its_line() {
        let user = r#"{"role": "user", "content": "a"}"#;
        let said = r#"{"role": "assistant", "content": "b"}"#;
        for (line, words) in [
            (r#"{"txt": "a"}"#.into(), &["`txt`"][..]),
            (r#"{"text": "a", "completion": "b"}"#.into(), &["none of", "`messages`"]),
            (r#"{"prompt": "a"}"#.into(), &["none of"]),
            (r#"{"prompt": "a", "completion": "  "}"#.into(), &["completion", "empty"]),
            (r#"{"text": "\n"}"#.into(), &["empty"]),
            (r#"{"text": 1}"#.into(), &["string"]),
            (r#"{"text": "a", "id": []}"#.into(), &["`id`"]),
            (r#"["a"]"#.into(), &[":2", "is a list"]),
            (r#"[null, "a", null, null, null]"#.into(), &["JSON object"]),
            (r#"{"messages": []}"#.into(), &["none of the 0"]),
            (format!(r#"{{"messages": [{}{said}]}}"#, format!("{user}, ").repeat(1024)), &["1025", "1024"]),
            (format!(r#"{{"messages": [{user}]}}"#), &["none of the 1"]),
            (
                format!(r#"{{"messages": [{user}, {{"role": "assistant", "content": " "}}]}}"#),
                &["message 2 of 2", "empty"],
            ),
            (format!(r#"{{"messages": [{user}, {said}, {{"role": "system", "content": "c"}}]}}"#), &["message 3 of 3"]),
            (r#"{"messages": [{"role": "robot", "content": "a"}]}"#.into(), &["`robot`", "`assistant`"]),
            (r#"{"messages": [["user", "a"], ["assistant", "b"]]}"#.into(), &["sequence", "JSON object", "column 14"]),
            (format!(r#"{{"messages": [{user}, "b"]}}"#), &["string \"b\"", "JSON object"]),
            (r#"{"messages": [{"role": {"user": null}, "content": "a"}]}"#.into(), &["map", "string"]),
            (r#"{"messages": [{"role": "user", "role": "user", "content": "a"}]}"#.into(), &["duplicate", "`role`"]),
            (r#"{"messages": {"role": "user", "content": "a"}}"#.into(), &["map", "sequence"]),
            (r#"{"messages": [{"role": "user", "content": "a", "name": "b"}]}"#.into(), &["`name`"]),
            (r#"{"text": "a", "id": "1"}"#.into(), &["`1`", "already"]),
        ] {
            let error = read(&format!("{{\"text\": \"first\"}}\n{line}")).unwrap_err().to_string();
            assert!(error.contains("texts.jsonl:2") && words.iter().all(|w| error.contains(w)), "{line}: {error}");
        }
        assert!(read("\n").unwrap_err().to_string().contains("texts.jsonl"));
    }
}
