//! Finds the assistant's words in a chat that a template has written.

use super::chat::ChatFormat;
use super::chat_marks::MARKS;
use super::texts::{ChatTurn, Role};
use crate::error::{Error, Result};
use std::ops::Range;
use std::sync::Arc;

/// A chat as text, and the bytes of it that are the assistant's: words and what ends them.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ChatText {
    pub text: String,
    pub said: Vec<Range<usize>>,
}

impl ChatText {
    /// By the template's own marks, `{% generation %}` and `{% endgeneration %}`, where it has some; else by prefixes: what a chat up to
    /// an answer adds to the chat up to its question, without white space at the end, which is written after the answer has ended.
    ///
    /// # Errors
    /// [`Error::Format`] for a template that fails, that does not go on from what it wrote before (it then writes earlier turns in
    /// another way, and an answer would be learnt after words that are never asked), or drops some of the assistant's words.
    pub(super) fn new(format: &ChatFormat, turns: &[ChatTurn]) -> Result<Self> {
        let turns: Arc<[ChatTurn]> = turns.into();
        let text = format.render_first(&turns, turns.len(), false)?;
        let marked = match format.render_marked(&turns)? {
            Some(marked) => by_marks(&marked).filter(|found| found.text == text),
            None => None,
        };
        let found = match marked {
            Some(marked) => marked,
            None => by_prefixes(format, &turns, text)?,
        };
        found.check_words(&turns)?;
        Ok(found)
    }

    /// Checks that every answer is in what is marked, in order.
    fn check_words(&self, turns: &[ChatTurn]) -> Result<()> {
        let all: Vec<&str> = self.said.iter().map(|range| &self.text[range.clone()]).collect();
        let all = all.concat();
        let mut from = 0;
        for (index, turn) in turns.iter().enumerate().filter(|(_, turn)| turn.role == Role::Assistant) {
            let words = turn.content.trim();
            match all[from..].find(words) {
                Some(at) => from += at + words.len(),
                None => {
                    return Err(fault(index, turns, "drops the assistant's words, or writes others in their place"));
                }
            }
        }
        Ok(())
    }
}

fn fault(index: usize, turns: &[ChatTurn], reason: &str) -> Error {
    Error::format("chat template", format!("at message {} of {}: {reason}", index + 1, turns.len()))
}

/// The text without marks, and what stood between them; `None` where they are not in pairs.
fn by_marks(marked: &str) -> Option<ChatText> {
    let mut found = ChatText { text: String::with_capacity(marked.len()), said: Vec::new() };
    let mut begin = None;
    for part in marked.split_inclusive(MARKS) {
        let mark = part.chars().next_back().filter(|last| MARKS.contains(last));
        found.text.push_str(part.trim_end_matches(MARKS));
        let here = found.text.len();
        match (mark, begin) {
            (None, _) => {}
            (Some(mark), None) if mark == MARKS[0] => begin = Some(here),
            (Some(mark), Some(start)) if mark == MARKS[1] => {
                found.said.extend((start < here).then_some(start..here));
                begin = None;
            }
            (Some(_), _) => return None,
        }
    }
    begin.is_none().then_some(found)
}

fn by_prefixes(format: &ChatFormat, turns: &Arc<[ChatTurn]>, text: String) -> Result<ChatText> {
    let mut said = Vec::new();
    for (index, _) in turns.iter().enumerate().filter(|(_, turn)| turn.role == Role::Assistant) {
        let before = format.render_first(turns, index, true)?;
        let through = format.render_first(turns, index + 1, false)?;
        let through = through.trim_end();
        if !through.starts_with(&before) {
            return Err(fault(index, turns, "the answer does not follow on what asks for it"));
        }
        if !text.starts_with(through) {
            return Err(fault(index, turns, "later messages change how this one is written"));
        }
        said.push(before.len()..through.len());
    }
    Ok(ChatText { text, said })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::SpecialTokens;

    fn turns(all: &[(Role, &str)]) -> Vec<ChatTurn> {
        all.iter().map(|(role, content)| ChatTurn { role: *role, content: (*content).into() }).collect()
    }

    fn said(source: &str, all: &[(Role, &str)]) -> Result<Vec<String>> {
        let format = ChatFormat::new(source, &SpecialTokens::default()).unwrap();
        let found = ChatText::new(&format, &turns(all))?;
        Ok(found.said.iter().map(|range| found.text[range.clone()].to_string()).collect())
    }

    const CHAT: [(Role, &str); 4] =
        [(Role::User, "a"), (Role::Assistant, "b "), (Role::User, "c"), (Role::Assistant, "d")];

    const PLAIN: &str = "{% for m in messages %}<{{ m.role }}>{{ m.content }}</>\n{% endfor %}\
                         {% if add_generation_prompt %}<assistant>{% endif %}";

    #[test]
    fn marks_and_prefixes_find_the_same_words() {
        let marked = "{% for m in messages %}<{{ m.role }}>{%- if m.role == 'assistant' %}\n  {%- generation -%}\n  \
                      {{ m.content }}</>{% endgeneration %}\n{% else %}{{ m.content }}</>\n{% endif %}{% endfor %}\
                      {% if add_generation_prompt %}<assistant>{% endif %}";
        for source in [PLAIN, marked] {
            assert_eq!(said(source, &CHAT).unwrap(), ["b </>", "d</>"], "{source}");
        }
    }

    #[test]
    fn a_template_that_rewrites_or_drops_words_is_refused_with_the_message() {
        let rewrites = "{% for m in messages %}<{{ m.role }}>{% if loop.last or m.role == 'user' %}{{ m.content }}\
                        {% else %}{{ m.content | upper }}{% endif %}</>{% endfor %}\
                        {% if add_generation_prompt %}<assistant>{% endif %}";
        let error = said(rewrites, &CHAT).unwrap_err().to_string();
        assert!(error.contains("message 2 of 4") && error.contains("later"), "{error}");
        let drops = "{% for m in messages %}{% if m.role == 'user' %}<user>{{ m.content }}</>{% else %}<assistant>…</>\
                     {% endif %}{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}";
        let error = said(drops, &CHAT).unwrap_err().to_string();
        assert!(error.contains("message 2 of 4") && error.contains("drops"), "{error}");
        let other = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}\
                     {% if add_generation_prompt %}<bot>{% endif %}";
        let error = said(other, &CHAT).unwrap_err().to_string();
        assert!(error.contains("message 2 of 4") && error.contains("follow"), "{error}");
        // marks that hold nothing of the answer
        let empty =
            "{% for m in messages %}<{{ m.role }}>{% generation %}x{% endgeneration %}{{ m.content }}</>{% endfor %}";
        assert!(said(empty, &CHAT).unwrap_err().to_string().contains("drops"));
    }
}
