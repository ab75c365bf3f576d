//! Finds the tokens of every field of an answer that is a JSON object.

use super::json_leaves::json_leaves;
use super::text_dataset::TextExample;
use super::text_encoding::TextEncoding;
use super::texts::TextItem;
use super::tokens::Tokenizer;
use crate::error::{Error, Result};
use std::ops::Range;

/// A text whose answer is a JSON object, with the tokens of every field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StructuredText {
    example: TextExample,
    fields: Vec<Field>,
}

/// A value of the object that has no values inside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// Its path: `person.age`, `tags[1]`; names with other signs than letters, digits, `_` and `-` as `["first name"]`.
    pub path: String,
    /// Its JSON as it stands in the text, quotes included.
    pub value: String,
    /// The places of its tokens in the text; empty where they all belong to [`Field::within`].
    pub tokens: Range<usize>,
    /// The field before it that has its only tokens, as where `1,2` is one token.
    pub within: Option<String>,
}

impl StructuredText {
    /// Encodes a text and finds its fields. The object is all of a completion or of a plain text, or the last answer of a chat.
    ///
    /// A token belongs to the first field of whose value it holds a byte, quotes included. So the token `"Bo` is its field's, and `",`
    /// too: that it ends here is part of a value. Names, punctuation between values and the end token are nobody's.
    ///
    /// ```
    /// use bayes_lora::data::{StructuredText, TextEncoding, TextItem, Tokenizer};
    ///
    /// let json = br#"{"version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
    ///     "pre_tokenizer": {"type": "Whitespace"}, "post_processor": null, "decoder": null,
    ///     "model": {"type": "WordLevel", "vocab": {"?": 0, "who": 1, "Bo": 2, "31": 3}, "unk_token": "?"}}"#;
    /// let tokenizer = Tokenizer::from_bytes(json)?;
    /// let item = TextItem::completion("1", "who?", r#" {"name": "Bo", "age": 31}"#);
    /// let text = StructuredText::new(&item, &TextEncoding::default().with_end_token(false), &tokenizer)?;
    /// let paths: Vec<&str> = text.fields().iter().map(|field| field.path.as_str()).collect();
    /// assert_eq!((paths, text.fields()[1].value.as_str()), (vec!["name", "age"], "31"));
    /// # Ok::<(), bayes_lora::error::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`TextEncoding::encode`]; [`Error::Format`] with the text's name for an answer that is no JSON object, with the place
    /// where it fails, that has a field twice, or whose end was cut off.
    pub fn new(item: &TextItem, encoding: &TextEncoding, tokenizer: &Tokenizer) -> Result<Self> {
        let wrong = |reason: String| Error::format(format!("answer of text `{}`", item.id), reason);
        let read = encoding.read(item, tokenizer)?;
        if read.is_cut {
            return Err(wrong(format!(
                "was cut off after {} tokens: its fields are not whole",
                read.example.ids.len()
            )));
        }
        let said = &read.text[read.answer.clone()];
        let start = read.answer.start + said.len() - said.trim_start().len();
        let leaves = json_leaves(said.trim()).map_err(wrong)?;
        let mut fields: Vec<Field> = Vec::with_capacity(leaves.len());
        // nothing predicts the first token
        let mut next = 1;
        for leaf in leaves {
            let bytes = start + leaf.bytes.start..start + leaf.bytes.end;
            let holds = |span: &Option<(usize, usize)>| span.is_some_and(|(a, b)| a < bytes.end && b > bytes.start);
            let first = read.spans.iter().position(holds).unwrap_or(next);
            let end = read.spans.iter().rposition(holds).map_or(next, |last| last + 1).max(next);
            let tokens = first.max(next)..end;
            let within = tokens.is_empty().then(|| fields.iter().rfind(|field| field.within.is_none()));
            fields.push(Field {
                path: leaf.path,
                value: read.text[bytes].to_string(),
                within: within.flatten().map(|field| field.path.clone()),
                tokens,
            });
            next = end;
        }
        Ok(Self { example: read.example, fields })
    }

    /// The text as tokens.
    pub fn example(&self) -> &TextExample {
        &self.example
    }

    /// The fields in the order of the text.
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init, reason = "a text may have one range of scored tokens")]
mod tests {
    use super::*;
    use crate::data::texts::{ChatTurn, Role, TextContent};
    use crate::data::tokens::TokenizerFiles;
    use crate::data::{ScoredPart, Truncation};

