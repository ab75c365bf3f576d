//! Turns curvature and a prior into a Gaussian over the adapter's weights: its evidence, its covariance of logits, and
//! draws from it.

mod evidence;
mod kron_eigen;
mod laplace;

pub use evidence::{EvidenceOptimum, Spectrum};
pub use kron_eigen::{FactorEigen, KroneckerEigen, SiteProjection};
pub use laplace::{Laplace, LaplaceConfig};
