//! `bayes-lora merge adapter`.

use crate::base::{adapted, encoder, pretrained, tokenizer};
use crate::session::{Outcome, Session};
use bayes_lora::POSTERIOR_FILE;
use bayes_lora::data::AnswerForm;
use bayes_lora::lora::{TrainedHead, saved_head};
use bayes_lora::models::{
    HeadedNetwork, LanguageModel, LoadReport, LoadedDecoder, LoadedEncoder, MERGE_TOLERANCE, MergeReport,
    SequenceClassifier,
};
use bayes_lora::posterior::Laplace;
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
/// The merged model is read back and its logits are compared with those of the adapted one before the directory appears. An adapter with a head
/// for labels or rewards, on an encoder or a decoder, is merged with it.
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
        let tokenizer = tokenizer(&self.model)?;
        let texts: Vec<&str> = match self.check.as_slice() {
            [] => TEXTS.to_vec(),
            given => given.iter().map(String::as_str).collect(),
        };
        if self.model.is_file() {
            return Err(format!("{}: a base is merged into that is a directory", self.model.display()).into());
        }
        let encode = |text: &&str| tokenizer.encode(text, true);
        let rows = texts.iter().map(encode).collect::<Result<Vec<_>, _>>()?;
        // our own texts are as long as the model allows
        let rows = |limit: usize| -> Vec<Vec<u32>> {
            let longest = if self.check.is_empty() { limit } else { usize::MAX };
            rows.iter().map(|row| row.iter().take(longest).copied().collect()).collect()
        };
        let (saved, labels) = (saved_head(&self.adapter)?, self.labels());
        let n_outputs = saved.map(|(_, n_outputs)| n_outputs);
        let report = if let Some(base) = encoder(&self.model)? {
            let LoadedEncoder { encoder, head, report } = base.load(session.device())?;
            tell(&report, session);
            let neither = "neither the adapter nor its base has a head, and an encoder without one answers nothing";
            let model = self.headed(encoder, head, n_outputs)?.ok_or(neither)?;
            let rows = rows(base.config().max_positions);
            base.merge_and_save(HeadedNetwork::from(&model).with_labels(&labels), &rows, self.tolerance, &self.out)?
        } else {
            let base = pretrained(&self.model)?;
            let LoadedDecoder { lm, head, report } = base.load_with_head(session.device())?;
            tell(&report, session);
            let rows = rows(base.config().max_positions);
            match self.headed(lm.clone(), head, n_outputs)? {
                Some(model) => {
                    let model = HeadedNetwork::from(&model).with_labels(&labels);
                    base.merge_and_save_with_head(model, &rows, self.tolerance, &self.out)?
                }
                None => {
                    let (lm, _) = adapted(lm, &self.adapter, None)?;
                    base.merge_and_save(&lm, &rows, self.tolerance, &self.out)?
                }
            }
        };
        session.show(&Merged(report))
    }

    /// The network with the head that the adapter brings, or that of its base, and the adapter; `None` where neither has one.
    fn headed<L: LanguageModel>(
        &self,
        network: L,
        own: Option<TrainedHead>,
        n_outputs: Option<usize>,
    ) -> Outcome<Option<SequenceClassifier<L>>> {
        let model = match (own, n_outputs) {
            (None, None) => return Ok(None),
            (Some(head), None) => SequenceClassifier { network, head },
            (Some(head), Some(n)) if head.d_out() == n => SequenceClassifier { network, head },
            // the adapter's takes its place
            (_, Some(n)) => SequenceClassifier::with_fresh_head(network, n, 0)?,
        };
        Ok(Some(adapted(model, &self.adapter, None)?.0))
    }

    /// The names of the labels, as the posterior beside the adapter remembers them. Merging does not need them, nor a posterior that can be
    /// read.
    fn labels(&self) -> Vec<String> {
        let summary = Laplace::summary(self.adapter.join(POSTERIOR_FILE)).ok();
        match summary.and_then(|summary| summary.fitted_on.asked) {
            Some(asked) => match asked.encoding.answers {
                AnswerForm::Labels { names } => names,
                _ => Vec::new(),
            },
            None => Vec::new(),
        }
    }
}

fn tell(report: &LoadReport, session: &Session) {
    if !report.is_empty() {
        session.say(report);
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
