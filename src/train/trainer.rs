//! Runs the training loop.

use super::freeze::TrainingMode;
use super::objective::{Objective, outputs_on_host};
use super::report::TrainOutcome;
use super::run::run;
use super::schedule::{Decay, Schedule};
use super::snapshots::Snapshots;
use super::update::{AdamW, UpdateRule};
use crate::batches::in_order;
use crate::belief::top_class;
use crate::data::{BatchLimits, BatchOrder};
use crate::error::{Error, Result};
use crate::identity::Identity;
use crate::likelihood::SharedLikelihood;
use crate::models::{Classifier, ClassifierInput, Dataset, batch_for, batch_targets, known_targets};
use crate::progress::Control;
use crate::tape::Tape;
use std::path::PathBuf;

/// How to train.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainerConfig {
    /// Passes over the training data.
    pub epochs: usize,
    /// Most steps; the schedule then ends there. `None` takes all epochs whole.
    pub max_steps: Option<usize>,
    /// Takes the items in another order in every epoch; else as they come.
    pub shuffle: bool,
    /// Peak learning rate of AdamW.
    pub learning_rate: f64,
    /// AdamW's decoupled weight decay (not a prior).
    pub weight_decay: f64,
    /// Share of the steps that the learning rate rises.
    pub warmup_fraction: f64,
    /// What it does after.
    pub decay: Decay,
    /// Size of a batch (of a micro-batch, with accumulation). Where steps differ in their number of items, as the last one of an
    /// epoch or those of long items, all items weigh the same nevertheless ([`Objective`]).
    pub limits: BatchLimits,
    /// Micro-batches a step.
    pub accumulation: usize,
    /// Largest global norm of the gradient of a step's loss ([`Objective`]); `None` does not clip. Items of a clipped step weigh less
    /// than others.
    pub max_grad_norm: Option<f64>,
    /// Stop after so many epochs without a better validation NLL.
    pub patience: Option<usize>,
    /// Which parameters train.
    pub mode: TrainingMode,
    /// How targets depend on the model's outputs.
    pub likelihood: SharedLikelihood,
    /// Maximum likelihood or maximum a posteriori.
    pub objective: Objective,
    /// Steps with a loss or gradient that is not finite which are skipped; one more is an error.
    pub max_skipped_steps: usize,
    /// Seed of shuffles and dropout. Both are drawn by item: the order in which the items come has no part, and an item has the
    /// same dropout mask in an epoch whatever batch it is in.
    pub seed: u64,
    /// At which steps the adapter is kept ([`TrainOutcome::snapshots`]).
    pub snapshots: Snapshots,
    /// Where a JSON line for every step goes; a resumed run goes on in it.
    pub log: Option<PathBuf>,
}

impl Default for TrainerConfig {
    /// Categorical; three epochs at 1e-4, no weight decay, 6 % warm-up then linear decay, batches of 8 items and 4,096 tokens, norm 1.
    fn default() -> Self {
        Self {
            epochs: 3,
            max_steps: None,
            shuffle: true,
            learning_rate: 1e-4,
            weight_decay: 0.0,
            warmup_fraction: 0.06,
            decay: Decay::Linear,
            limits: BatchLimits { max_items: 8, max_tokens: 4096 },
            accumulation: 1,
            max_grad_norm: Some(1.0),
            patience: None,
            mode: TrainingMode::Lora,
            likelihood: SharedLikelihood::default(),
            objective: Objective::MaximumLikelihood,
            max_skipped_steps: 10,
            seed: 0,
            snapshots: Snapshots::default(),
            log: None,
        }
    }
}

impl TrainerConfig {
    /// All settings that the trained weights depend on, but for those of the update rule (the weight decay is AdamW's): not where the
    /// log goes, nor how many steps may fail.
    pub fn identity(&self) -> Identity {
        let Self {
            epochs,
            max_steps,
            shuffle,
            learning_rate,
            weight_decay: _,
            warmup_fraction,
            decay,
            limits,
            accumulation,
            max_grad_norm,
            patience,
            mode,
            likelihood,
            objective,
            max_skipped_steps: _,
            seed,
            snapshots,
            log: _,
        } = self;
        let identity = Identity::new().with("epochs", epochs).with("max_steps", max_steps).with("shuffle", shuffle);
        let identity = identity.with("learning_rate", learning_rate).with("warmup_fraction", warmup_fraction);
        let identity = identity.with("decay", decay).with("limits", limits).with("accumulation", accumulation);
        let identity = identity.with("max_grad_norm", max_grad_norm).with("patience", patience).with("mode", mode);
        identity.with("likelihood", likelihood).with("objective", objective).with("seed", seed).with("snapshots", snapshots)
    }
}

