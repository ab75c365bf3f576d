//! Says how a posterior is built.

use super::linearized::{Beyond, LinearizedConfig};
use crate::error::{Error, Result};
use crate::prior::{PriorChoice, PriorGrouping, PriorMean, PriorPrecision};
use crate::setters::setters;

/// How the posterior is built from the curvature.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
#[non_exhaustive]
pub struct LaplaceConfig {
    /// Centre of the prior.
    pub prior_mean: PriorMean,
    /// Which weights share a prior precision.
    pub prior_grouping: PriorGrouping,
    /// How the prior precisions are found.
    pub prior: PriorChoice,
    /// Give answers the temperature that suits the training items when each is left out; with a matched prior alone. Targets that are no
    /// classes have none.
    pub leave_one_out_temperature: bool,
    /// Factor T on the posterior covariance: below 1 a cold posterior, above 1 a warm one. No part of the evidence.
    pub temperature: f64,
    /// Forget the trace that low-rank factors discarded instead of keeping it as an isotropic rest.
    pub without_residual: bool,
    /// The linearised model by which a prior is chosen that needs the training items. Beyond an exact kernel it is about a random subset of
    /// them, as large as the bounds hold. Of 1,000 items of four classes 500 found λ 6 to 19 % and β up to 0.16 too small, in 15 seconds of
    /// the processor; 256 random sums of all, in as many, λ by a factor of fifty and β by 0.2 (docs/results/prior_cost.md).
    pub linearized: LinearizedConfig,
}

impl Default for LaplaceConfig {
    /// One precision for all weights by evidence, prior around the start where it is known, temperature 1.
    fn default() -> Self {
        Self {
            prior_mean: PriorMean::default(),
            prior_grouping: PriorGrouping::default(),
            prior: PriorChoice::default(),
            leave_one_out_temperature: false,
            temperature: 1.0,
            without_residual: false,
            linearized: LinearizedConfig::default().with_beyond(Beyond::Subset { seed: 0 }),
        }
    }
}

impl LaplaceConfig {
    /// What [`crate::BayesLoraConfig`] uses: the prior matched to the training fit where one is, by evidence otherwise, and answers at the
    /// temperature that suits the training items when each is left out. No held-out label is read. For [`crate::posterior::Laplace::fit`].
    pub fn without_labels() -> Self {
        Self::default().with_prior(PriorChoice::MatchedOrEvidence).with_leave_one_out_temperature(true)
    }

    setters! {
        /// Sets the centre of the prior.
        with_prior_mean(prior_mean: PriorMean);
        /// Sets which weights share a prior precision.
        with_prior_grouping(prior_grouping: PriorGrouping);
        /// Sets how the prior precisions are found.
        with_prior(prior: PriorChoice);
        /// Says whether answers get the temperature that suits the training items when each is left out.
        with_leave_one_out_temperature(leave_one_out_temperature: bool);
        /// Sets the factor on the posterior covariance.
        with_temperature(temperature: f64);
        /// Says whether to forget the trace that low-rank factors discarded.
        with_without_residual(without_residual: bool);
        /// Sets how the linearised model is made by which a prior is chosen that needs the training items.
        with_linearized(linearized: LinearizedConfig);
    }

    /// Sets a fixed prior precision for all weights.
    pub fn with_prior_precision(self, precision: PriorPrecision) -> Self {
        self.with_prior(PriorChoice::Fixed(precision))
    }

    /// Checks every bound.
    ///
    /// # Errors
    /// Names the field, its bound and its value.
    pub fn validate(&self) -> Result<()> {
        if !(self.temperature > 0.0 && self.temperature.is_finite()) {
            return Err(Error::config("temperature", "positive and finite", self.temperature));
        }
        if self.leave_one_out_temperature && !self.prior.is_matched() {
            return Err(Error::config(
                "prior for the leave-one-out temperature",
                "matched: items are left out under the prior that fits them as the network does",
                self.prior,
            ));
        }
        self.linearized.validate()
    }
}
