//! Says how to train.

use super::freeze::TrainingMode;
use super::objective::Objective;
use super::schedule::Decay;
use super::snapshots::Snapshots;
use crate::data::BatchLimits;
use crate::identity::Identity;
use crate::likelihood::SharedLikelihood;
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
        identity
            .with("likelihood", likelihood)
            .with("objective", objective)
            .with("seed", seed)
            .with("snapshots", snapshots)
    }
}
