//! How a language model is fine-tuned on texts, and how sure it then is of texts that it has not seen: the log-likelihood of each with its
//! standard deviation under the posterior.
//!
//! ```sh
//! cargo run --release --example finetune_text
//! cargo run --release --example finetune_text -- --model SmolLM2-135M-Instruct --train chats.jsonl --out my_adapter
//! ```
//!
//! Lines are `{"text"}`, `{"prompt", "completion"}` or `{"messages"}`; what is learned is the text, the completion, the assistant's words.
//! Without flags: stories260K and 120 lines about what animals say, offline in seconds. `generate` goes on from what this leaves in `--out`.
//!
//! ```text
//! log-likelihood ± posterior standard deviation, nats a token, mean entropy of a token:
//! sound-52        -5.77 ±  0.12  -0.577   0.743
//! sound-21        -7.42 ±  0.44  -0.619   0.801
//! ```

use bayes_lora::BayesLoraConfig;
use bayes_lora::curvature::{CurvatureConfig, CurvatureStructure, FisherKind};
use bayes_lora::data::{BatchLimits, TextEncoding, Tokenizer, Truncation, read_texts};
use bayes_lora::likelihood::NextToken;
use bayes_lora::lora::LoraConfig;
use bayes_lora::models::{Pretrained, TextModel};
use bayes_lora::outputs::claim_dir;
use bayes_lora::posterior::LaplaceConfig;
use bayes_lora::predict::score_texts;
use bayes_lora::progress::Control;
use bayes_lora::train::TrainerConfig;
use burn::tensor::Device;
use clap::Parser;
use std::error::Error;
use std::path::PathBuf;

#[derive(Parser)]
#[command(about = "Fine-tune on texts with a posterior; without flags, offline on what ships with the crate")]
struct Arguments {
    /// Hugging Face directory of the base: config.json, safetensors, tokenizer.json.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/stories260K"))]
    model: PathBuf,
    /// Texts, completions and chats, one a line; a fifth of them is kept apart.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/finetune_text/animals.jsonl"))]
    train: PathBuf,
    /// Directory for the adapter and its posterior.
    #[arg(long, default_value = "target/finetune_text")]
    out: PathBuf,
}

fn main() -> Result<(), Box<dyn Error>> {
    let Arguments { model: dir, train, out } = Arguments::parse();
    claim_dir(&out, 0)?;
    let control = Control::with_bars();

    // which tokens are learned is part of the data
    let tokenizer = Tokenizer::from_dir(&dir)?;
    let base = Pretrained::from_dir(&dir)?.load(&Device::flex())?;
    let encoding =
        TextEncoding::default().with_truncation(Truncation::End).with_max_tokens(base.config().max_positions);
    let texts = encoding.encode("texts", &read_texts(&train)?, &tokenizer)?;
    let n_apart = texts.len() / 5;
    let (train, validation) = texts.split(n_apart, 0)?;
    println!("{}", train.example(0, &tokenizer)?);
    println!("{} texts, {} of {} tokens are learned", train.len(), train.n_scored(), train.n_tokens());

    // the likelihood of texts is that of their next tokens; draws from the model stand for the sum over the vocabulary. A small rank and the
    // core space keep draws of the posterior, with which `generate` reads and writes, models of the language
    let limits = BatchLimits { max_items: 8, max_tokens: 4096 };
    let trainer = TrainerConfig::default().with_epochs(6).with_learning_rate(2e-3).with_limits(limits);
    let fisher = FisherKind::Sampled { n: 4, seed: 0 };
    let curvature = CurvatureConfig::new(CurvatureStructure::Core).with_fisher(fisher);
    let bayes = BayesLoraConfig::new(LoraConfig::new(2).with_alpha(4.0).with_target_pattern("all-linear"))
        .with_likelihood(NextToken)
        .with_trainer(trainer)
        .with_curvature(curvature)
        .with_laplace(LaplaceConfig::default())
        .with_limits(limits)
        .init()?;
    let fitted = bayes.fit_with(TextModel::new(base), &train, Some(&validation), &control)?;
    for epoch in fitted.report.iter().flat_map(|report| &report.epochs) {
        let perplexity = epoch.validation_perplexity().unwrap_or(f64::NAN);
        println!("epoch {}: {:.3} nats a token, perplexity {perplexity:.3} of new texts", epoch.epoch, epoch.train_nll);
    }
    println!("prior precision {} by evidence", fitted.laplace.prior_precisions());

    println!("\nlog-likelihood ± posterior standard deviation, nats a token, mean entropy of a token:");
    let scores = score_texts(&fitted.model, &fitted.laplace, &validation, &limits, &control)?;
    for (text, score) in validation.examples.iter().zip(&scores).take(10) {
        let (log, deviation) = (score.log_likelihood, score.standard_deviation);
        println!("{:12} {log:8.2} ± {deviation:5.2} {:7.3} {:7.3}", text.id, score.per_token(), score.mean_entropy());
    }
    fitted.save(&out, &dir.to_string_lossy())?;
    println!("wrote {}", out.display());
    Ok(())
}
