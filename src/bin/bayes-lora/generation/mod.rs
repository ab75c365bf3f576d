//! What `generate` and `chat` share: flags, the generator, and an answer as it comes.

mod shade;
mod stream;

pub use stream::{Look, told, write_answer};

use crate::adapted::{Adapted, AdaptedArguments};
use crate::session::{Outcome, Session};
use bayes_lora::data::Tokenizer;
use bayes_lora::generate::{GenerationConfig, Generator};
use bayes_lora::models::CausalLm;
use clap::Args;

/// Draws where the command line says nothing.
const DRAWS: usize = 8;

#[derive(Args)]
pub struct GenerationArguments {
    #[command(flatten)]
    pub adapted: AdaptedArguments,
    /// Draws of the posterior that read and write together [default: 8]
    #[arg(long, value_name = "N")]
    draws: Option<usize>,
    /// Seed of drawn tokens and of the posterior's draws
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Go on with the text as it is, even if the model has a chat template
    #[arg(long)]
    pub raw: bool,
    #[command(flatten)]
    choice: ChoiceArguments,
}

#[derive(Args)]
#[command(next_help_heading = "Choice of tokens (what is left out is as the model's files say)")]
struct ChoiceArguments {
    /// Draw tokens at this temperature; 0 takes the likeliest each time
    #[arg(long, value_name = "T")]
    temperature: Option<f64>,
    /// Draw from the N likeliest tokens
    #[arg(long, value_name = "N")]
    top_k: Option<usize>,
    /// Draw from the likeliest tokens that have this probability together
    #[arg(long, value_name = "P")]
    top_p: Option<f64>,
    /// Draw from tokens with at least this share of the likeliest one's probability
    #[arg(long, value_name = "P")]
    min_p: Option<f64>,
    /// Divide what speaks for tokens that are there already by this
    #[arg(long, value_name = "X")]
    repetition_penalty: Option<f64>,
    /// End an answer before this text; may be given several times
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
    /// Most tokens of an answer
    #[arg(long, value_name = "N", default_value_t = 128)]
    max_new_tokens: usize,
}

impl GenerationArguments {
    pub fn load(&self, session: &Session) -> Outcome<Adapted<CausalLm>> {
        self.adapted.load(session, |lm| lm)
    }

    /// The adapter, or its posterior's draws where there is one.
    pub fn generator<'a>(&self, adapted: &'a Adapted<CausalLm>, batch: usize) -> Outcome<Generator<'a>> {
        let own = GenerationConfig::from_dir(self.adapted.dir())?;
        if self.draws.is_some() && adapted.laplace.is_none() {
            return Err("--draws: there is no posterior to draw from".into());
        }
        let config = self.choice.settings(own)?.with_seed(self.seed).with_batch_size(batch);
        let generator = Generator::new(&adapted.model, &adapted.tokenizer, config)?;
        Ok(match &adapted.laplace {
            Some(laplace) => generator.with_posterior(laplace, self.draws(), self.seed)?,
            None => generator,
        })
    }

    pub fn draws(&self) -> usize {
        self.draws.unwrap_or(DRAWS)
    }

    /// Whether prompts are put as a user's messages.
    pub fn asks_in_chat(&self, tokenizer: &Tokenizer) -> bool {
        tokenizer.has_chat_template() && !self.raw
    }
}

impl ChoiceArguments {
    /// The model's own settings, but for what was asked for.
    fn settings(&self, mut config: GenerationConfig) -> Outcome<GenerationConfig> {
        let Self { temperature, top_k, top_p, min_p, repetition_penalty, ref stop, max_new_tokens } = *self;
        let narrows = top_k.is_some() || top_p.is_some() || min_p.is_some();
        if temperature == Some(0.0) && narrows {
            return Err("--temperature 0 draws no token: --top-k, --top-p and --min-p are without meaning".into());
        }
        if temperature.is_some() || narrows {
            config = config.with_greedy(false);
        }
        config = match temperature {
            Some(0.0) => config.with_greedy(true),
            Some(temperature) => config.with_temperature(temperature),
            None => config,
        };
        if top_k.is_some() {
            config = config.with_top_k(top_k);
        }
        if let Some(top_p) = top_p {
            config = config.with_top_p(top_p);
        }
        if let Some(min_p) = min_p {
            config = config.with_min_p(min_p);
        }
        if let Some(penalty) = repetition_penalty {
            config = config.with_repetition_penalty(penalty);
        }
        Ok(config.with_max_new_tokens(max_new_tokens).with_stop(stop.iter().cloned()))
    }
}
