//! Fits weights by maximum likelihood, or to a true maximum a posteriori with a Gaussian prior term.

mod checkpoint;
mod clip;
mod freeze;
mod log;
mod objective;
mod parameters;
mod report;
mod run;
mod schedule;
mod snapshots;
mod step;
mod trainer;
mod update;

pub use freeze::{TrainingMode, set_trainable};
pub use log::TrainLog;
pub use objective::{BatchLoss, Objective, negative_log_likelihood};
pub use report::{EpochRecord, TrainOutcome, TrainReport};
pub use schedule::{Decay, Schedule};
pub use snapshots::{Snapshot, Snapshots};
pub use trainer::{Trainer, TrainerConfig};
pub(crate) use update::AdamW;
pub use update::{StepPosition, UpdateRule};
