//! What training says about itself: a line a step, a record an epoch, and a report in the end.

use super::snapshots::Snapshot;
use serde::Serialize;

/// One epoch's figures; NLLs are means over units ([`crate::models::Dataset::units`]: items, or scored tokens of texts), in nats.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct EpochRecord {
    /// 1, 2, …
    pub epoch: usize,
    /// Mean training NLL over the epoch, while the weights moved; steps that were skipped do not count.
    pub train_nll: f64,
    /// Mean validation NLL after it.
    pub validation_nll: Option<f64>,
    /// Validation accuracy after it.
    pub validation_accuracy: Option<f64>,
}

impl EpochRecord {
    /// `exp` of the validation NLL: the perplexity, where the unit is a token.
    pub fn validation_perplexity(&self) -> Option<f64> {
        self.validation_nll.map(f64::exp)
    }
}

/// What happened during training; a resumed run counts from its very start.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct TrainReport {
    /// Every epoch's figures.
    pub epochs: Vec<EpochRecord>,
    /// The epoch with the best validation NLL.
    pub best_epoch: Option<usize>,
    /// Steps through the data.
    pub steps: usize,
    /// Steps among them that changed nothing because their loss or gradient was not finite.
    pub skipped_steps: usize,
    /// Items processed, over all epochs.
    pub items: usize,
    /// Real tokens processed, over all epochs.
    pub tokens: usize,
    /// Wall-clock seconds of the training passes alone (without validation and saving).
    pub seconds: f64,
    /// The step after which a checkpoint was taken up.
    pub resumed_after: Option<usize>,
}

/// The trained model, and the one with the best validation NLL if there was validation.
#[derive(Debug, Clone)]
pub struct TrainOutcome<M> {
    /// The model after the last step.
    pub model: M,
    /// The model after the best epoch.
    pub best: Option<M>,
    /// The adapter along the run, oldest first, where [`super::TrainerConfig::snapshots`] asks for it.
    pub snapshots: Vec<Snapshot>,
    /// What happened.
    pub report: TrainReport,
}

/// A step's line in the log.
#[derive(Serialize)]
pub(super) struct StepRecord {
    pub(super) step: usize,
    pub(super) epoch: usize,
    pub(super) mean_nll: f64,
    pub(super) learning_rate: f64,
    pub(super) gradient_norm: f64,
    pub(super) tokens_per_second: f64,
    pub(super) skipped: bool,
}
