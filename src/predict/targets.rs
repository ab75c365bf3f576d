//! Predicts targets of any kind: mean and covariance, with the noise that the likelihood adds to the outputs.

use super::prediction::{Predictive, believe};
use crate::belief::LogitBelief;
use crate::data::BatchLimits;
use crate::error::Result;
use crate::likelihood::TargetMoments;
use crate::models::{Classifier, Dataset};
use crate::posterior::Laplace;
use crate::progress::Control;

/// What is predicted for a set of items, whatever their targets are.
#[derive(Debug, Clone, PartialEq)]
pub struct TargetPrediction {
    /// The model's outputs, with their uncertainty, in the raw gauge where a common shift of the outputs matters.
    pub belief: LogitBelief,
    /// Mean and covariance of the targets, noise included.
    pub moments: TargetMoments,
}

/// Predicts the targets of all items of `data` under the likelihood of the posterior, batch by batch.
///
/// Of a [`crate::likelihood::Gaussian`] the covariance is that of the outputs plus σ²; of classes the mean is their probabilities.
///
/// # Errors
/// As [`super::predict_map`], [`super::predict_sampled`] and [`super::predict_linearized`].
pub fn predict_targets<M: Classifier, D: Dataset<Input = M::Input>>(
    model: &M,
    laplace: &Laplace,
    data: &D,
    how: Predictive,
    limits: &BatchLimits,
    control: &Control,
) -> Result<TargetPrediction> {
    let (belief, link) = believe((model, laplace), data, how, limits, control)?;
    Ok(TargetPrediction { moments: laplace.likelihood().target_moments(&belief, link)?, belief })
}
