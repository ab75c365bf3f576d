//! Fine-tunes on prompts with completions, and leaves all that PEFT needs to do the same: tokens, batches, the adapter at the start.
//!
//! ```sh
//! cargo run --release --example studies -- text-parity --model SmolLM2-135M --tasks shared/tasks --out target/text_parity
//! python3 examples/studies/text_parity/peer_text.py --model SmolLM2-135M --dir target/text_parity
//! ```
//!
//! Each writes the perplexity of held-out completions after every epoch, `ours.json` and `peer.json`.

use crate::Outcome;
use crate::experiment::base::load_base;
use crate::json::save;
use bayes_lora::data::{BatchLimits, BatchOrder, Task, TextDataset, TextEncoding, TextItem, Tokenizer};
use bayes_lora::likelihood::NextToken;
use bayes_lora::lora::{LoraConfig, attach, save_peft};
use bayes_lora::models::TextModel;
use bayes_lora::outputs::claim_dir;
use bayes_lora::progress::Control;
use bayes_lora::train::{Decay, Trainer, TrainerConfig};
use clap::Args;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::time::Instant;

const EPOCHS: usize = 3;
const LEARNING_RATE: f64 = 5e-4;
/// Micro-batches of four texts, two a step.
const LIMITS: BatchLimits = BatchLimits { max_items: 4, max_tokens: 4096 };
const ACCUMULATION: usize = 2;
/// Of a packed row.
const ROW_TOKENS: usize = 256;

#[derive(Args)]
pub struct Arguments {
    /// Hugging Face directory of the base
    #[arg(long)]
    model: PathBuf,
    /// Directory of the tasks, of which `arc_easy` is taken
    #[arg(long)]
    tasks: PathBuf,
    /// Texts to train on
    #[arg(long, default_value_t = 240)]
    n: usize,
    /// Held-out texts
    #[arg(long, default_value_t = 120)]
    held_out: usize,
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Put several texts into each row
    #[arg(long)]
    pack: bool,
    #[arg(long)]
    out: PathBuf,
}

pub fn run(a: &Arguments, control: Control) -> Outcome<()> {
    claim_dir(&a.out, 0)?;
    let tokenizer = Tokenizer::from_dir(&a.model)?;
    let train = texts(&a.tasks.join("arc_easy/train.jsonl.gz"), a.n, a.seed, &tokenizer)?;
    let held_out = texts(&a.tasks.join("arc_easy/validation.jsonl.gz"), a.held_out, a.seed, &tokenizer)?;
    println!("{}", train.example(0, &tokenizer)?);

    let lora = LoraConfig::new(8).with_alpha(16.0).with_target_modules(["q_proj", "v_proj"]);
    let model = attach(TextModel::new(load_base(&a.model)?), &lora, a.seed)?;
    save_peft(&model, &lora, &a.model.display().to_string(), a.out.join("start"))?;
    let plan = |epoch| train.plan(LIMITS, BatchOrder::Shuffled { seed: a.seed, epoch, step: 1 });
    let epochs = (0..EPOCHS as u64).map(plan).collect::<Result<Vec<_>, _>>()?;
    let shared = json!({
        "train": train.examples, "held_out": held_out.examples, "epochs": epochs, "accumulation": ACCUMULATION,
        "learning_rate": LEARNING_RATE, "max_grad_norm": 1.0,
    });
    save(&a.out.join("texts.json"), &shared)?;

    let config = TrainerConfig::default()
        .with_likelihood(NextToken)
        .with_epochs(EPOCHS)
        .with_learning_rate(LEARNING_RATE)
        .with_warmup_fraction(0.0)
        .with_decay(Decay::Constant)
        .with_limits(LIMITS)
        .with_accumulation(ACCUMULATION)
        .with_packing(a.pack.then_some(ROW_TOKENS))
        .with_seed(a.seed);
    let start = Instant::now();
    let report = Trainer::new(config)?.fit(model, &train, Some(&held_out), &control)?.report;
    let perplexities: Vec<_> = report.epochs.iter().map(|epoch| epoch.validation_perplexity()).collect();
    let pads = |order| -> Outcome<_> {
        let (apart, packed) = (train.plan(LIMITS, order)?, train.plan_packed(LIMITS, order, ROW_TOKENS)?);
        Ok(
            json!({"apart": train.share_of_pads(&apart, None), "packed": train.share_of_pads(&packed, Some(ROW_TOKENS))}),
        )
    };
    let ours = json!({
        "perplexity": perplexities, "train_nll": report.epochs.iter().map(|epoch| epoch.train_nll).collect::<Vec<_>>(),
        "training_seconds": report.seconds, "seconds": start.elapsed().as_secs_f64(), "tokens": report.tokens,
        "packed_rows_of": a.pack.then_some(ROW_TOKENS), "steps": report.steps, "seed": a.seed,
        "texts": train.len(), "scored_tokens": train.n_scored(), "held_out_scored_tokens": held_out.n_scored(),
        "pads": {"shuffled": pads(BatchOrder::Shuffled { seed: a.seed, epoch: 0, step: 1 })?, "as they come": pads(BatchOrder::Sequential)?},
    });
    println!("{ours:#}");
    save(&a.out.join(if a.pack { "ours_packed.json" } else { "ours.json" }), &ours)
}

/// Questions with their right answers.
fn texts(file: &Path, n: usize, seed: u64, tokenizer: &Tokenizer) -> Outcome<TextDataset> {
    let task = Task::from_jsonl(file)?.sample(n, seed)?;
    let right = |item: &bayes_lora::data::Item| {
        let answer = item.answer.and_then(|answer| item.choices.get(answer))?;
        Some(TextItem::completion(&item.id, format!("Question: {}\nAnswer:", item.question), format!(" {answer}")))
    };
    let items: Vec<TextItem> = task.items.iter().filter_map(right).collect();
    Ok(TextEncoding::default().encode(task.name, &items, tokenizer)?)
}
