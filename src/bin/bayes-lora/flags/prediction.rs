//! Flags of predictions.

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

#[derive(Args)]
#[command(next_help_heading = "Prediction")]
pub struct PredictionArguments {
    /// How answers are found
    #[arg(long, value_enum, default_value = "linearized")]
    pub method: Method,
    /// Draws of the adapter, with `--method sampled`
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub draws: usize,
    /// Ask as the flags say, even where the posterior was fitted on questions that were asked in another way
    #[arg(long)]
    pub insist: bool,
}

impl PredictionArguments {
    pub fn predictive(&self, seed: u64) -> Predictive {
        match self.method {
            Method::Linearized => Predictive::default(),
            Method::Map => Predictive::Map,
            Method::Sampled => Predictive::Sampled { n_samples: self.draws, seed },
        }
    }
}
