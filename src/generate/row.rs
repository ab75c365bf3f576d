//! One answer while it grows.

use super::answer::{Answer, Ended, Piece, Token};
use super::request::Request;
use super::setup::Setup;
use super::stop::StopFilter;
use super::text::TextStream;
use crate::error::Result;

#[derive(Debug)]
pub(super) struct Row {
    pub(super) request: Request,
    text: String,
    tokens: Vec<Token>,
    /// How many of them have been given with a piece.
    given: usize,
    words: TextStream,
    stop: StopFilter,
    ended: Option<Ended>,
}

impl Row {
    pub(super) fn new(request: Request, setup: &Setup) -> Self {
        Self {
            text: String::new(),
            tokens: Vec::new(),
            given: 0,
            words: TextStream::new(&request.ids),
            stop: StopFilter::new(&setup.config.stop),
            ended: None,
            request,
        }
    }

    /// How many tokens it has.
    pub(super) fn n_tokens(&self) -> usize {
        self.tokens.len()
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended.is_some()
    }

    /// What the network has not seen: the prompt at first, then the last token.
    pub(super) fn unseen(&self) -> Vec<u32> {
        self.tokens.last().map_or_else(|| self.request.ids.clone(), |token| vec![token.id])
    }

    /// All tokens so far, the prompt's included.
    pub(super) fn seen(&self) -> impl Iterator<Item = &u32> {
        self.request.ids.iter().chain(self.tokens.iter().map(|token| &token.id))
    }

    /// Adds a token; gives a piece where there is new text or an end. `index` is that of the request.
    pub(super) fn push(&mut self, index: usize, token: Token, setup: &Setup) -> Result<Option<Piece>> {
        let Setup { network, tokenizer, config, end_tokens } = setup;
        self.tokens.push(token);
        let n = self.tokens.len();
        let mut text = String::new();
        if end_tokens.contains(&token.id) {
            self.ended = Some(Ended::EndToken(token.id));
        } else {
            let new = self.words.push(token.id, tokenizer)?;
            self.take(&new, &mut text);
            if self.ended.is_none() && config.max_new_tokens.is_some_and(|most| n >= most) {
                self.ended = Some(Ended::MaxNewTokens);
            } else if self.ended.is_none() && self.request.ids.len() + n > network.context() {
                self.ended = Some(Ended::Context);
            }
        }
        if self.ended.is_some() && !matches!(self.ended, Some(Ended::StopString(_))) {
            let rest = self.words.finish(tokenizer)?;
            self.take(&rest, &mut text);
            text += &self.stop.finish();
        }
        if text.is_empty() && self.ended.is_none() {
            return Ok(None);
        }
        self.text += &text;
        let tokens = self.tokens[self.given..].to_vec();
        self.given = n;
        Ok(Some(Piece { request: index, text, tokens, ended: self.ended.clone() }))
    }

    /// Passes new text through the stop strings.
    fn take(&mut self, new: &str, text: &mut String) {
        let (sure, stopped) = self.stop.push(new);
        *text += &sure;
        if let Some(stop) = stopped {
            self.ended = Some(Ended::StopString(stop));
        }
    }

    /// The answer as it stands.
    pub(super) fn answer(&self) -> Answer {
        Answer {
            key: self.request.key.clone(),
            text: self.text.clone(),
            tokens: self.tokens.clone(),
            ended: self.ended.clone().unwrap_or(Ended::Cancelled),
        }
    }
}
