//! Holds what changes while training.

use super::report::TrainReport;
use super::snapshots::Snapshot;

/// How far a run has come.
#[derive(Default)]
pub(super) struct Place {
    /// Whole epochs, with their validation.
    pub(super) epoch: usize,
    /// Steps of the present epoch.
    pub(super) steps_of_epoch: usize,
    /// Units of the present epoch whose loss counted, and its sum.
    pub(super) units_of_epoch: usize,
    pub(super) epoch_nll: f64,
    /// Length of the log after the last step.
    pub(super) log_bytes: u64,
    pub(super) report: TrainReport,
}

/// All that changes while training, but the state of the update rule.
pub(super) struct Run<M> {
    /// With gradients.
    pub(super) model: M,
    /// Without.
    pub(super) best: Option<M>,
    pub(super) snapshots: Vec<Snapshot>,
    pub(super) place: Place,
}
