//! Answers questions with an adapter and the posterior beside it: JSON Lines in, JSON Lines out, in the same order and in
//! bounded memory. No training data are needed.
//!
//! ```sh
//! cargo run --release --example serve_file -- --model SmolLM2-135M-Instruct --adapter my_adapter \
//!   --form continuation --prompt question --questions questions.jsonl --out answers.jsonl
//! cat questions.jsonl | cargo run --release --example serve_file -- … --questions - | jq .uncertainty
//! ```
//!
//! A question is a line of a task file, `{"id", "question", "choices", "passage"?, "answer"?}`, and must be asked in the way in
//! which the adapter was trained. Where answers are given, standard error gets accuracy, NLL and ECE. What an answer holds:
//! `examples/answers/mod.rs`. Without `--model` it works offline, on what `bayesianize` leaves without `--model`.

mod answers;
#[path = "experiment/ending.rs"]
mod ending;
#[path = "offline/command_line.rs"]
mod offline;
#[path = "experiment/questions.rs"]
mod questions;

use answers::Answerer;
use bayes_lora::data::Tokenizer;
use bayes_lora::lora::load_peft;
use bayes_lora::models::Pretrained;
use bayes_lora::posterior::{Laplace, POSTERIOR_FILE};
use bayes_lora::progress::Control;
use burn::tensor::Device;
use clap::Parser;
use ending::end;
use offline::command_line;
use questions::QuestionArguments;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[derive(Parser)]
#[command(about = "Answer a JSONL file of questions with calibrated probabilities and their uncertainty")]
struct Arguments {
    /// Hugging Face directory of the base: config.json, safetensors, tokenizer.json.
    #[arg(long)]
    model: PathBuf,
    /// The directory with the adapter and its posterior.
    #[arg(long)]
    adapter: PathBuf,
    /// JSONL or JSONL.gz; `-` reads standard input, and answers after every 256 lines.
    #[arg(long)]
    questions: PathBuf,
    #[command(flatten)]
    form: QuestionArguments,
    /// A file for the answers, which appears when all are there; without it they go to standard output as they come.
    #[arg(long)]
    out: Option<PathBuf>,
}

fn main() -> ExitCode {
    end(run(&Arguments::parse_from(command_line(("--questions", "test.jsonl.gz"), &[]))))
}

fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let Arguments { model, adapter, questions, form, out } = arguments;
    let control = Control::with_bars().with_workers(2)?;
    // The posterior is about the language model: the way of asking joins it with the questions, so that a file which does not
    // fit is refused before the first of them is read.
    let (base, report) = Pretrained::from_dir(model)?.load_with_report(&Device::flex())?;
    if !report.is_empty() {
        eprintln!("{report}");
    }
    let (lm, _) = load_peft(base, adapter)?;
    let laplace = Laplace::load(adapter.join(POSTERIOR_FILE), &lm)?;
    let tokenizer = Tokenizer::from_dir(model)?;
    let answerer = |control| Answerer { lm, laplace, tokenizer, questions: form, control };
    let tally = match out {
        // a signal must not leave the unfinished file behind; without one it may end the program at once
        Some(out) => answerer(control.with_signals()?).answer_into_file(questions, out)?,
        None => answerer(control).answer(questions, &mut std::io::stdout().lock(), Path::new("standard output"))?,
    };
    eprintln!("{}", tally.summary()?);
    Ok(())
}
