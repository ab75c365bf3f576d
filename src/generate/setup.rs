//! What all answers of a generator share.

use super::config::GenerationConfig;
use super::network::Network;
use super::request::check_ids;
use crate::data::Tokenizer;
use crate::error::{Error, Result};

#[derive(Debug)]
pub(super) struct Setup<'a> {
    pub(super) network: Network,
    pub(super) tokenizer: &'a Tokenizer,
    pub(super) config: GenerationConfig,
    pub(super) end_tokens: Vec<u32>,
}

impl<'a> Setup<'a> {
    pub(super) fn new(network: Network, tokenizer: &'a Tokenizer, config: GenerationConfig) -> Result<Self> {
        config.validate()?;
        let end_tokens = match &config.end_tokens {
            Some(given) => given.clone(),
            None => tokenizer.eos_id().into_iter().collect(),
        };
        check_ids("end token", &end_tokens, network.vocabulary())?;
        if end_tokens.is_empty() && config.stop.is_empty() && config.max_new_tokens.is_none() {
            let reason =
                "no end token is known, no stop string and no `max_new_tokens` are set: an answer would never end";
            return Err(Error::Incompatible(reason.into()));
        }
        Ok(Self { network, tokenizer, config, end_tokens })
    }
}
