//! Solves the network linearised around its adapter to its own mode: a convex problem, whose evidence, matched prior and
//! leave-one-out answers need neither held-out labels nor further training.

mod config;
mod kernel;
mod leave_one_out;
mod matched;
mod mode;
mod model;
mod optimum;
mod rows;

pub use config::LinearizedConfig;
pub use leave_one_out::LeaveOneOut;
pub use matched::MatchedPrior;
pub use mode::Mode;
pub use model::{LinearizedItems, LinearizedModel};
pub use optimum::ModeOptimum;
pub use rows::JacobianRows;

#[cfg(test)]
mod tests;
