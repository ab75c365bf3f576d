//! Writes an item's prompt as text, plain or in a chat, and says which bytes of it truncation may shorten.

use std::ops::Range;

use super::prompt::{CompiledPrompt, PromptTemplate};
use super::task::Item;
use super::tokens::Tokenizer;
use crate::error::{Error, Result};

/// A character of Unicode's private use area that stands for the user's message in a chat template.
pub(super) const PLACEHOLDER: &str = "\u{e000}";

/// A prompt as text, with the bytes that truncation may shorten.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Wording {
    pub text: String,
    pub body: Range<usize>,
    pub cue: String,
}

/// Words items by one template.
pub(crate) struct PromptWriter<'a> {
    template: CompiledPrompt,
    tokenizer: &'a Tokenizer,
    /// What the chat template writes before the user's message; `None` for plain prompts.
    chat_opening: Option<String>,
}

impl<'a> PromptWriter<'a> {
    pub fn new(template: &PromptTemplate, tokenizer: &'a Tokenizer, chat: bool) -> Result<Self> {
        Ok(Self {
            template: template.compile()?,
            tokenizer,
            chat_opening: chat.then(|| chat_opening(tokenizer)).transpose()?,
        })
    }

    pub fn write(&self, item: &Item) -> Result<Wording> {
        let prompt = self.template.render(item)?;
        let Some(opening) = &self.chat_opening else {
            return Ok(Wording { text: prompt.text(), body: 0..prompt.body.len(), cue: prompt.cue });
        };
        // Many templates trim the message; trimming it first lets us find it again.
        let message = prompt.body.trim();
        let mut text = self.tokenizer.chat_prompt(message)?;
        let found = text.strip_prefix(opening.as_str()).is_some_and(|rest| rest.starts_with(message));
        let start = opening.len();
        // The template ends the user's turn with a break of its own.
        let cue = prompt.cue.trim_start().to_owned();
        text.push_str(&cue);
        Ok(Wording {
            text,
            // A template that rewrites the message leaves nothing that could be shortened safely.
            body: if found { start..start + message.len() } else { 0..0 },
            cue,
        })
    }
}

fn chat_opening(tokenizer: &Tokenizer) -> Result<String> {
    let text = tokenizer.chat_prompt(PLACEHOLDER)?;
    match text.split_once(PLACEHOLDER) {
        Some((opening, _)) => Ok(opening.to_owned()),
        None => Err(Error::format("chat template", "does not show the user's message")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::tiny;
    use crate::data::tokens::TokenizerFiles;

    fn chat_tokenizer(template: &str) -> Tokenizer {
        let json = tiny::words_json();
        Tokenizer::from_files(&TokenizerFiles {
            tokenizer: json.as_bytes(),
            chat_template: Some(template.as_bytes()),
            ..TokenizerFiles::default()
        })
        .unwrap()
    }

    fn write(chat_template: Option<&str>) -> Result<Wording> {
        let tokenizer = chat_template.map_or_else(tiny::words, chat_tokenizer);
        let template = PromptTemplate::question_answer();
        let item = Item::new("q", "user", ["yes"]);
        PromptWriter::new(&template, &tokenizer, chat_template.is_some())?.write(&item)
    }

    #[test]
    fn a_plain_prompt_may_lose_its_body() {
        let wording = write(None).unwrap();
        assert_eq!(&wording.text[wording.body], "Question: user");
        assert!(wording.text.ends_with("user\nAnswer:")); // the line break stays with the cue
    }

    #[test]
    fn in_chat_only_the_message_itself_may_be_lost() {
        // The message's own words occur in the opening: the place is found by the opening's length, not by search.
        let wording = write(Some("Question: user? {{ messages[0].content | trim }} end\n>")).unwrap();
        assert_eq!(wording.text, "Question: user? Question: user end\n>Answer:");
        assert_eq!((wording.body.clone(), &wording.text[wording.body]), (16..30, "Question: user"));
        assert_eq!(wording.cue, "Answer:");
    }

    #[test]
    fn a_template_that_rewrites_the_message_leaves_nothing_to_drop() {
        assert_eq!(write(Some("<{{ messages[0].content | upper }}>")).unwrap().body, 0..0);
    }

    #[test]
    fn a_template_without_the_message_is_refused() {
        assert!(write(Some("hello")).is_err());
    }
}
