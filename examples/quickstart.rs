//! A real pretrained language model, its overconfidence after fine-tuning, and the posterior that repairs it: offline, in
//! about a minute on two cores.
//!
//! stories260K (a 1 MB Llama) learns to route MMLU questions to their four areas from 400 questions in eight epochs.
//!
//! ```sh
//! cargo run --release --example quickstart -- --seed 0 --out target/quickstart
//! ```

#[path = "experiment/adapter.rs"]
mod adapter;
#[path = "experiment/ending.rs"]
mod ending;
mod experiment;
#[path = "experiment/splits.rs"]
mod splits;

use bayes_lora::BayesLoraConfig;
use bayes_lora::data::{AnswerForm, BatchLimits, Encoding, PromptTemplate, Task, Tokenizer, Truncation};
use bayes_lora::lora::{LoraConfig, attach, summarize};
use bayes_lora::models::{Pretrained, PromptClassifier};
use bayes_lora::outputs::claim_dir;
use bayes_lora::progress::Control;
use bayes_lora::train::TrainerConfig;
use burn::tensor::Device;
use clap::Parser;
use ending::program;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[derive(Parser)]
#[command(about = "Fine-tune, fit the posterior, predict, compare: on the model and task that ship with the crate")]
struct Arguments {
    /// Seed of the split, the adapter's start, the shuffles and the draws.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Directory for the report and the pictures.
    #[arg(long, default_value = "target/quickstart")]
    out: PathBuf,
}

fn main() -> ExitCode {
    program(|control| run(Arguments::parse(), control))
}

fn run(Arguments { seed, out }: Arguments, control: Control) -> Result<(), Box<dyn Error>> {
    claim_dir(&out, 0)?;
    let assets = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets");
    let tokenizer = Tokenizer::from_dir(assets.join("stories260K"))?;
    // "Question …\nArea:" and one letter an area; the tails of long questions are cut to 64 tokens
    let encoding = Encoding::new(PromptTemplate::question_area(), AnswerForm::class_tokens(["A", "B", "C", "D"]))
        .with_max_tokens(64)
        .with_truncation(Truncation::End);
    let (train, rest) = Task::from_jsonl(assets.join("mmlu_areas/train.jsonl.gz"))?.split(400, seed)?;
    let validation = rest.sample(300, seed)?;
    let test = Task::from_jsonl(assets.join("mmlu_areas/test.jsonl.gz"))?;
    let splits = splits::Splits {
        task: "MMLU areas, stories260K".into(),
        train: encoding.encode(&train, &tokenizer)?,
        validation: encoding.encode(&validation, &tokenizer)?,
        test: encoding.encode(&test, &tokenizer)?,
    };
    println!("{}\n", splits.train.example(0, &tokenizer)?);

    let limits = BatchLimits { max_items: 16, max_tokens: 4096 };
    let bayes = BayesLoraConfig::new(LoraConfig::new(8).with_target_modules(["q_proj", "k_proj", "v_proj", "o_proj"]))
        .with_trainer(TrainerConfig::default().with_epochs(8).with_learning_rate(2e-3).with_limits(limits))
        .with_limits(limits)
        .with_seed(seed);
    let lm = Pretrained::from_dir(assets.join("stories260K"))?.load(&Device::flex())?;
    let model = PromptClassifier::new(lm, &splits.train)?;
    println!("{}", summarize(&attach(model.clone(), &bayes.lora, seed)?));
    let options = experiment::Options { config: bayes, n_draws: 10, trained: None, out: &out };
    experiment::run(model, &splits, options, control)
}
