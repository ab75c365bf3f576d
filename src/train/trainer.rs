//! Runs the training loop.

use super::clip::clip_global_norm;
use super::freeze::{TrainingMode, set_trainable};
use super::log::TrainLog;
use super::objective::{Objective, nll_sum};
use super::schedule::{Decay, Schedule};
use crate::batches::in_order;
use crate::belief::log_softmax;
use crate::data::{BatchLimits, BatchOrder};
use crate::error::{Error, Result};
use crate::lora::to_array;
use crate::models::{Classifier, ClassifierInput, Dataset, batch_for, batch_labels, known_labels, mask_absent};
use crate::progress::Control;
use crate::tape::Tape;
use burn::optim::{AdamWConfig, GradientsAccumulator, GradientsParams};
use serde::Serialize;
use std::path::PathBuf;
use std::time::Instant;

/// How to train.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainerConfig {
    /// Passes over the training data.
    pub epochs: usize,
    /// Peak learning rate of AdamW.
    pub learning_rate: f64,
    /// AdamW's decoupled weight decay (not a prior).
    pub weight_decay: f64,
    /// Share of the steps that the learning rate rises.
    pub warmup_fraction: f64,
    /// What it does after.
    pub decay: Decay,
    /// Size of a batch (of a micro-batch, with accumulation).
    pub limits: BatchLimits,
    /// Micro-batches a step.
    pub accumulation: usize,
    /// Largest global norm of the gradient of the mean loss; `None` does not clip.
    pub max_grad_norm: Option<f64>,
    /// Stop after so many epochs without a better validation NLL.
    pub patience: Option<usize>,
    /// Which parameters train.
    pub mode: TrainingMode,
    /// Maximum likelihood or maximum a posteriori.
    pub objective: Objective,
    /// Seed of shuffles and dropout.
    pub seed: u64,
    /// Where a JSON line for every step goes.
    pub log: Option<PathBuf>,
}

impl Default for TrainerConfig {
    /// Three epochs at 1e-4, no weight decay, 6 % warm-up then linear decay, batches of 8 items and 4,096 tokens, norm 1.
    fn default() -> Self {
        Self {
            epochs: 3,
            learning_rate: 1e-4,
            weight_decay: 0.0,
            warmup_fraction: 0.06,
            decay: Decay::Linear,
            limits: BatchLimits { max_items: 8, max_tokens: 4096 },
            accumulation: 1,
            max_grad_norm: Some(1.0),
            patience: None,
            mode: TrainingMode::Lora,
            objective: Objective::MaximumLikelihood,
            seed: 0,
            log: None,
        }
    }
}

/// One epoch's figures; NLLs are means over items, in nats.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct EpochRecord {
    /// 1, 2, …
    pub epoch: usize,
    /// Mean training NLL over the epoch, while the weights moved.
    pub train_nll: f64,
    /// Mean validation NLL after it.
    pub validation_nll: Option<f64>,
    /// Validation accuracy after it.
    pub validation_accuracy: Option<f64>,
}

/// What happened during training.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TrainReport {
    /// Every epoch's figures.
    pub epochs: Vec<EpochRecord>,
    /// The epoch with the best validation NLL.
    pub best_epoch: Option<usize>,
    /// Optimiser steps taken.
    pub steps: usize,
    /// Items processed, over all epochs.
    pub items: usize,
    /// Real tokens processed, over all epochs.
    pub tokens: usize,
    /// Wall-clock seconds of the training passes alone (without validation).
    pub seconds: f64,
}

/// The trained model, and the one with the best validation NLL if there was validation.
#[derive(Debug, Clone)]
pub struct TrainOutcome<M> {
    /// The model after the last step.
    pub model: M,
    /// The model after the best epoch.
    pub best: Option<M>,
    /// What happened.
    pub report: TrainReport,
}

#[derive(Serialize)]
struct StepRecord {
    step: usize,
    epoch: usize,
    mean_nll: f64,
    learning_rate: f64,
    gradient_norm: f64,
    tokens_per_second: f64,
}

