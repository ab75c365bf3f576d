//! Finds the one token that each class adds after a prompt.

use super::tokens::Tokenizer;
use crate::error::{Error, Result};

impl Tokenizer {
    /// Finds the token `t` with `encode(context + class) = encode(context) ‖ t`.
    ///
    /// Asking a causal language model for a class by one token means comparing the probabilities of those tokens at the
    /// prompt's last position. That is right only if the class's text, written after the prompt, is exactly one more
    /// token and leaves the prompt's own tokens as they are.
    ///
    /// ```
    /// use bayes_lora::data::Tokenizer;
    ///
    /// let json = br#"{"version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
    ///     "pre_tokenizer": {"type": "Whitespace"}, "post_processor": null, "decoder": null,
    ///     "model": {"type": "WordLevel", "vocab": {"?": 0, "Answer": 1, ":": 2, "yes": 3, "no": 4}, "unk_token": "?"}}"#;
    /// let tokenizer = Tokenizer::from_bytes(json)?;
    /// assert_eq!(tokenizer.class_token("Answer:", " yes")?, 3);
    /// let error = tokenizer.class_token("Answer:", " no no").unwrap_err();
    /// assert!(error.to_string().contains("2 tokens"));
    /// # Ok::<(), bayes_lora::error::Error>(())
    /// ```
    ///
    /// `context` is the prompt (or its end, if the tokens there do not depend on what precedes them); it gets the
    /// BOS token as in [`encode`](Tokenizer::encode).
    ///
    /// # Errors
    /// [`Error::ClassNotOneToken`] with the tokens that `class` becomes, and those of the context that it merges with.
    pub fn class_token(&self, context: &str, class: &str) -> Result<u32> {
        self.class_token_after(context, &self.encode(context, true)?, class, true)
    }

    /// Finds the [token](Tokenizer::class_token) of each class.
    ///
    /// # Errors
    /// [`Error::ClassNotOneToken`], or [`Error::ClassesCollide`] when two classes are the same token.
    pub fn class_tokens(&self, context: &str, classes: &[String]) -> Result<Vec<u32>> {
        self.class_tokens_after(context, classes, true)
    }

    /// As [`class_tokens`](Tokenizer::class_tokens); a chat prompt brings its own special tokens.
    pub(crate) fn class_tokens_after(&self, context: &str, classes: &[String], add_special: bool) -> Result<Vec<u32>> {
        let context_ids = self.encode(context, add_special)?;
        let mut tokens: Vec<u32> = Vec::with_capacity(classes.len());
        for class in classes {
            let token = self.class_token_after(context, &context_ids, class, add_special)?;
            if let Some(earlier) = tokens.iter().position(|t| *t == token) {
                return Err(Error::ClassesCollide { first: classes[earlier].clone(), second: class.clone(), token });
            }
            tokens.push(token);
        }
        Ok(tokens)
    }

    fn class_token_after(&self, context: &str, context_ids: &[u32], class: &str, add_special: bool) -> Result<u32> {
        let both = self.encode(&format!("{context}{class}"), add_special)?;
        let common = common_prefix(context_ids, &both);
        let added = both.get(common..).unwrap_or_default();
        if let (true, [token]) = (common == context_ids.len(), added) {
            return Ok(*token);
        }
        let names = |ids: &[u32]| ids.iter().map(|id| self.token(*id)).collect();
        let replaced = context_ids.get(common..).unwrap_or_default();
        Err(Error::ClassNotOneToken { class: class.to_owned(), tokens: names(added), replaced: names(replaced) })
    }
}

/// The length of the longest common beginning.
pub(crate) fn common_prefix(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(x, y)| x == y).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::tiny;

    #[test]
    fn a_class_of_one_piece_is_found_after_the_prompt() {
        let pieces = tiny::pieces();
        let token = pieces.class_token("a:", "b").unwrap();
        assert_eq!(pieces.token(token), "b");
    }

    #[test]
    fn a_class_of_two_pieces_is_refused_with_both_named() {
        let Err(Error::ClassNotOneToken { class, tokens, .. }) = tiny::pieces().class_token("a:", " b") else {
            panic!("expected an error");
        };
        assert_eq!((class.as_str(), tokens), (" b", vec!["▁".to_owned(), "b".to_owned()]));
    }

    #[test]
    fn a_class_that_merges_with_the_prompt_is_refused_and_says_so() {
        // `▁c` is a piece, so a prompt that ends in a space loses its last token to it.
        let error = tiny::pieces().class_token("a: ", "c").unwrap_err().to_string();
        assert!(error.contains("but is 1 token: [\"▁c\"], in place of the prompt's [\"▁\"]"), "{error}");
        assert!(tiny::pieces().class_token("a: ", "b").is_ok());
    }

    #[test]
    fn an_empty_class_adds_no_token() {
        let error = tiny::words().class_token("is it", "").unwrap_err().to_string();
        assert!(error.contains("is 0 tokens"), "{error}");
    }

    #[test]
    fn classes_that_are_the_same_token_are_refused() {
        let classes = ["yes".to_owned(), "no".to_owned(), "yes".to_owned()];
        assert!(matches!(tiny::words().class_tokens("is it? ", &classes), Err(Error::ClassesCollide { token: 3, .. })));
        // Both are unknown words, so both become the unknown token.
        let unknown = ["maybe".to_owned(), "never".to_owned()];
        assert!(tiny::words().class_tokens("is it? ", &unknown).is_err());
    }
}
