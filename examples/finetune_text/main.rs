//! Fine-tunes a language model on a file of texts, completions and chats, finds the posterior of the adapter, and scores texts that it
//! was not trained on: the log-likelihood of each with its standard deviation, token by token.
//!
//! ```sh
//! cargo run --release --example finetune_text -- --model SmolLM2-135M-Instruct --train chats.jsonl --out my_adapter
//! ```
//!
//! Lines are `{"text": …}`, `{"prompt": …, "completion": …}` or `{"messages": […]}`. Without flags it works offline: on stories260K and
//! the 120 lines of `animals.jsonl` beside this file. The directory gets the adapter as PEFT writes it, `posterior.safetensors` and
//! `scores.jsonl`. Ctrl-C ends the run with its work saved, and the same command goes on from there.

#[path = "../experiment/ending.rs"]
mod ending;

use bayes_lora::atomic_file::write_atomic;
use bayes_lora::checkpoints::Checkpoints;
use bayes_lora::curvature::{CurvatureConfig, CurvatureStructure, FisherKind, fit_curvature};
use bayes_lora::data::{BatchLimits, ScoredPart, TextDataset, TextEncoding, Tokenizer, Truncation, read_texts};
use bayes_lora::likelihood::NextToken;
use bayes_lora::lora::{LoraConfig, attach, save_peft};
use bayes_lora::models::{Pretrained, TextModel};
use bayes_lora::number::significant;
use bayes_lora::outputs::{claim_dir, save_or_rescue};
use bayes_lora::posterior::{Laplace, LaplaceConfig, POSTERIOR_FILE};
use bayes_lora::predict::{TextScore, score_texts};
use bayes_lora::progress::Control;
use bayes_lora::train::{Trainer, TrainerConfig};
use burn::tensor::Device;
use clap::Parser;
use ending::program;
use serde_json::json;
use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Parser)]
#[command(about = "Fine-tune on texts with a posterior; without flags, offline on what ships with the crate")]
struct Arguments {
    /// Hugging Face directory of the base: config.json, safetensors, tokenizer.json.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/stories260K"))]
    model: PathBuf,
    /// Texts, completions and chats, one a line.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/finetune_text/animals.jsonl"))]
    train: PathBuf,
    /// Texts to validate on and to score; without a file, a fifth of the training file is split off by the seed.
    #[arg(long)]
    validation: Option<PathBuf>,
    /// Score prompts too.
    #[arg(long)]
    everything: bool,
    /// The most tokens of a text; longer ones are cut off and counted. The model's context unless given.
    #[arg(long)]
    max_tokens: Option<usize>,
    #[arg(long, default_value_t = 3)]
    epochs: usize,
    #[arg(long, default_value_t = 8)]
    rank: usize,
    #[arg(long, default_value_t = 2e-3)]
    learning_rate: f64,
    /// Texts of a batch.
    #[arg(long, default_value_t = 8)]
    batch: usize,
    /// Batches of a step.
    #[arg(long, default_value_t = 1)]
    accumulation: usize,
    /// How the curvature is held: "Kronecker", "EKFAC", "diagonal", "core space" …
    #[arg(long, default_value_t = CurvatureStructure::Kronecker)]
    structure: CurvatureStructure,
    /// Draws of the Fisher information for each text.
    #[arg(long, default_value_t = 1)]
    draws: usize,
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[arg(long, default_value = "target/finetune_text")]
    out: PathBuf,
}

fn main() -> ExitCode {
    program(|control| run(&Arguments::parse(), control))
}

