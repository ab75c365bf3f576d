//! Says how to train.

use super::freeze::TrainingMode;
use super::objective::Objective;
use super::schedule::{Decay, Schedule};
use super::snapshots::Snapshots;
use crate::data::BatchLimits;
use crate::error::{Error, Result};
use crate::identity::Identity;
use crate::likelihood::SharedLikelihood;
use crate::setters::setters;
use std::path::PathBuf;

/// How to train.
///
/// ```
/// use bayes_lora::train::{Decay, TrainerConfig};
/// let config = TrainerConfig::default().with_epochs(5).with_decay(Decay::Cosine).with_patience(2);
/// assert!(config.validate().is_ok());
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
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
    /// Puts several texts of a batch into each row, of at most so many tokens: fewer pads, and the same outputs and gradients to rounding
    /// ([`crate::data::TextDataset::plan_packed`]). `None`, the default, gives every text a row of its own; data of other kinds are refused.
    pub packing: Option<usize>,
    /// Largest global norm of the gradient of a step's loss ([`Objective`]); `None` does not clip. Items of a clipped step weigh less
    /// than others.
    pub max_grad_norm: Option<f64>,
    /// Stop after so many epochs without a better validation NLL.
    pub patience: Option<usize>,
    /// Which parameters train.
    pub mode: TrainingMode,
    /// How targets depend on the model's outputs; `None` is that of the whole ([`crate::BayesLoraConfig`]), else categorical.
    pub likelihood: Option<SharedLikelihood>,
    /// Maximum likelihood or maximum a posteriori.
    pub objective: Objective,
    /// Steps with a loss or gradient that is not finite which are skipped; one more is an error.
    pub max_skipped_steps: usize,
    /// Seed of shuffles and dropout. Both are drawn by item: the order in which the items come has no part, and an item has the
    /// same dropout mask in an epoch whatever batch it is in. `None` is that of the whole ([`crate::BayesLoraConfig`]), else 0.
    pub seed: Option<u64>,
    /// At which steps the adapter is kept ([`super::TrainOutcome::snapshots`]).
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
            packing: None,
            max_grad_norm: Some(1.0),
            patience: None,
            mode: TrainingMode::Lora,
            likelihood: None,
            objective: Objective::MaximumLikelihood,
            max_skipped_steps: 10,
            seed: None,
            snapshots: Snapshots::default(),
            log: None,
        }
    }
}

impl TrainerConfig {
    setters! {
        /// Sets the passes over the training data.
        with_epochs(epochs: usize);
        /// Sets the most steps; `None` takes all epochs whole.
        with_max_steps(max_steps: impl Into<Option<usize>>);
        /// Says whether every epoch has another order.
        with_shuffle(shuffle: bool);
        /// Sets the peak learning rate.
        with_learning_rate(learning_rate: f64);
        /// Sets AdamW's decoupled weight decay.
        with_weight_decay(weight_decay: f64);
        /// Sets the share of the steps that the learning rate rises.
        with_warmup_fraction(warmup_fraction: f64);
        /// Sets what the learning rate does after.
        with_decay(decay: Decay);
        /// Sets the size of a batch of the training.
        with_limits(limits: BatchLimits);
        /// Sets the micro-batches a step.
        with_accumulation(accumulation: usize);
        /// Sets the tokens of a row that several texts share; `None` gives each a row of its own.
        with_packing(packing: impl Into<Option<usize>>);
        /// Sets the largest norm of a gradient; `None` does not clip.
        with_max_grad_norm(max_grad_norm: impl Into<Option<f64>>);
        /// Sets after how many epochs without a better validation NLL to stop; `None` never does.
        with_patience(patience: impl Into<Option<usize>>);
        /// Sets which parameters train.
        with_mode(mode: TrainingMode);
        /// Sets maximum likelihood or maximum a posteriori.
        with_objective(objective: Objective);
        /// Sets how many steps may fail.
        with_max_skipped_steps(max_skipped_steps: usize);
        /// Sets the seed of shuffles and dropout, whatever that of the whole.
        with_seed(seed: u64);
        /// Sets at which steps the adapter is kept.
        with_snapshots(snapshots: Snapshots);
        /// Sets where a JSON line for every step goes; `None` writes none.
        with_log(log: impl Into<Option<PathBuf>>);
    }

    /// Sets how targets depend on the model's outputs, whatever that of the whole.
    pub fn with_likelihood(mut self, likelihood: impl Into<SharedLikelihood>) -> Self {
        self.likelihood = Some(likelihood.into());
        self
    }

    /// The seed, 0 where none is set.
    pub fn seed_or_default(&self) -> u64 {
        self.seed.unwrap_or_default()
    }

    /// The likelihood, categorical where none is set.
    pub fn likelihood_or_default(&self) -> SharedLikelihood {
        self.likelihood.clone().unwrap_or_default()
    }

    /// Checks every bound.
    ///
    /// # Errors
    /// Names the field, its bound and its value.
    pub fn validate(&self) -> Result<()> {
        for (field, value) in [("epochs", self.epochs), ("accumulation", self.accumulation)] {
            if value == 0 {
                return Err(Error::config(field, "at least 1", value));
            }
        }
        for (field, value) in [("max_steps", self.max_steps), ("packing", self.packing)] {
            if value == Some(0) {
                return Err(Error::config(field, "at least 1", 0));
            }
        }
        if let Some(norm) = self.max_grad_norm.filter(|n| !(*n > 0.0 && n.is_finite())) {
            return Err(Error::config("max_grad_norm", "positive and finite", norm));
        }
        if !(self.weight_decay >= 0.0 && self.weight_decay.is_finite()) {
            return Err(Error::config("weight_decay", "at least 0 and finite", self.weight_decay));
        }
        Schedule::new(self.learning_rate, self.warmup_fraction, self.decay, 1)?;
        self.limits.validate()?;
        self.snapshots.validate()?;
        self.likelihood_or_default().check()
    }

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
            packing,
            max_grad_norm,
            patience,
            mode,
            likelihood: _,
            objective,
            max_skipped_steps: _,
            seed: _,
            snapshots,
            log: _,
        } = self;
        let identity = Identity::new().with("epochs", epochs).with("max_steps", max_steps).with("shuffle", shuffle);
        let identity = identity.with("learning_rate", learning_rate).with("warmup_fraction", warmup_fraction);
        let identity = identity.with("decay", decay).with("limits", limits).with("accumulation", accumulation);
        let identity = identity.with("packing", packing);
        let identity = identity.with("max_grad_norm", max_grad_norm).with("patience", patience).with("mode", mode);
        identity
            .with("likelihood", self.likelihood_or_default())
            .with("objective", objective)
            .with("seed", self.seed_or_default())
            .with("snapshots", snapshots)
    }
}
