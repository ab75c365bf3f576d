//! `bayes-lora merge`.

mod adapter;
mod curvature;

use crate::session::{Outcome, Session};
use adapter::Adapter;
use clap::{Args, Subcommand};
use curvature::MergeCurvature;

/// Fold an adapter into its base, or join the sums of shards into one posterior
#[derive(Args)]
#[command(
    subcommand_required = true,
    after_help = "Examples:\n  bayes-lora merge adapter --model SmolLM2-135M --adapter my_adapter --out merged\n  bayes-lora merge curvature my_adapter/posterior.shard-*.safetensors --model SmolLM2-135M --adapter my_adapter --prior evidence"
)]
pub struct Merge {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    Adapter(Adapter),
    Curvature(Box<MergeCurvature>),
}

impl Merge {
    pub fn run(&self, session: &Session) -> Outcome {
        match &self.what {
            What::Adapter(command) => command.run(session),
            What::Curvature(command) => command.run(session),
        }
    }
}
