//! Fits weights by maximum likelihood, or to a true maximum a posteriori with a Gaussian prior term.

mod adapter_prior;
mod checkpoint;
mod clip;
mod config;
mod estimate;
mod evaluation;
mod freeze;
mod layout;
mod log;
mod objective;
mod parameters;
mod report;
mod run;
mod schedule;
mod snapshots;
mod state;
mod step;
mod trainer;
mod update;

pub use adapter_prior::{AdapterPrior, SharedPrior};
pub use config::TrainerConfig;
pub use estimate::estimate_activations;
pub use freeze::{TrainingMode, set_trainable};
pub use log::TrainLog;
pub use objective::{BatchLoss, Objective, negative_log_likelihood};
pub use report::{EpochRecord, TrainOutcome, TrainReport};
pub use schedule::{Decay, Schedule};
pub use snapshots::{Snapshot, Snapshots};
pub use trainer::Trainer;
pub(crate) use update::AdamW;
pub use update::{StepPosition, UpdateRule};
