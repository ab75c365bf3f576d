//! The time of every stage on random weights, after a run that is not counted: compiling and tuning kernels is no part of it.

use crate::Outcome;
use crate::shapes::Size;
use bayes_lora::belief::LogitGauge;
use bayes_lora::curvature::{CurvatureConfig, CurvatureStructure, FisherKind, fit_curvature};
use bayes_lora::data::{BatchLimits, EncodedDataset, EncodedItem, EncodedRow, ResolvedAnswers};
use bayes_lora::lora::{LoraConfig, attach};
use bayes_lora::models::{Pretrained, PromptClassifier};
use bayes_lora::number::significant;
use bayes_lora::posterior::{Laplace, LaplaceConfig};
use bayes_lora::predict::{predict_linearized, predict_map};
use bayes_lora::prior::PriorPrecision;
use bayes_lora::progress::Control;
use bayes_lora::train::{Trainer, TrainerConfig};
use burn::tensor::{DType, Device};
use serde::Serialize;
use std::time::Instant;

const N_TOKENS: usize = 128;
const N_CLASSES: usize = 4;

#[derive(Serialize)]
pub struct Stage {
    size: String,
    dtype: String,
    stage: &'static str,
    /// Of one run over `items`.
    seconds: f64,
    runs: usize,
    items: usize,
    items_per_second: f64,
    tokens_per_second: f64,
}

/// Measures training, inference, the pass of the sampled Kronecker factors, and linearised prediction from cores, whose posterior has no
/// matrix as wide as the model.
pub fn measure(size: Size, (device, dtype): (&Device, DType), batch: usize, seconds: f64) -> Outcome<Vec<Stage>> {
    let config = size.config()?;
    let data = items(2 * batch, config.vocab_size);
    let limits = BatchLimits { max_items: batch, max_tokens: usize::MAX };
    let control = Control::silent();
    let lm = Pretrained::random(config, 0).with_dtype(dtype).load(device)?;
    let lora = LoraConfig::new(8).with_alpha(16.0).with_target_modules(["q_proj", "v_proj"]);
    let start = attach(PromptClassifier::new(lm, &data)?, &lora, 0)?;
    let trainer = Trainer::new(TrainerConfig::default().with_epochs(1).with_learning_rate(1e-3).with_limits(limits))?;
    // away from the start, where half of the gradients are zero
    let model = trainer.fit(start, &data, None, &control)?.model;
    let factors = CurvatureConfig::default().with_fisher(FisherKind::Sampled { n: 1, seed: 0 }).with_limits(limits);
    let cores = CurvatureConfig::default().with_structure(CurvatureStructure::Core).with_limits(limits);
    let prior = LaplaceConfig::default().with_prior_precision(PriorPrecision::new(1.0)?);
    let laplace = Laplace::new(&model, &fit_curvature(&model, &data, &cores, &control)?, &prior)?;

    let mut stages = Vec::new();
    let mut stage = |stage: &'static str, work: &dyn Fn() -> bayes_lora::Result<()>| -> Outcome<()> {
        work()?;
        let (clock, mut runs) = (Instant::now(), 0);
        while runs == 0 || clock.elapsed().as_secs_f64() < seconds {
            work()?;
            runs += 1;
        }
        let seconds = clock.elapsed().as_secs_f64() / runs as f64;
        let (size, dtype, items) = (size.name(), format!("{dtype:?}"), data.len());
        let items_per_second = items as f64 / seconds;
        let tokens_per_second = items_per_second * N_TOKENS as f64;
        let [shown_seconds, of_items, of_tokens] = [seconds, items_per_second, tokens_per_second].map(significant);
        println!("{size:<6} {dtype:<6} {stage:<28} {shown_seconds:>10} {of_items:>10} {of_tokens:>12}");
        stages.push(Stage { size, dtype, stage, seconds, runs, items, items_per_second, tokens_per_second });
        Ok(())
    };
    stage("training", &|| trainer.fit(model.clone(), &data, None, &control).map(drop))?;
    stage("inference", &|| predict_map(&model, &data, &limits, &control).map(drop))?;
    stage("sampled Kronecker pass", &|| fit_curvature(&model, &data, &factors, &control).map(drop))?;
    stage("linearised prediction", &|| {
        predict_linearized(&model, &laplace, &data, LogitGauge::Centred, &limits, &control).map(drop)
    })?;
    Ok(stages)
}

/// Rows of tokens that follow no pattern, with labels.
fn items(n: usize, vocabulary: usize) -> EncodedDataset {
    let token = |item: usize, place: usize| ((item * 7919 + place * 104_729 + item * place * 31) % vocabulary) as u32;
    let item = |index: usize| EncodedItem {
        id: index.to_string(),
        rows: vec![EncodedRow {
            ids: (0..N_TOKENS).map(|place| token(index, place)).collect(),
            scored: 0..0,
            weight: 1.0,
            types: Vec::new(),
        }],
        label: Some(index % N_CLASSES),
        n_choices: N_CLASSES,
    };
    EncodedDataset {
        name: "device check".into(),
        items: (0..n).map(item).collect(),
        answers: ResolvedAnswers::ClassTokens((0..N_CLASSES as u32).collect()),
        n_classes: N_CLASSES,
        n_truncated: 0,
        asked: None,
    }
}
