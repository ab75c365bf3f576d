//! Says how a posterior is built.

use crate::error::{Error, Result};
use crate::prior::{PriorGrouping, PriorMean, PriorPrecision};
use crate::setters::setters;

/// How the posterior is built from the curvature.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
#[non_exhaustive]
pub struct LaplaceConfig {
    /// Centre of the prior.
    pub prior_mean: PriorMean,
    /// Which weights share a prior precision.
    pub prior_grouping: PriorGrouping,
    /// A fixed prior precision for all weights; `None` maximises the evidence, group by group.
    pub prior_precision: Option<PriorPrecision>,
    /// Factor T on the posterior covariance: below 1 a cold posterior, above 1 a warm one. No part of the evidence.
    pub temperature: f64,
    /// Forget the trace that low-rank factors discarded instead of keeping it as an isotropic rest.
    pub without_residual: bool,
}

impl Default for LaplaceConfig {
    /// One precision for all weights by evidence, prior around the start where it is known, temperature 1.
    fn default() -> Self {
        Self {
            prior_mean: PriorMean::default(),
            prior_grouping: PriorGrouping::default(),
            prior_precision: None,
            temperature: 1.0,
            without_residual: false,
        }
    }
}

impl LaplaceConfig {
    setters! {
        /// Sets the centre of the prior.
        with_prior_mean(prior_mean: PriorMean);
        /// Sets which weights share a prior precision.
        with_prior_grouping(prior_grouping: PriorGrouping);
        /// Sets a fixed prior precision; `None` maximises the evidence.
        with_prior_precision(prior_precision: impl Into<Option<PriorPrecision>>);
        /// Sets the factor on the posterior covariance.
        with_temperature(temperature: f64);
        /// Says whether to forget the trace that low-rank factors discarded.
        with_without_residual(without_residual: bool);
    }

    /// Checks every bound.
    ///
    /// # Errors
    /// Names the field, its bound and its value.
    pub fn validate(&self) -> Result<()> {
        if !(self.temperature > 0.0 && self.temperature.is_finite()) {
            return Err(Error::config("temperature", "positive and finite", self.temperature));
        }
        Ok(())
    }
}
