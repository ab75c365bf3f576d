//! Flags of predictions.

use crate::session::Outcome;
use bayes_lora::predict::Predictive;
use clap::{Args, ValueEnum};

#[derive(Clone, Copy, ValueEnum)]
pub enum Method {
    /// The network linearised around the trained adapter
    Linearized,
    /// The trained adapter alone
    Map,
    /// The network at draws of the adapter
    Sampled,
}

/// Draws where the command line says nothing.
const DRAWS: usize = 10;

#[derive(Args)]
#[command(next_help_heading = "Prediction")]
pub struct PredictionArguments {
    /// How answers are found
    #[arg(long, value_enum, default_value = "linearized")]
    pub method: Method,
    /// Draws of the adapter, with `--method sampled` [default: 10]
    #[arg(long, value_name = "N")]
    pub draws: Option<usize>,
    /// Ask as the flags say, even where the posterior was fitted on questions that were asked in another way
    #[arg(long)]
    pub insist: bool,
}

impl PredictionArguments {
    pub fn predictive(&self, seed: u64) -> Outcome<Predictive> {
        Ok(match (self.method, self.draws) {
            (Method::Sampled, draws) => Predictive::Sampled { n_samples: draws.unwrap_or(DRAWS), seed },
            (_, Some(_)) => return Err("--draws: nothing is drawn but with `--method sampled`".into()),
            (Method::Linearized, None) => Predictive::default(),
            (Method::Map, None) => Predictive::Map,
        })
    }
}