/// Trains with AdamW, or with an [`UpdateRule`].
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
        if config.max_steps == Some(0) {
            return Err(Error::config("max_steps", "at least 1", 0));
        }
        if let Some(norm) = config.max_grad_norm.filter(|n| !(*n > 0.0 && n.is_finite())) {
            return Err(Error::config("max_grad_norm", "positive and finite", norm));
        }
        if !(config.weight_decay >= 0.0 && config.weight_decay.is_finite()) {
            return Err(Error::config("weight_decay", "at least 0 and finite", config.weight_decay));
        }
        Schedule::new(config.learning_rate, config.warmup_fraction, config.decay, 1)?;
        config.snapshots.validate()?;
        config.likelihood.check()?;
        Ok(Self { config })
    }

    /// Trains `model` on `data`; with `validation`, evaluates after every epoch and keeps the best.
    ///
    /// With [`Control::with_checkpoints`] the run is saved as it goes, after the last step, and when the caller cancels; the
    /// same call then goes on from the newest checkpoint, to parameters that are the same bits as without the interruption.
    /// A file holds the parameters that train, the optimiser's state, the position, and the best epoch so far; shuffles and
    /// dropout need no state, for their draws depend on (seed, epoch, item) alone. Saves and lines of the log
    /// that fail are counted ([`Control::save_failures`]) and stop nothing.
    ///
    /// A step whose loss or gradient is not finite changes nothing and is counted.
    ///
    /// # Errors
    /// If a target is missing or is none for its item, more steps than allowed are not finite (the step, its items and the last
    /// checkpoint are named), a checkpoint is damaged or of another run, the log cannot be opened, or the caller cancels.
    pub fn fit<M: Classifier, D: Dataset<Input = M::Input>>(
        &self,
        model: M,
        data: &D,
        validation: Option<&D>,
        control: &Control,
    ) -> Result<TrainOutcome<M>> {
        self.fit_by(&mut AdamW::new(self.config.weight_decay), model, data, validation, control)
    }

    /// The same with another rule than AdamW; its state is part of the checkpoints. [`TrainerConfig::weight_decay`] is
    /// AdamW's, and clipping ([`TrainerConfig::max_grad_norm`]) changes what a rule that estimates curvature sees.
    ///
    /// # Errors
    /// As [`Trainer::fit`], and as the rule.
    pub fn fit_by<M: Classifier, D: Dataset<Input = M::Input>>(
        &self,
        rule: &mut dyn UpdateRule<M>,
        model: M,
        data: &D,
        validation: Option<&D>,
        control: &Control,
    ) -> Result<TrainOutcome<M>> {
        run(&self.config, rule, model, (data, validation), control)
    }
}

/// Mean NLL in nats, and accuracy where all targets are classes; of tied classes the first is the answer, as everywhere
/// ([`top_class`]).
pub(super) fn evaluate<M: Classifier, D: Dataset<Input = M::Input>>(
    model: &M,
    data: &D,
    config: &TrainerConfig,
    control: &Control,
) -> Result<(f64, Option<f64>)> {
    let model = model.valid();
    let likelihood = &*config.likelihood;
    let targets = known_targets(data, likelihood, model.n_classes())?;
    let (mut nll, mut right, mut labelled) = (0.0, 0usize, 0usize);
    let batches = data.plan(config.limits, BatchOrder::ByLength)?;
    let work = |index: usize| {
        let input = batch_for(&model, data, &batches[index])?;
        batch_targets(data, &batches[index], &input, (&targets, likelihood), model.n_classes())?;
        outputs_on_host(model.logits(&input, &mut Tape::off()), input.class_mask())
    };
    in_order("validation", batches.len(), control.workers(), work, |index, outputs| {
        for (row, &item) in outputs.outer_iter().zip(&batches[index]) {
            nll -= likelihood.log_density(row, &targets[item]);
            if let Some(label) = targets[item].class() {
                labelled += 1;
                right += usize::from(top_class(row) == label);
            }
        }
        control.check("validation", index + 1, batches.len())
    })?;
    let n = targets.len() as f64;
    Ok((nll / n, (labelled == targets.len()).then_some(right as f64 / n)))
}
