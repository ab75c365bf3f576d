//! Turns curvature and a prior into a Gaussian over the adapter's weights: its evidence, its covariance of logits, and
//! draws from it.

mod block;
mod evidence;
mod laplace;

pub use block::Block;
pub use evidence::{EvidenceOptimum, Spectrum};
pub use laplace::{Group, Laplace, LaplaceConfig};
