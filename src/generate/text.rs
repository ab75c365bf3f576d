//! Turns tokens into text as they come, whole characters at a time.

use crate::data::Tokenizer;
use crate::error::Result;

/// Tokens before an answer that are decoded with it: a tokenizer may write the first token of a text in another way than a later one.
const BEFORE: usize = 6;
/// What stands for bytes that are no whole character (yet).
const REPLACEMENT: char = '\u{FFFD}';

/// The text of an answer, token by token.
///
/// The texts given behind each other are what the tokenizer makes of the prompt's end and the answer, without what it makes of the prompt's
/// end: special tokens are left out, a character of several tokens comes with the last of them, and bytes that never become one come as U+FFFD.
#[derive(Debug, Clone)]
pub(super) struct TextStream {
    ids: Vec<u32>,
    /// Where the tokens begin that are decoded together: those up to `read` have been given.
    from: usize,
    read: usize,
}

impl TextStream {
    /// Behind a prompt.
    pub(super) fn new(prompt: &[u32]) -> Self {
        let ids = prompt[prompt.len().saturating_sub(BEFORE)..].to_vec();
        Self { from: 0, read: ids.len(), ids }
    }

    /// Adds a token; gives the text that is whole now.
    pub(super) fn push(&mut self, id: u32, tokenizer: &Tokenizer) -> Result<String> {
        self.ids.push(id);
        let new = self.new_text(tokenizer)?;
        if new.is_empty() || new.ends_with(REPLACEMENT) {
            return Ok(String::new());
        }
        (self.from, self.read) = (self.read, self.ids.len());
        Ok(new)
    }

    /// The rest: what was held back and will not be completed.
    pub(super) fn finish(&mut self, tokenizer: &Tokenizer) -> Result<String> {
        let new = self.new_text(tokenizer)?;
        self.read = self.ids.len();
        Ok(new)
    }

    fn new_text(&self, tokenizer: &Tokenizer) -> Result<String> {
        if self.read == self.ids.len() {
            return Ok(String::new());
        }
        let before = tokenizer.decode_text(&self.ids[self.from..self.read])?;
        let all = tokenizer.decode_text(&self.ids[self.from..])?;
        let common = before.chars().zip(all.chars()).take_while(|(a, b)| a == b).map(|(a, _)| a.len_utf8()).sum();
        Ok(all[common..].to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Byte-pair encoding with byte fallback.
    fn tokenizer() -> Tokenizer {
        Tokenizer::from_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/assets/stories260K")).unwrap()
    }

    fn pieces(prompt: &[u32], answer: &[u32]) -> Vec<String> {
        let (tokenizer, mut stream) = (tokenizer(), TextStream::new(prompt));
        let mut pieces: Vec<String> = answer.iter().map(|id| stream.push(*id, &tokenizer).unwrap()).collect();
        pieces.push(stream.finish(&tokenizer).unwrap());
        pieces
    }

    #[test]
    fn pieces_are_whole_characters_and_together_the_text() {
        let tokenizer = tokenizer();
        let text = " na\u{ef}ve \u{2014} \u{65e5}\u{672c}\u{8a9e} \u{1f389} ok";
        for prompt in ["", "Once", "Once upon a time, there was"] {
            let before = tokenizer.encode(prompt, true).unwrap();
            let all = tokenizer.encode(&format!("{prompt}{text}"), true).unwrap();
            assert_eq!(all[..before.len()], before);
            let found = pieces(&before, &all[before.len()..]);
            // `Strip` takes the blank at the very beginning of a text
            let expected = if prompt.is_empty() { text.trim_start() } else { text };
            assert_eq!(found.concat(), expected, "{prompt}");
            assert!(!found.concat().contains(REPLACEMENT));
            // a party popper is four tokens
            assert!(found.iter().filter(|piece| piece.is_empty()).count() >= 3);
        }
    }

    #[test]
    fn bytes_that_never_become_a_character_come_at_the_end_as_replacements() {
        let tokenizer = tokenizer();
        let all = tokenizer.encode("ok \u{1f389}", true).unwrap();
        let (broken, last) = (&all[..all.len() - 1], all[all.len() - 1]);
        let found = pieces(&all[..1], &broken[1..]);
        assert!(found.concat().starts_with("ok ") && found.concat().ends_with(REPLACEMENT), "{found:?}");
        // in the middle they come once something else follows
        let ok = tokenizer.encode("ok", false).unwrap();
        let found = pieces(&all[..1], &[broken[1..].to_vec(), ok, vec![last]].concat());
        assert!(found.concat().contains("ok") && found.concat().contains(REPLACEMENT), "{found:?}");
    }

    #[test]
    fn special_tokens_have_no_text() {
        let tokenizer = tokenizer();
        let (bos, eos) = (tokenizer.bos_id().unwrap(), tokenizer.eos_id().unwrap());
        let words = tokenizer.encode("Tom ran", true).unwrap();
        assert_eq!(pieces(&[bos], &[&words[1..], &[eos, bos]].concat()).concat(), "Tom ran");
    }
}
