//! Fits weights by maximum likelihood, or to a true maximum a posteriori with a Gaussian prior term.

mod clip;
mod freeze;
mod log;
mod objective;
mod schedule;
mod trainer;

pub use freeze::{TrainingMode, set_trainable};
pub use log::TrainLog;
pub use objective::{Objective, nll_sum, squared_error_sum};
pub use schedule::{Decay, Schedule};
pub use trainer::{EpochRecord, TrainOutcome, TrainReport, Trainer, TrainerConfig};
