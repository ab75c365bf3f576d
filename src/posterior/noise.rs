//! Fits the posterior of a regression with its noise variance by evidence.

use super::config::LaplaceConfig;
use super::laplace::Laplace;
use super::linearized::{LinearizedModel, NoiseOptimum};
use crate::curvature::{CurvatureConfig, fit_curvature};
use crate::data::BatchLimits;
use crate::error::Result;
use crate::likelihood::Gaussian;
use crate::models::{Classifier, Dataset};
use crate::prior::{PriorChoice, PriorGrouping, PriorPrecision};
use crate::progress::Control;

impl Laplace {
    /// The posterior of an adapter trained on numbers, with the noise variance and the prior precision that have the most evidence together
    /// ([`LinearizedModel::optimal_noise`]), whatever noise variance the adapter was trained with: the least squares do not depend on it.
    /// The configured choice of a prior is not asked; several groups keep the ratios that the evidence gives them at unit noise.
    ///
    /// It takes two passes for the curvature, before and after, and one for the Jacobians of the training items.
    ///
    /// # Errors
    /// As [`fit_curvature`], [`Laplace::new`], [`LinearizedModel::of`] and [`LinearizedModel::optimal_noise`].
    pub fn fit_noise<M: Classifier, D: Dataset<Input = M::Input>>(
        model: &M,
        data: &D,
        (curvature, config): (&CurvatureConfig, &LaplaceConfig),
        limits: &BatchLimits,
        control: &Control,
    ) -> Result<(Self, NoiseOptimum)> {
        config.validate()?;
        let reference = match config.prior_grouping {
            PriorGrouping::Scalar => PriorChoice::Fixed(PriorPrecision::new(1.0)?),
            _ => PriorChoice::Evidence,
        };
        let plain = LaplaceConfig { prior: reference, leave_one_out_temperature: false, ..*config };
        let with_noise = |noise_variance| {
            let curvature = curvature.clone().with_likelihood(Gaussian { noise_variance });
            Self::new(model, &fit_curvature(model, data, &curvature, control)?, &plain)
        };
        let unit = with_noise(1.0)?;
        let linearized = LinearizedModel::of(model, &unit, data, &config.linearized.resolved_in(*limits), control)?;
        let found = linearized.optimal_noise()?;
        let mut laplace = with_noise(found.noise_variance)?.with_prior_precisions(found.precisions.clone())?;
        laplace.set_prior_searches(vec![found.search.clone()]);
        Ok((laplace, found))
    }
}
