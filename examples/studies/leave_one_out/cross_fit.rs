//! Adapters that have each not seen a share of the training items, and a temperature for what they say about these.

use super::answers::temperature_rows;
use super::row::{Fit, Row, Source, Test};
use crate::Outcome;
use bayes_lora::belief::LogitBelief;
use bayes_lora::data::{BatchLimits, EncodedDataset};
use bayes_lora::lora::{LoraConfig, attach};
use bayes_lora::models::PromptClassifier;
use bayes_lora::predict::predict_map;
use bayes_lora::progress::Control;
use bayes_lora::train::{Trainer, TrainerConfig};
use ndarray::Array2;
use serde::Serialize;
use std::time::Instant;

#[derive(Serialize)]
pub struct CrossFitted {
    folds: usize,
    /// Of each item by the adapter that has not seen it.
    fit: Fit,
    seconds: f64,
}

pub struct CrossFit {
    logits: Array2<f64>,
    labels: Vec<usize>,
    pub summary: CrossFitted,
}

impl CrossFit {
    /// Trains one adapter a fold, on all items but every `folds`-th.
    pub fn new(
        folds: usize,
        base: &PromptClassifier,
        train: &EncodedDataset,
        (lora, trainer): (&LoraConfig, &TrainerConfig),
        limits: &BatchLimits,
        control: &Control,
    ) -> Outcome<Self> {
        if !(2..=train.len()).contains(&folds) {
            return Err(format!("--cross-fit: from 2 to the {} training items, found {folds}", train.len()).into());
        }
        let clock = Instant::now();
        let mut logits = Array2::zeros((train.len(), train.n_classes));
        for fold in 0..folds {
            let (out, kept): (Vec<usize>, Vec<usize>) = (0..train.len()).partition(|item| item % folds == fold);
            let of = |items: &[usize]| EncodedDataset {
                items: items.iter().map(|&item| train.items[item].clone()).collect(),
                ..train.clone()
            };
            let start = attach(base.clone(), lora, trainer.seed_or_default())?;
            let model = Trainer::new(trainer.clone())?.fit(start, &of(&kept), None, control)?.model;
            let answers = predict_map(&model, &of(&out), limits, control)?.moments().0;
            for (&item, answer) in out.iter().zip(answers.outer_iter()) {
                logits.row_mut(item).assign(&answer);
            }
        }
        let labels = train.labels()?;
        let fit = Fit::new(&LogitBelief::Point { logits: logits.clone() }, &labels)?;
        println!("out of {folds} folds: {fit}");
        Ok(Self { summary: CrossFitted { folds, fit, seconds: clock.elapsed().as_secs_f64() }, logits, labels })
    }

    pub fn rows(&self, test: &Test) -> Outcome<Vec<Row>> {
        let name = format!("ML + cross-fitted temperature (K = {})", self.summary.folds);
        temperature_rows(test, &name, Source::TrainingItems, Ok((&self.logits, &self.labels)))
    }
}
