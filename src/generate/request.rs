//! What is to be answered.

use crate::data::Tokenizer;
use crate::draws::{place, within};
use crate::error::{Error, Result};

/// A prompt in tokens, with the key that names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Its name: drawn tokens depend on it, and on nothing beside it in a batch.
    pub key: String,
    /// Its tokens.
    pub ids: Vec<u32>,
    /// Which of several answers to it; drawn tokens depend on it, too.
    pub answer: u64,
}

impl Request {
    /// The request that tokens are gone on with.
    pub fn new(key: impl Into<String>, ids: Vec<u32>) -> Self {
        Self { key: key.into(), ids, answer: 0 }
    }

    /// The request that a text is gone on with.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn text(tokenizer: &Tokenizer, key: impl Into<String>, text: &str) -> Result<Self> {
        Ok(Self::new(key, tokenizer.encode(text, true)?))
    }

    /// The request that the assistant answers a user's message.
    ///
    /// # Errors
    /// As [`Tokenizer::chat_prompt`].
    pub fn chat(tokenizer: &Tokenizer, key: impl Into<String>, user: &str) -> Result<Self> {
        Ok(Self::new(key, tokenizer.encode(&tokenizer.chat_prompt(user)?, false)?))
    }

    /// The same request for another answer.
    pub fn with_answer(mut self, answer: u64) -> Self {
        self.answer = answer;
        self
    }

    /// Where its drawn tokens come from.
    pub(super) fn place(&self) -> u64 {
        within(place(&self.key), self.answer)
    }

    /// Checks that a network can read it.
    pub(super) fn check(&self, vocabulary: usize, context: usize) -> Result<()> {
        let Self { key, ids, .. } = self;
        if ids.is_empty() {
            return Err(Error::empty(format!("prompt `{key}`")));
        }
        if ids.len() > context {
            let bound = format!("at most the context's {context}");
            return Err(Error::config(format!("tokens of prompt `{key}`"), bound, ids.len()));
        }
        check_ids(&format!("token of prompt `{key}`"), ids, vocabulary)
    }
}

/// Checks that a vocabulary has all of the ids.
pub(super) fn check_ids(what: &str, ids: &[u32], vocabulary: usize) -> Result<()> {
    match ids.iter().find(|id| **id as usize >= vocabulary) {
        Some(id) => Err(Error::config(what, format!("below the vocabulary's {vocabulary}"), id)),
        None => Ok(()),
    }
}
