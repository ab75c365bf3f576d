//! Turns curvature and a prior into a Gaussian over the adapter's weights: its evidence, its covariance of logits, and
//! draws from it.

mod about;
mod adapter_average;
mod agreement;
mod answers;
mod block;
mod config;
mod conjugate_gradients;
mod cost;
mod evidence;
mod fit;
mod fitted_on;
mod gradient;
mod groups;
mod held_out;
mod held_out_draws;
mod jacobians;
mod laplace;
mod linearized;
mod next_evidence;
mod noise;
mod posterior_prior;
mod precision;
mod sample_then_optimize;
mod stationarity;
mod storage;
mod summary;

pub use adapter_average::AdapterAverage;
pub use answers::AnswerTemperatures;
pub use block::Block;
pub use config::LaplaceConfig;
pub use conjugate_gradients::SolverReport;
pub use cost::{PosteriorCost, estimate_posterior};
pub use evidence::{EvidenceOptimum, Spectrum};
pub use fitted_on::FittedOn;
pub use gradient::log_likelihood_gradient;
pub use groups::Group;
pub use held_out::{HeldOut, TunedPrior};
pub use held_out_draws::DrawnHeldOut;
pub use jacobians::LogitJacobians;
pub(crate) use jacobians::repetitions_in;
pub use laplace::Laplace;
pub use linearized::{
    Beyond, Choice, Influence, JacobianRows, JointBelief, LeaveOneOut, LinearizedConfig, LinearizedCost,
    LinearizedItems, LinearizedModel, MatchedPrior, Mode, ModeOptimum, NoiseOptimum, estimate_linearized,
    largest_first,
};
pub use posterior_prior::PosteriorPrior;
pub use sample_then_optimize::SampleThenOptimize;
pub use stationarity::Stationarity;
pub use storage::POSTERIOR_FILE;
pub use summary::PosteriorSummary;
