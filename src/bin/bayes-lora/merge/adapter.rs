//! `bayes-lora merge adapter`.

use crate::base::{adapted, encoder, pretrained, tokenizer};
use crate::session::{Outcome, Session};
use bayes_lora::models::{MERGE_TOLERANCE, MergeReport};
use clap::Args;
use serde::Serialize;
use std::path::PathBuf;

/// Texts on which the merged model is compared with the adapted one where none are given.
const TEXTS: [&str; 3] = [
    "The quick brown fox jumps over the lazy dog.",
    "Question: What is the capital of France?\nAnswer: Paris",
    "1 + 2 = 3, and 10 * 10 = 100.",
];

/// Fold an adapter into its base: a plain Hugging Face directory, without posterior
///
/// The merged model is read back and its logits are compared with those of the adapted one before the directory appears.
/// What is left are the trained weights alone: keep the adapter and its posterior for calibrated answers.
#[derive(Args)]
#[command(after_help = "Example:\n  bayes-lora merge adapter --model SmolLM2-135M --adapter my_adapter --out merged")]
pub struct Adapter {
    /// The base: a Hugging Face directory
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// The adapter's directory, as PEFT writes it
    #[arg(long, value_name = "DIR")]
    adapter: PathBuf,
    /// The new directory
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Texts on which both models are compared, such as those that the model will see [default: three of ours]
    #[arg(long, value_name = "TEXT")]
    check: Vec<String>,
    /// Largest difference of a logit
    #[arg(long, value_name = "NATS", default_value_t = MERGE_TOLERANCE)]
    tolerance: f64,
}

impl Adapter {
    pub fn run(&self, session: &Session) -> Outcome {
        if encoder(&self.model)?.is_some() {
            return Err(format!("{}: adapters of encoders cannot be merged yet", self.model.display()).into());
        }
        let tokenizer = tokenizer(&self.model)?;
        let texts: Vec<&str> = match self.check.as_slice() {
            [] => TEXTS.to_vec(),
            given => given.iter().map(String::as_str).collect(),
        };
        if self.model.is_file() {
            return Err(format!("{}: a base is merged into that is a directory", self.model.display()).into());
        }
        let rows = texts.iter().map(|text| tokenizer.encode(text, true)).collect::<Result<Vec<_>, _>>()?;
        let pretrained = pretrained(&self.model)?;
        let (lm, report) = pretrained.load_with_report(session.device())?;
        if !report.is_empty() {
            session.say(report);
        }
        let (model, _) = adapted(lm, &self.adapter, None)?;
        session.show(&Merged(pretrained.merge_and_save(&model, &rows, self.tolerance, &self.out)?))
    }
}

struct Merged(MergeReport);

impl std::fmt::Display for Merged {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for Merged {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let MergeReport { dir, n_modules, n_rows, n_positions, largest_difference, tolerance } = &self.0;
        serde_json::json!({
            "dir": dir, "modules": n_modules, "rows": n_rows, "positions": n_positions,
            "largest_difference": largest_difference, "tolerance": tolerance,
        })
        .serialize(serializer)
    }
}
