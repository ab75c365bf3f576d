//! Foretells what a posterior will take, before anything runs.

use super::config::LaplaceConfig;
use super::fit::falls_back;
use super::linearized::{LinearizedCost, estimate_linearized};
use crate::curvature::{CurvatureConfig, CurvatureCost, estimate_cost};
use crate::data::BatchLimits;
use crate::error::Result;
use crate::models::{Classifier, Dataset};

/// What curvature and posterior will take.
#[derive(Debug, Clone, PartialEq)]
pub struct PosteriorCost {
    /// The sums of curvature.
    pub curvature: CurvatureCost,
    /// The linearised model of the training items, where the prior is chosen by one.
    pub linearized: Option<LinearizedCost>,
}

impl PosteriorCost {
    /// Rows of the network that are run forward and backward once each, repetitions and passes counted in.
    pub fn network_rows(&self) -> u64 {
        self.curvature.network_rows + self.linearized.as_ref().map_or(0, |cost| cost.network_rows)
    }

    /// Bytes of the curvature's sums and of what is held beside them at most.
    pub fn peak_bytes(&self) -> u64 {
        self.curvature.bytes + self.linearized.as_ref().map_or(0, |cost| cost.peak_bytes)
    }
}

impl std::fmt::Display for PosteriorCost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.curvature)?;
        self.linearized.as_ref().map_or(Ok(()), |cost| write!(f, "; {cost}"))
    }
}

/// Says what a curvature and [`crate::posterior::Laplace::fit`] will take on `data`; `limits` are those of its batches. Fallbacks to the
/// evidence that show during the fit only, such as a prior that nothing matches, are not foreseen.
///
/// # Errors
/// As [`estimate_cost`] and [`estimate_linearized`].
pub fn estimate_posterior<M: Classifier, D: Dataset<Input = M::Input>>(
    model: &M,
    data: &D,
    (curvature, laplace): (&CurvatureConfig, &LaplaceConfig),
    limits: BatchLimits,
) -> Result<PosteriorCost> {
    let is_of_cores = curvature.plan().coordinates.is_of_modules();
    let draws_in_model = curvature.likelihood_or_default().draws_in_model();
    let falls_back = falls_back(laplace.prior, (is_of_cores, draws_in_model), data).is_some();
    let linearized = (laplace.prior.needs_training_items() && !falls_back)
        .then(|| estimate_linearized(model, data, curvature, &laplace.linearized.resolved_in(limits)));
    Ok(PosteriorCost { curvature: estimate_cost(model, data, curvature)?, linearized: linearized.transpose()? })
}