    /// Words and signs: a run of signs is one token. With `at_space_only`, all between two spaces is.
    fn tokenizer(at_space_only: bool) -> Tokenizer {
        let cut = if at_space_only { "WhitespaceSplit" } else { "Whitespace" };
        let json = format!(
            r#"{{"version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
            "pre_tokenizer": {{"type": "{cut}"}}, "post_processor": null, "decoder": null,
            "model": {{"type": "WordLevel", "vocab": {{"?": 0, "end": 1}}, "unk_token": "?"}}}}"#
        );
        let config = br#"{"eos_token": "end", "chat_template": "{% for m in messages %}<{{ m.role }}> {{ m.content }} end\n{% endfor %}{% if add_generation_prompt %}<assistant> {% endif %}"}"#;
        let files =
            TokenizerFiles { tokenizer: json.as_bytes(), tokenizer_config: Some(config), ..TokenizerFiles::default() };
        Tokenizer::from_files(&files).unwrap()
    }

    fn found(item: &TextItem, at_space_only: bool) -> StructuredText {
        StructuredText::new(item, &TextEncoding::default(), &tokenizer(at_space_only)).unwrap()
    }

    fn places(text: &StructuredText) -> Vec<(&str, Range<usize>)> {
        text.fields().iter().map(|field| (field.path.as_str(), field.tokens.clone())).collect()
    }

    #[test]
    fn a_token_belongs_to_the_first_field_of_which_it_holds_a_byte() {
        // who | ? | {" | a | ": | " | x | y | ", | " | b | ": | [ | 1 | , | { | " … : c's name and the sign before its value
        let item = TextItem::completion("7", "who?", r#" {"a": "x y", "b": [1, {"c":-2}]}"#);
        let text = found(&item, false);
        assert_eq!(places(&text), [("a", 5..9), ("b[0]", 13..14), ("b[1].c", 17..19)]);
        let values: Vec<&str> = text.fields().iter().map(|field| field.value.as_str()).collect();
        assert_eq!(values, ["\"x y\"", "1", "-2"]);
        // names and signs between are nobody's, nor is the end token
        assert_eq!(text.example().scored, [2..21]);
    }

    #[test]
    fn a_field_without_a_token_of_its_own_says_whose_it_shares() {
        let text = found(&TextItem::completion("7", "who", r#" {"a":1,"b":2, "c":3}"#), true);
        assert_eq!(places(&text), [("a", 1..2), ("b", 2..2), ("c", 2..3)]);
        let within: Vec<Option<&str>> = text.fields().iter().map(|field| field.within.as_deref()).collect();
        assert_eq!(within, [None, Some("a"), None]);
    }

    #[test]
    fn of_a_chat_the_last_answer_is_read_and_its_end_is_nobodys() {
        let turn = |role, content: &str| ChatTurn { role, content: content.into() };
        let turns = vec![
            turn(Role::User, "who"),
            turn(Role::Assistant, "{\"a\": 1}"),
            turn(Role::User, "again"),
            turn(Role::Assistant, "{\"a\": 2 }"),
        ];
        let text = found(&TextItem { id: "7".into(), content: TextContent::Chat(turns) }, true);
        // <user> who end <assistant> {"a": 1} end <user> again end <assistant> {"a": 2 } end
        assert_eq!(places(&text), [("a", 12..13)]);
        assert_eq!(text.example().scored, [4..7, 11..15]);
    }

    #[test]
    fn what_has_no_whole_object_is_refused_with_the_text_and_the_place() {
        let refusal = |encoding: &TextEncoding, answer: &str| {
            let item = TextItem::completion("q7", "who", answer);
            StructuredText::new(&item, encoding, &tokenizer(false)).unwrap_err().to_string()
        };
        let plain = TextEncoding::default();
        assert_eq!(refusal(&plain, " [1]"), "answer of text `q7`: is a list, no JSON object");
        assert!(refusal(&plain, " {\"a\": x}").contains("line 1 column 7"));
        assert!(refusal(&plain, r#" {"a": 1, "a": 2}"#).contains("the field `a` twice"));
        let short = TextEncoding::default().with_truncation(Truncation::End).with_max_tokens(5);
        assert!(refusal(&short, " {\"a\": 1}").contains("cut off after 5 tokens"));
        // where all is scored the fields are the same
        let everything = plain.with_scored(ScoredPart::Everything);
        let item = TextItem::completion("q7", "who", " {\"a\": 1}");
        let all = StructuredText::new(&item, &everything, &tokenizer(false)).unwrap();
        assert_eq!(places(&all), places(&found(&item, false)));
    }
}