fn run(arguments: &Arguments, control: Control) -> Result<(), Box<dyn Error>> {
    let Arguments { model: dir, out, seed, .. } = arguments;
    claim_dir(out, 0)?;
    let unfinished = out.join("unfinished");
    let control = control.with_signals()?.with_checkpoints(Checkpoints::new(&unfinished))?;
    let tokenizer = Tokenizer::from_dir(dir)?;
    let base = Pretrained::from_dir(dir)?.load(&Device::flex())?;
    let (train, validation) = data(arguments, base.config().max_positions, &tokenizer)?;
    println!("{}", train.example(0, &tokenizer)?);
    for data in [&train, &validation] {
        let (texts, tokens, scored) = (data.len(), data.n_tokens(), data.n_scored());
        println!("{}: {texts} texts, {tokens} tokens, {scored} scored; {} cut off", data.name, data.n_truncated);
    }

    let lora =
        LoraConfig::new(arguments.rank).with_alpha(2.0 * arguments.rank as f64).with_target_pattern("all-linear");
    let limits = BatchLimits { max_items: arguments.batch, max_tokens: 4096 };
    let config = TrainerConfig::default().with_likelihood(NextToken).with_limits(limits).with_seed(*seed);
    let config = config.with_epochs(arguments.epochs).with_learning_rate(arguments.learning_rate);
    let trainer = Trainer::new(config.with_accumulation(arguments.accumulation))?;
    let outcome = trainer.fit(attach(TextModel::new(base), &lora, *seed)?, &train, Some(&validation), &control)?;
    for epoch in &outcome.report.epochs {
        let perplexity = epoch.validation_perplexity().unwrap_or(f64::NAN);
        println!(
            "epoch {}: {} nats a token, validation perplexity {}",
            epoch.epoch,
            significant(epoch.train_nll),
            significant(perplexity)
        );
    }
    let model = outcome.model;

    let fisher = FisherKind::Sampled { n: arguments.draws, seed: *seed };
    let config = CurvatureConfig::new(arguments.structure).with_likelihood(NextToken).with_fisher(fisher);
    let curvature = fit_curvature(&model, &train, &config.with_limits(limits), &control)?;
    let laplace = Laplace::new(&model, &curvature, &LaplaceConfig::default())?;
    let evidence = laplace.log_marginal_likelihood(laplace.prior_precisions())?;
    println!(
        "log evidence {} nats, {} a scored token; prior precision {}",
        significant(evidence),
        significant(evidence / train.n_scored() as f64),
        laplace.prior_precisions()
    );

    let scores = score_texts(&model, &laplace, &validation, &limits, &control)?;
    println!("\nlog-likelihood ± posterior standard deviation, nats a token, mean entropy:");
    for (text, score) in validation.examples.iter().zip(&scores).take(10) {
        println!(
            "{:12} {:8.2} ± {:5.2} {:7.3} {:7.3}",
            text.id,
            score.log_likelihood,
            score.standard_deviation,
            score.per_token(),
            score.mean_entropy()
        );
    }
    save_peft(&model, &lora, &dir.to_string_lossy(), out)?;
    save_or_rescue(out.join(POSTERIOR_FILE), |path| laplace.save(path, &model))?;
    let lines: Vec<String> =
        validation.examples.iter().zip(&scores).map(|(text, score)| line(&text.id, score, &tokenizer)).collect();
    save_or_rescue(out.join("scores.jsonl"), |path| write_atomic(path, lines.concat().as_bytes()))?;
    if unfinished.try_exists()? {
        std::fs::remove_dir_all(&unfinished)?;
    }
    println!("wrote {}", out.display());
    Ok(())
}

/// Training and validation texts.
fn data(
    arguments: &Arguments,
    context: usize,
    tokenizer: &Tokenizer,
) -> Result<(TextDataset, TextDataset), Box<dyn Error>> {
    let scored = if arguments.everything { ScoredPart::Everything } else { ScoredPart::Answers };
    let encoding = TextEncoding::default().with_scored(scored).with_truncation(Truncation::End);
    let encoding = encoding.with_max_tokens(arguments.max_tokens.unwrap_or(context));
    let train = encoding.encode("training", &read_texts(&arguments.train)?, tokenizer)?;
    let (train, mut validation) = match &arguments.validation {
        Some(path) => (train, encoding.encode("validation", &read_texts(path)?, tokenizer)?),
        None => {
            let n = train.len() / 5;
            train.split(n, arguments.seed)?
        }
    };
    validation.name = "validation".into();
    Ok((train, validation))
}

/// A score as a line of JSON.
fn line(id: &str, score: &TextScore, tokenizer: &Tokenizer) -> String {
    let token = |token: &bayes_lora::models::TokenScore| {
        let text = tokenizer.token(token.id);
        json!({"token": text, "log_probability": token.log_probability, "entropy": token.entropy})
    };
    let value = json!({
        "id": id,
        "log_likelihood": score.log_likelihood,
        "standard_deviation": score.standard_deviation,
        "tokens": score.tokens.iter().map(token).collect::<Vec<_>>(),
    });
    format!("{value}\n")
}
