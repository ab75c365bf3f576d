//! Says what a posterior's file holds, without the model that it is about.

use super::fitted_on::FittedOn;
use crate::curvature::CurvatureStructure;
use crate::likelihood::SharedLikelihood;
use crate::prior::{PriorGrouping, PriorPrecisions};
use crate::search::Search;

/// What a posterior's file says about itself; see [`super::Laplace::summary`].
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct PosteriorSummary {
    /// The version of the crate that wrote it.
    pub crate_version: String,
    /// How the curvature is held.
    pub structure: CurvatureStructure,
    /// Which weights share a prior precision.
    pub prior_grouping: PriorGrouping,
    /// The prior precisions, one a group.
    pub prior_precisions: PriorPrecisions,
    /// How they were found, one search a group; empty where they were given.
    pub prior_searches: Vec<Search>,
    /// The covariance's factor T.
    pub temperature: f64,
    /// The temperatures of answers where they were found: of the trained adapter alone, and of the posterior.
    pub answer_temperatures: Option<[Search; 2]>,
    /// How targets depend on the model's outputs.
    pub likelihood: SharedLikelihood,
    /// `Σ log p(y | x, θ*)` over the training data in nats, where all targets were known.
    pub log_likelihood: Option<f64>,
    /// The training items, and how they were asked.
    pub fitted_on: FittedOn,
    /// Of the adapter, by [`crate::lora::adapter_fingerprint`].
    pub adapter_fingerprint: u64,
    /// Of the base below it, by [`crate::lora::base_fingerprint`].
    pub base_fingerprint: u64,
    /// Number of blocks of the covariance.
    pub n_blocks: usize,
}
