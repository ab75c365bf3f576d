//! What the lines of a data file are, by the fields of the first.

use crate::session::Outcome;
use bayes_lora::data::for_each_line;
use clap::ValueEnum;
use serde::Serialize;
use serde_json::Value;
use std::path::Path;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Questions with choices: {"question", "choices", "answer"}
    Choices,
    /// Texts or pairs of texts with a class: {"text", "label"} or {"text_a", "text_b", "label"}
    Labels,
    /// The same with a real number as label
    Values,
    /// Preferred and rejected answers: {"prompt", "chosen", "rejected"}
    Preferences,
    /// Texts, completions and chats: {"text"}, {"prompt", "completion"} or {"messages"}
    Texts,
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.to_possible_value().map_or(Ok(()), |value| f.write_str(value.get_name()))
    }
}

impl Kind {
    /// The kind that the flag says, or that of a file's first line.
    pub fn of(said: Option<Self>, file: &Path) -> Outcome<Self> {
        match said {
            Some(kind) => Ok(kind),
            None => Self::of_file(file),
        }
    }

    fn of_file(file: &Path) -> Outcome<Self> {
        let mut first = None;
        // reading ends at the first line
        let read = for_each_line(file, |_, line| {
            first = Some(line.to_string());
            Err(bayes_lora::Error::Incompatible(String::new()))
        });
        let Some(line) = first else {
            read?;
            return Err(format!("{}: no line", file.display()).into());
        };
        let value: Value = serde_json::from_str(&line).map_err(|error| format!("{}:1: {error}", file.display()))?;
        let Some(kind) = Self::of_fields(&value) else {
            let fields = value.as_object().map(|object| object.keys().cloned().collect::<Vec<_>>().join(", "));
            let fields = fields.unwrap_or_default();
            return Err(format!(
                "{}:1: fields `{fields}` are none of a task's: `choices`, `label`, `chosen`, `text`, `prompt` or `messages` (`--task` says what lines are)",
                file.display()
            )
            .into());
        };
        Ok(kind)
    }

    /// The kind of one line, by its fields alone.
    pub fn of_fields(line: &Value) -> Option<Self> {
        let has = |field: &str| line.get(field).is_some();
        Some(match line.get("label") {
            _ if has("choices") => Self::Choices,
            _ if has("chosen") => Self::Preferences,
            Some(Value::Number(label)) if !label.is_u64() => Self::Values,
            Some(_) => Self::Labels,
            None if has("text_a") => Self::Labels,
            None if has("messages") || has("text") || has("prompt") => Self::Texts,
            None => return None,
        })
    }
}
