//! Flags that say which model answers, and what is loaded for it.

use crate::base::{load_base, tokenizer};
use crate::session::{Outcome, Session};
use bayes_lora::data::Tokenizer;
use bayes_lora::lora::{Adaptable, load_peft};
use bayes_lora::models::CausalLm;
use bayes_lora::posterior::{Laplace, POSTERIOR_FILE};
use clap::Args;
use std::path::{Path, PathBuf};

#[derive(Args)]
pub struct AdaptedArguments {
    /// The model: a Hugging Face directory (config.json, safetensors, tokenizer.json), or a GGUF file
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    /// Directory of an adapter, as PEFT writes it; without one the model answers as it is
    #[arg(long, value_name = "DIR")]
    pub adapter: Option<PathBuf>,
    /// Posterior of the adapter [default: posterior.safetensors beside it, if there is one]
    #[arg(long, value_name = "FILE", requires = "adapter")]
    pub posterior: Option<PathBuf>,
    /// Leave a posterior beside the adapter alone
    #[arg(long, conflicts_with = "posterior")]
    pub no_posterior: bool,
}

/// A model with its adapter and their posterior, as far as there are any.
pub struct Adapted<M> {
    pub tokenizer: Tokenizer,
    pub model: M,
    pub laplace: Option<Laplace>,
}

impl AdaptedArguments {
    /// Loads what the flags name; `wrap` makes the model of the network without adapter.
    pub fn load<M: Adaptable>(&self, session: &Session, wrap: impl FnOnce(CausalLm) -> M) -> Outcome<Adapted<M>> {
        let tokenizer = tokenizer(&self.model)?;
        let model = wrap(load_base(&self.model, session)?);
        let Some(adapter) = &self.adapter else { return Ok(Adapted { tokenizer, model, laplace: None }) };
        let model = load_peft(model, adapter)?.0;
        let laplace = match self.posterior()? {
            Some(file) => Some(Laplace::load(file, &model)?),
            None => None,
        };
        Ok(Adapted { tokenizer, model, laplace })
    }

    /// Where the model's settings are: its directory, or that of its file.
    pub fn dir(&self) -> &Path {
        if self.model.is_file() { self.model.parent().unwrap_or(Path::new("")) } else { &self.model }
    }

    fn posterior(&self) -> Outcome<Option<PathBuf>> {
        if self.posterior.is_some() || self.no_posterior {
            return Ok(self.posterior.clone());
        }
        let beside = self.adapter.as_ref().map(|adapter| adapter.join(POSTERIOR_FILE));
        Ok(match beside {
            Some(file) if file.try_exists()? => Some(file),
            _ => None,
        })
    }
}
