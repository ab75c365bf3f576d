//! Solves the network linearised around its adapter to its own mode: a convex problem, whose evidence, matched prior and
//! leave-one-out answers need neither held-out labels nor further training.

mod batch_choice;
mod collected;
mod config;
mod cost;
mod influence;
mod items;
mod joint;
mod kernel;
mod leave_one_out;
mod matched;
mod mode;
mod model;
mod noise;
mod optimum;
mod others;
mod rows;
mod temperatures;
mod unfinished;

pub use batch_choice::Choice;
pub use config::{Beyond, LinearizedConfig};
pub use cost::{LinearizedCost, estimate_linearized};
pub use influence::Influence;
pub use items::LinearizedItems;
pub use joint::JointBelief;
pub use leave_one_out::{LeaveOneOut, largest_first};
pub use matched::MatchedPrior;
pub use mode::Mode;
pub use model::LinearizedModel;
pub use noise::NoiseOptimum;
pub use optimum::ModeOptimum;
pub use rows::JacobianRows;

#[cfg(test)]
mod others_tests;
#[cfg(test)]
mod scale_tests;
#[cfg(test)]
mod tests;
