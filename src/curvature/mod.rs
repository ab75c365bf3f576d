//! Accumulates the generalised Gauss–Newton matrix of the training data, site by site.
//!
//! Everything that leaves this module is a **sum over the data**, never a mean.

mod batch_sums;
mod fisher;
mod kron;
mod probe;

pub use fisher::{FisherKind, TokenTreatment};
pub use kron::{CurvatureConfig, FactorSum, KroneckerCurvature, KroneckerFactors, fit_kronecker};
pub(crate) use probe::host_logits;
pub use probe::{Cotangents, Probe, SiteProbe, probe};
