//! Answers questions with an adapter and its posterior: JSON Lines in, JSON Lines out, in the same order and in bounded memory. No
//! training data are needed.
//!
//! ```sh
//! cargo run --release --example serve_file -- --model SmolLM2-135M-Instruct --adapter my_adapter \
//!   --questions questions.jsonl --out answers.jsonl
//! cat questions.jsonl | cargo run --release --example serve_file -- … --questions - | jq .uncertainty
//! ```
//!
//! A question is a line of a task file, `{"id", "question", "choices", "passage"?, "answer"?}`. It is asked as the questions were that
//! the posterior was fitted on, for the posterior remembers it; flags that say otherwise are refused, unless `--insist` is one of
//! them. Where answers are given, standard error gets accuracy, NLL and ECE. What an answer holds:
//! `examples/answers/mod.rs`. Without `--model` it works offline, on what `bayesianize` leaves without `--model`.

mod answers;
#[path = "experiment/base.rs"]
mod base;
#[path = "experiment/ending.rs"]
mod ending;
#[path = "offline/command_line.rs"]
mod offline;
#[path = "experiment/questions.rs"]
mod questions;

use answers::{Answerer, claim_answers};
use base::load_base;
use bayes_lora::data::{Asked, Encoding, Tokenizer};
use bayes_lora::lora::load_peft;
use bayes_lora::posterior::{Laplace, POSTERIOR_FILE};
use bayes_lora::progress::Control;
use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser};
use ending::program;
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
    /// The adapter's directory, as PEFT writes it.
    #[arg(long)]
    adapter: PathBuf,
    /// The posterior's file, where it does not lie beside the adapter.
    #[arg(long)]
    posterior: Option<PathBuf>,
    /// JSONL or JSONL.gz; `-` reads standard input, and answers after every 256 lines.
    #[arg(long)]
    questions: PathBuf,
    #[command(flatten)]
    form: QuestionArguments,
    /// Ask as the flags say, even if the posterior was fitted on questions that were asked in another way.
    #[arg(long)]
    insist: bool,
    /// A file for the answers, which appears when all are there; without it they go to standard output as they come.
    #[arg(long)]
    out: Option<PathBuf>,
}

fn main() -> ExitCode {
    let matches = Arguments::command().get_matches_from(command_line(("--questions", "test.jsonl.gz"), &[]));
    program(|control| run(&matches, control))
}

/// The posterior's way of asking, but for what flags say that were given.
fn asked_over(flags: &QuestionArguments, posterior: &Encoding, matches: &ArgMatches) -> Encoding {
    let given = |flag: &str| matches.value_source(flag) == Some(ValueSource::CommandLine);
    let (own, mut encoding) = (flags.encoding(), posterior.clone());
    if given("prompt") {
        encoding.template = own.template;
    }
    if ["form", "classes", "per_character"].into_iter().any(given) {
        encoding.answers = own.answers;
    }
    if given("max_tokens") {
        encoding.max_tokens = own.max_tokens;
    }
    encoding.chat |= own.chat;
    encoding
}

/// What sets a way of asking apart from the posterior's, as far as it is known before the first question.
fn differences(posterior: &Asked, encoding: &Encoding, tokenizer: &Tokenizer) -> Vec<String> {
    let same_classes = encoding.answers == posterior.encoding.answers;
    let tokens = if same_classes { posterior.class_tokens.clone() } else { Vec::new() };
    posterior.differences(&Asked::new(encoding.clone(), tokens, tokenizer))
}

fn run(matches: &ArgMatches, control: Control) -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::from_arg_matches(matches)?;
    let Arguments { model, adapter, posterior, questions, form, insist, out } = &arguments;
    if let Some(out) = out {
        claim_answers(questions, out)?;
    }
    let control = control.with_workers(2)?;
    // The posterior is about the language model: the way of asking joins it with the questions, so that a file which does not
    // fit is refused before the first of them is read.
    let base = load_base(model)?;
    let (lm, _) = load_peft(base, adapter)?;
    let mut laplace = Laplace::load(posterior.clone().unwrap_or_else(|| adapter.join(POSTERIOR_FILE)), &lm)?;
    let tokenizer = Tokenizer::from_dir(model)?;
    let encoding = match &laplace.fitted_on().asked {
        None => form.encoding(),
        Some(asked) => {
            let encoding = asked_over(form, &asked.encoding, matches);
            let differences = differences(asked, &encoding, &tokenizer);
            if !(differences.is_empty() || *insist) {
                let differences = differences.join("; ");
                return Err(format!(
                    "the posterior was fitted on questions asked in another way: {differences} (`--insist` asks so all the same)"
                )
                .into());
            }
            encoding
        }
    };
    if *insist {
        laplace = laplace.with_any_way_of_asking();
    }
    let answerer = |control| Answerer { lm, laplace, tokenizer, encoding, limits: form.limits(), control };
    let tally = match out {
        // a signal must not leave the unfinished file behind; without one it may end the program at once
        Some(out) => answerer(control.with_signals()?).answer_into_file(questions, out)?,
        None => answerer(control).answer(questions, &mut std::io::stdout().lock(), Path::new("standard output"))?,
    };
    eprintln!("{}", tally.summary()?);
    Ok(())
}
