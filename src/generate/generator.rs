//! Goes on with texts.

use super::answer::{Answer, Token};
use super::config::GenerationConfig;
use super::network::Network;
use super::next_token::NextTokens;
use super::request::{Request, check_ids};
use super::setup::Setup;
use super::stream::Stream;
use crate::data::Tokenizer;
use crate::error::{Error, Result};
use crate::lora::{AdapterSampler, AdapterWeights};
use crate::models::CausalLm;
use crate::progress::Control;

/// Goes on with texts: a language model at its adapter, or at S draws of it from a posterior.
///
/// With draws, every next token comes from the averaged distribution `p̄ = 1/S Σ_s p_s`, all draws read the same text, and every token tells
/// how much they disagreed. An answer depends on its request alone, never on others in its batch, but for the rounding of sums.
#[derive(Debug)]
pub struct Generator<'a> {
    setup: Setup<'a>,
}

impl<'a> Generator<'a> {
    /// With the model's adapter as it is, or the bare model.
    ///
    /// # Errors
    /// If a setting is out of its bounds, an end token is not in the vocabulary, or answers would never end: no end token, no stop string and
    /// no limit.
    pub fn new(lm: &CausalLm, tokenizer: &'a Tokenizer, config: GenerationConfig) -> Result<Self> {
        Ok(Self { setup: Setup::new(Network::new(lm), tokenizer, config)? })
    }

    /// With draws 0 to `n_draws − 1` of a posterior or an ensemble around the model's adapter: S times the work of one above the base, and
    /// S times the keys and values.
    ///
    /// # Errors
    /// If none is asked for, there is no such draw, or it does not fit the model.
    pub fn with_posterior(self, sampler: &impl AdapterSampler, n_draws: usize, seed: u64) -> Result<Self> {
        if n_draws == 0 {
            return Err(Error::config("n_draws", "at least 1", 0));
        }
        let draws = (0..n_draws).map(|index| sampler.draw(seed, index as u64)).collect::<Result<Vec<_>>>()?;
        self.with_draws(&draws)
    }

    /// With these adapters in the place of the model's own.
    ///
    /// # Errors
    /// If there is none, or one has not the matrices of the model's own.
    pub fn with_draws(mut self, draws: &[AdapterWeights]) -> Result<Self> {
        self.setup.network = self.setup.network.at(draws)?;
        Ok(self)
    }

    /// Starts to answer; the pieces come as they are asked for. Stopped by `control`, it ends with an error and keeps what came.
    ///
    /// # Errors
    /// If a prompt is empty, longer than the context, or has a token that the vocabulary lacks.
    pub fn stream(&self, requests: &[Request], control: &Control) -> Result<Stream<'_>> {
        Stream::new(&self.setup, requests, control)
    }

    /// Answers all requests, in their order.
    ///
    /// # Errors
    /// As [`Generator::stream`]; if the caller cancels, or the network gives logits that are not finite.
    pub fn answers(&self, requests: &[Request], control: &Control) -> Result<Vec<Answer>> {
        let mut stream = self.stream(requests, control)?;
        stream.by_ref().try_for_each(|piece| piece.map(drop))?;
        Ok(stream.answers())
    }

    /// Goes on with one text, which is its own key.
    ///
    /// # Errors
    /// As [`Generator::answers`].
    pub fn answer(&self, text: &str) -> Result<Answer> {
        let request = Request::text(self.setup.tokenizer, text, text)?;
        let mut answers = self.answers(&[request], &Control::silent())?;
        answers.pop().ok_or_else(|| Error::empty("list of answers"))
    }

    /// What generating would have said of each token of a given answer, in one pass over prompt and answer (teacher forcing).
    ///
    /// These are the numbers of a step-by-step answer to rounding, with one exception: LongRoPE chooses the factors of a row by its whole
    /// length, so that of an answer that grows beyond the original context the tokens before differ.
    ///
    /// # Errors
    /// If prompt or answer are empty, both are longer than the context, or a token is not in the vocabulary.
    pub fn follow(&self, request: &Request, answer: &[u32]) -> Result<Vec<Token>> {
        let network = &self.setup.network;
        request.check(network.vocabulary(), network.context())?;
        check_ids(&format!("token of the answer to `{}`", request.key), answer, network.vocabulary())?;
        let Some((_, before_last)) = answer.split_last() else {
            return Err(Error::empty(format!("answer to `{}`", request.key)));
        };
        let row = [&*request.ids, before_last].concat();
        if row.len() > network.context() {
            let bound = format!("at most the context's {}", network.context());
            return Err(Error::config(format!("tokens of prompt `{}` and its answer", request.key), bound, row.len()));
        }
        let mut tokens = Vec::with_capacity(answer.len());
        network.follow(&row, request.ids.len() - 1..row.len(), |logits| {
            let next = NextTokens::new(&logits)?;
            let ids = &answer[tokens.len()..];
            tokens.extend(ids.iter().take(logits.dim().1).enumerate().map(|(place, id)| next.token(place, *id)));
            Ok(())
        })?;
        Ok(tokens)
    }
}
