//! Loads the model of a directory or a file, and says what its files hold beyond their configuration.

use crate::session::{Outcome, Session};
use bayes_lora::Error;
use bayes_lora::data::Tokenizer;
use bayes_lora::lora::TrainedHead;
use bayes_lora::lora::{Adaptable, LoraConfig, attach, load_peft, read_adapter, write_adapter};
use bayes_lora::models::{CausalLm, Encoder, LoadReport, LoadedDecoder, Pretrained, PretrainedEncoder};
use std::path::Path;

/// Where a model's family stands: in a `config.json`, and in a GGUF file.
const FAMILY: [&str; 2] = ["model_type", "general.architecture"];

/// A network without adapter, with the head of a checkpoint that classifies or rewards.
pub enum Network {
    Decoder(Box<(CausalLm, Option<TrainedHead>)>),
    Encoder(Box<(Encoder, Option<TrainedHead>)>),
}

/// Goes on with the network and the head of a [`Network`], whichever kind it is of.
macro_rules! with_network {
    ($loaded:expr, |$network:ident, $head:ident| $body:expr) => {
        match $loaded {
            $crate::base::Network::Decoder(loaded) => {
                let ($network, $head) = *loaded;
                $body
            }
            $crate::base::Network::Encoder(loaded) => {
                let ($network, $head) = *loaded;
                $body
            }
        }
    };
}
pub(crate) use with_network;

/// A language model on disk: a Hugging Face directory, or a GGUF file.
pub fn pretrained(model: &Path) -> Outcome<Pretrained> {
    #[cfg(feature = "gguf")]
    if is_gguf(model) {
        return Ok(Pretrained::from_gguf(model)?);
    }
    Ok(Pretrained::from_dir(model)?)
}

#[cfg(feature = "gguf")]
fn is_gguf(model: &Path) -> bool {
    model.extension().is_some_and(|ending| ending == "gguf")
}

/// The language model without adapter.
pub fn load_base(model: &Path, session: &Session) -> Outcome<CausalLm> {
    let (lm, report) = pretrained(model)?.load_with_report(session.device())?;
    tell(&report, session);
    Ok(lm)
}

/// An encoder, if the directory or the GGUF file has one.
pub fn encoder(model: &Path) -> Outcome<Option<PretrainedEncoder>> {
    let opened = match model {
        #[cfg(feature = "gguf")]
        file if is_gguf(file) => PretrainedEncoder::from_gguf(file),
        dir => PretrainedEncoder::from_dir(dir),
    };
    match opened {
        Ok(encoder) => Ok(Some(encoder)),
        // another family: a decoder's
        Err(Error::Unsupported { what, .. }) if FAMILY.iter().any(|key| what.ends_with(key)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The network of a directory or a file, whichever kind it is of.
pub fn load_network(model: &Path, session: &Session) -> Outcome<Network> {
    let Some(encoder) = encoder(model)? else {
        let LoadedDecoder { lm, head, report } = pretrained(model)?.load_with_head(session.device())?;
        tell(&report, session);
        return Ok(Network::Decoder(Box::new((lm, head))));
    };
    let loaded = encoder.load(session.device())?;
    tell(&loaded.report, session);
    Ok(Network::Encoder(Box::new((loaded.encoder, loaded.head))))
}

/// The tokenizer of a model: in its directory, or in that of its file.
pub fn tokenizer(model: &Path) -> Outcome<Tokenizer> {
    let dir = if model.is_file() { model.parent().unwrap_or(Path::new("")) } else { model };
    Ok(Tokenizer::from_dir(dir)?)
}

fn tell(report: &LoadReport, session: &Session) {
    if !report.is_empty() {
        session.say(report);
    }
}

/// The seed of the start from which `bayes-lora train` trained an adapter, as the settings beside it say.
pub fn start_of(adapter: &Path) -> Option<u64> {
    let text = std::fs::read_to_string(adapter.join("run.toml")).ok()?;
    let is_of_training = text.lines().next()?.contains("bayes-lora train ");
    let seed = text.parse::<toml::Table>().ok()?.get("seed")?.as_integer()?;
    u64::try_from(seed).ok().filter(|_| is_of_training)
}

/// The same, which the user is told.
pub fn told_start_of(adapter: &Path, session: &Session) -> Option<u64> {
    let seed = start_of(adapter)?;
    session.say(format_args!("trained by `bayes-lora train --seed {seed}`: the prior is centred on its start"));
    Some(seed)
}

/// Puts an adapter on its base. `start` is the seed from which it was trained here, where that is known: the prior is then centred on
/// that start.
pub fn adapted<M: Adaptable>(base: M, dir: &Path, start: Option<u64>) -> Outcome<(M, LoraConfig)> {
    let (model, lora) = load_peft(base.clone(), dir)?;
    let model = match start {
        None => model,
        Some(seed) => write_adapter(attach(base, &lora, seed)?, &read_adapter(&model)?)?,
    };
    Ok((model, lora))
}