/// Trains with AdamW.
#[derive(Debug, Clone)]
pub struct Trainer {
    config: TrainerConfig,
}

impl Trainer {
    /// Checks the configuration.
    ///
    /// # Errors
    /// Names the field, its bound and its value.
    pub fn new(config: TrainerConfig) -> Result<Self> {
        for (field, value) in [("epochs", config.epochs), ("accumulation", config.accumulation)] {
            if value == 0 {
                return Err(Error::config(field, "at least 1", value));
            }
        }
        if let Some(norm) = config.max_grad_norm.filter(|n| !(*n > 0.0 && n.is_finite())) {
            return Err(Error::config("max_grad_norm", "positive and finite", norm));
        }
        if !(config.weight_decay >= 0.0 && config.weight_decay.is_finite()) {
            return Err(Error::config("weight_decay", "at least 0 and finite", config.weight_decay));
        }
        Schedule::new(config.learning_rate, config.warmup_fraction, config.decay, 1)?;
        Ok(Self { config })
    }

    /// Trains `model` on `data`; with `validation`, evaluates after every epoch and keeps the best.
    ///
    /// # Errors
    /// If a label is missing or out of range, the loss or gradient is not finite (the step is named), the log cannot be
    /// written, or the caller cancels.
    pub fn fit<M: Classifier, D: Dataset<Input = M::Input>>(
        &self,
        model: M,
        data: &D,
        validation: Option<&D>,
        control: &Control,
    ) -> Result<TrainOutcome<M>> {
        let config = &self.config;
        let labels = known_labels(data, model.n_classes())?;
        let mut model = set_trainable(model, &config.mode)?.train();
        let centre = config.objective.centre(&model)?;
        let plan =
            |epoch: usize| data.plan(config.limits, BatchOrder::Shuffled { seed: config.seed, epoch: epoch as u64 });
        let epochs = (0..config.epochs).map(plan).collect::<Result<Vec<_>>>()?;
        let total = epochs.iter().map(|e| e.len().div_ceil(config.accumulation)).sum();
        let schedule = Schedule::new(config.learning_rate, config.warmup_fraction, config.decay, total)?;
        // ε = 1e-8 as in PyTorch
        let mut optimizer = AdamWConfig::new().with_epsilon(1e-8).with_weight_decay(config.weight_decay as f32).init();
        let mut log = config.log.as_ref().map(TrainLog::create).transpose()?;
        let mut report = TrainReport { epochs: vec![], best_epoch: None, steps: 0, items: 0, tokens: 0, seconds: 0.0 };
        let mut best: Option<(f64, M)> = None;
        let mut bar = control.bar("train", data.n_items() * config.epochs);
        for (epoch, batches) in epochs.into_iter().enumerate() {
            let mut epoch_nll = 0.0;
            for step_batches in batches.chunks(config.accumulation) {
                let start = Instant::now();
                let n_items: usize = step_batches.iter().map(Vec::len).sum();
                let (mut tokens, mut step_nll) = (0, 0.0);
                let mut accumulator = GradientsAccumulator::new();
                let (plain, step) = (model.valid(), report.steps);
                // a micro-batch has leaves of its own, so that several can be differentiated at once
                let differentiate = |micro: usize| {
                    let model = set_trainable(plain.clone(), &config.mode)?.train();
                    let indices = &step_batches[micro];
                    let input = batch_for(&model, data, indices)?;
                    let tokens = input.token_mask().iter().filter(|real| **real).count();
                    let labels = batch_labels(data, indices, &input, &labels, model.n_classes())?;
                    // one dropout stream a micro-batch
                    let draw = config.seed ^ ((step as u64) << 20 | (micro as u64) << 8 | 1);
                    let logits = model.logits(&input, &mut Tape::dropout(draw));
                    let nll = nll_sum(logits, &labels, input.class_mask());
                    let sum = nll.clone().without_autodiff().into_scalar::<f64>();
                    let mut loss = nll.div_scalar(n_items as f64);
                    // the prior counts once a step, at its share of the whole data
                    if let Some(penalty) = config.objective.penalty(&model, centre.as_ref()).filter(|_| micro == 0) {
                        loss = loss + penalty.div_scalar(data.n_items() as f64);
                    }
                    Ok((tokens, sum, GradientsParams::from_grads(loss.backward(), &model)))
                };
                in_order(
                    "train",
                    step_batches.len(),
                    control.workers(),
                    differentiate,
                    |_, (real, nll, gradients)| {
                        tokens += real;
                        step_nll += nll;
                        accumulator.accumulate(&model, gradients);
                        Ok(())
                    },
                )?;
                let mut gradients = accumulator.grads();
                let norm = clip_global_norm(&model, &mut gradients, config.max_grad_norm);
                if !step_nll.is_finite() || !norm.is_finite() {
                    return Err(Error::numerical(
                        format!("training step {}", report.steps + 1),
                        format!("loss {step_nll}, gradient norm {norm}, items {:?}", step_batches),
                    ));
                }
                let rate = schedule.rate(report.steps);
                model = optimizer.step(rate, model, gradients);
                report.steps += 1;
                report.items += n_items;
                report.tokens += tokens;
                let seconds = start.elapsed().as_secs_f64();
                report.seconds += seconds;
                epoch_nll += step_nll;
                let mean_nll = step_nll / n_items as f64;
                let tokens_per_second = tokens as f64 / seconds;
                if let Some(log) = &mut log {
                    log.write(&StepRecord {
                        step: report.steps,
                        epoch: epoch + 1,
                        mean_nll,
                        learning_rate: rate,
                        gradient_norm: norm,
                        tokens_per_second,
                    })?;
                }
                bar.advance(n_items, || format!("loss {mean_nll:.3}, {tokens_per_second:.0} tokens/s"))?;
            }
            let mut record = EpochRecord {
                epoch: epoch + 1,
                train_nll: epoch_nll / data.n_items() as f64,
                validation_nll: None,
                validation_accuracy: None,
            };
            if let Some(validation) = validation {
                let (nll, accuracy) = self.evaluate(&model, validation, control)?;
                record.validation_nll = Some(nll);
                record.validation_accuracy = Some(accuracy);
                if best.as_ref().is_none_or(|(b, _)| nll < *b) {
                    best = Some((nll, model.valid()));
                    report.best_epoch = Some(epoch + 1);
                }
            }
            if let Some(log) = &mut log {
                log.write(&record)?;
            }
            report.epochs.push(record);
            let waited = report.best_epoch.map_or(0, |best| epoch + 1 - best);
            if config.patience.is_some_and(|patience| waited >= patience) {
                break;
            }
        }
        Ok(TrainOutcome { model: model.valid(), best: best.map(|(_, m)| m), report })
    }

    /// Mean NLL in nats and accuracy.
    fn evaluate<M: Classifier, D: Dataset<Input = M::Input>>(
        &self,
        model: &M,
        data: &D,
        control: &Control,
    ) -> Result<(f64, f64)> {
        let model = model.valid();
        let labels = known_labels(data, model.n_classes())?;
        let (mut nll, mut right) = (0.0, 0usize);
        let batches = data.plan(self.config.limits, BatchOrder::ByLength)?;
        let work = |index: usize| {
            let input = batch_for(&model, data, &batches[index])?;
            batch_labels(data, &batches[index], &input, &labels, model.n_classes())?;
            Ok(mask_absent(to_array(model.logits(&input, &mut Tape::off()))?, input.class_mask()))
        };
        in_order("validation", batches.len(), control.workers(), work, |index, logits| {
            for (row, &item) in log_softmax(logits.view()).outer_iter().zip(&batches[index]) {
                let label = labels[item];
                nll -= row[label];
                right += usize::from(row.iter().enumerate().all(|(c, v)| c == label || *v < row[label]));
            }
            control.check("validation", index + 1, batches.len())
        })?;
        Ok((nll / labels.len() as f64, right as f64 / labels.len() as f64))
    }
}
