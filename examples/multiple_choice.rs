//! Any Hugging Face directory (Llama or Qwen2 family), any task file: fine-tune, fit the posterior, predict, compare.
//!
//! ```sh
//! cargo run --release --example multiple_choice -- --model SmolLM2-135M-Instruct \
//!   --train arc_easy/train.jsonl.gz --test arc_easy/test.jsonl.gz --form continuation --n-train 1000 --n-test 500
//! ```

#[path = "experiment/adapter.rs"]
mod adapter;
#[path = "experiment/base.rs"]
mod base;
#[path = "experiment/ending.rs"]
mod ending;
mod experiment;
#[path = "experiment/items.rs"]
mod items;
#[path = "experiment/questions.rs"]
mod questions;
#[path = "experiment/splits.rs"]
mod splits;
#[path = "experiment/task.rs"]
mod task;

use bayes_lora::BayesLoraConfig;
use bayes_lora::curvature::{CurvatureConfig, CurvatureStructure, FisherKind};
use bayes_lora::outputs::claim_dir;
use bayes_lora::progress::Control;
use clap::Parser;
use ending::program;
use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use task::TaskArguments;

#[derive(Parser)]
#[command(
    about = "Bayesian LoRA on a multiple-choice task; defaults of the Laplace-LoRA paper: r = 8, alpha = 16, q_proj and v_proj"
)]
struct Arguments {
    #[command(flatten)]
    task: TaskArguments,
    /// Labels drawn an item for the Fisher information; 0 takes the exact one.
    #[arg(long, default_value_t = 0)]
    fisher_samples: usize,
    /// How the curvature is held: "Kronecker", "EKFAC", "core space", "function space" …
    #[arg(long, default_value_t = CurvatureStructure::Kronecker)]
    structure: CurvatureStructure,
    /// Draws of the weights for the sampled predictive.
    #[arg(long, default_value_t = 10)]
    draws: usize,
    #[arg(long, default_value = "target/multiple_choice")]
    out: PathBuf,
    /// Take the adapter that an earlier run with the same flags left in this directory.
    #[arg(long)]
    trained: Option<PathBuf>,
}

fn main() -> ExitCode {
    program(|control| run(Arguments::parse(), control))
}

fn run(arguments: Arguments, control: Control) -> Result<(), Box<dyn Error>> {
    let Arguments { task, fisher_samples, structure, draws, out, trained } = arguments;
    claim_dir(&out, 0)?;
    let splits = task.splits()?;
    let (limits, seed) = (task.questions.limits(), task.items.seed);
    let fisher = match fisher_samples {
        0 => FisherKind::Exact,
        n => FisherKind::Sampled { n, seed },
    };
    let config = BayesLoraConfig::new(task.lora())
        .with_trainer(task.trainer().with_log(out.join("train.jsonl")))
        .with_curvature(CurvatureConfig::new(structure).with_fisher(fisher))
        .with_limits(limits)
        .with_seed(seed);
    let model = task.model(&splits.train)?;
    let options = experiment::Options { config, n_draws: draws, trained: trained.as_deref(), out: &out };
    experiment::run(model, &splits, options, control)
}
