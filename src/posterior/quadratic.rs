//! Expands the log-likelihood around the trained adapter to second order, gradient included, so that the evidence can be
//! taken where that expansion has its mode.

use super::evidence::{EvidenceOptimum, Spectrum, WHAT, rise_to_top};
use super::laplace::Laplace;
use crate::curvature::SiteSpace;
use crate::error::{Error, Result};
use crate::lora::AdapterWeights;
use crate::prior::PriorPrecision;
use crate::tape::Site;
use ndarray::{Array4, Axis, stack};
use std::collections::BTreeMap;

/// `log p(y | x, θ) ≈ log p(y | x, θ*) + gᵀ(θ − θ*) − ½ (θ − θ*)ᵀH(θ − θ*)` over the weights of one prior group.
///
/// With `b = g + H(θ* − μ)` its log joint with the prior `N(μ, λ⁻¹I)` has the mode `θ(λ) = μ + (H + λI)⁻¹b`. A maximum-likelihood
/// adapter is no mode of that joint: optimisers such as Adam move weights about which the data say nothing (`H ≈ 0`) as far
/// as any other, and the term `½λ‖θ* − μ‖²` of the ordinary Laplace evidence counts all of it as if the prior had to pay for
/// it. At θ(λ) such weights are back at the prior's centre.
///
/// MacKay (1992), Neural Computation 4(3); Antorán et al. (2022), arXiv 2206.08900, who refit the linearised model by
/// gradient steps where this solves it in the eigenbasis.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct QuadraticModel {
    /// `b_i²` for each entry of the group's [`Spectrum`]; the sum over them where an entry stands for several directions.
    pub pulls: Vec<f64>,
    /// `‖g‖²`
    pub gradient_square: f64,
    /// `gᵀ(θ* − μ)`
    pub gradient_displacement: f64,
    /// `(θ* − μ)ᵀH(θ* − μ)`
    pub curvature_displacement: f64,
}

impl QuadraticModel {
    /// Largest value over θ of the log joint (without the prior's normaliser), less the log-likelihood at the adapter:
    /// `−gᵀδ − ½ δᵀHδ + ½ bᵀ(H + λI)⁻¹b` with `δ = θ* − μ`.
    pub fn log_joint(&self, spectrum: &Spectrum, precision: PriorPrecision) -> f64 {
        let pairs = spectrum.values.iter().zip(&self.pulls);
        let pulled: f64 = pairs.map(|((e, _), b)| b / (precision.value() + e)).sum();
        -self.gradient_displacement - 0.5 * self.curvature_displacement + 0.5 * pulled
    }

    /// `‖θ(λ) − μ‖²`, how far the mode is from the prior's centre.
    pub fn scatter(&self, spectrum: &Spectrum, precision: PriorPrecision) -> f64 {
        let pairs = spectrum.values.iter().zip(&self.pulls);
        pairs.map(|((e, _), b)| b / (precision.value() + e).powi(2)).sum()
    }

    /// Maximises `log_joint − ½ log det(H/λ + I)` over λ.
    ///
    /// The derivative in log λ is `½ (Σ e/(λ + e) − λ‖θ(λ) − μ‖²)`, as at a fixed adapter, but need not fall everywhere: the
    /// best point of a grid is refined by Newton steps.
    ///
    /// # Errors
    /// If no curvature is positive, or a larger or a smaller λ is always better.
    pub(super) fn maximize(&self, spectrum: &Spectrum) -> Result<EvidenceOptimum> {
        const STEP: f64 = 0.5;
        let value = |log: f64| -> Result<f64> {
            let precision = PriorPrecision::new(log.exp())?;
            Ok(self.log_joint(spectrum, precision) - 0.5 * spectrum.log_det_ratio(precision))
        };
        let (largest, smallest) = spectrum.range()?;
        // beyond both ends the evidence has no curvature left to weigh
        let (from, to) = (smallest.ln() - 10.0, largest.ln() + 10.0);
        let mut best = (f64::NEG_INFINITY, from);
        for step in 0..=((to - from) / STEP) as usize {
            let log = from + STEP * step as f64;
            let found = value(log)?;
            if found > best.0 {
                best = (found, log);
            }
        }
        let refused =
            |why: String| Err(Error::numerical(WHAT, format!("no optimum for λ {why}: fix the prior precision")));
        if best.1 + STEP > to {
            return refused(format!("below {:.3e}, the data keep no weight from the prior's centre", to.exp()));
        }
        if best.1 == from {
            return refused(format!("above {:.3e}, a gradient points where the curvature is flat", from.exp()));
        }
        let slope = |log: f64| {
            let lambda = log.exp();
            let (mut g, mut h) = (0.0, 0.0);
            for ((e, n), b) in spectrum.values.iter().zip(&self.pulls) {
                let (share, own) = (e / (lambda + e), lambda / (lambda + e));
                let part = b * own / (lambda + e);
                g += n * share - part;
                h -= n * share * (1.0 - share) + part * (1.0 - 2.0 * own);
            }
            (0.5 * g, 0.5 * h)
        };
        rise_to_top(slope, best.1, (best.1 - STEP, best.1 + STEP))
    }
}

/// Distance of the trained adapter from the mode of the log joint `log p(y | x, θ) − ½λ‖θ − μ‖²`.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Stationarity {
    /// `‖∇ log p(y | x, θ*)‖`, summed over the data.
    pub likelihood_gradient: f64,
    /// `‖∇ log joint‖` at the present prior; zero at its mode.
    pub joint_gradient: f64,
    /// `½ ∇ᵀ(H + λI)⁻¹∇` of the log joint: what one Newton step would add to it, in nats. Where it is not small against the
    /// log evidence's differences, the evidence at the adapter is that of another point than the mode.
    pub newton_gain: f64,
}

impl Laplace {
    /// The same posterior with its evidence taken at the mode of the quadratic model around the adapter, given the gradient of
    /// the log-likelihood there ([`super::log_likelihood_gradient`]). The posterior's mean stays at the adapter, and its
    /// prior precision as it is: see [`Laplace::with_optimal_prior`].
    ///
    /// # Errors
    /// If the gradient is not about the posterior's sites, or the structure is not exact: where H approximates, the gradient
    /// points along directions that it takes for flat, and the evidence has no meaningful optimum.
    pub fn with_gradient(mut self, gradient: &AdapterWeights) -> Result<Self> {
        let structure = self.structure();
        if !structure.plan().is_exact() {
            return Err(Error::Incompatible(format!(
                "the evidence at the mode of the quadratic model needs the exact curvature (full, function space, core space), \
                 not {structure}"
            )));
        }
        let models = self.quadratic_models(gradient)?;
        self.set_quadratic(models);
        Ok(self)
    }

    /// How far the adapter is from the mode, given the gradient of its log-likelihood at it
    /// ([`super::log_likelihood_gradient`]); over the weights (or cores) that the posterior is about.
    ///
    /// # Errors
    /// If the gradient is not about the posterior's sites.
    pub fn stationarity(&self, gradient: &AdapterWeights) -> Result<Stationarity> {
        let (mut likelihood, mut joint, mut gain) = (0.0, 0.0, 0.0);
        for (index, (group, model)) in self.groups().iter().zip(self.quadratic_models(gradient)?).enumerate() {
            let precision = self.prior_precisions().of(index);
            let lambda = precision.value();
            likelihood += model.gradient_square;
            joint +=
                model.gradient_square - 2.0 * lambda * model.gradient_displacement + lambda.powi(2) * group.scatter;
            gain += model.log_joint(&group.spectrum, precision) + 0.5 * lambda * group.scatter;
        }
        Ok(Stationarity {
            likelihood_gradient: likelihood.sqrt(),
            joint_gradient: joint.max(0.0).sqrt(),
            newton_gain: gain,
        })
    }

    /// One quadratic model a prior group.
    fn quadratic_models(&self, gradient: &AdapterWeights) -> Result<Vec<QuadraticModel>> {
        let mut pairs: BTreeMap<Site, Array4<f64>> = BTreeMap::new();
        for space in self.blocks().iter().flat_map(|block| block.spaces()) {
            pairs.insert(space.site.clone(), self.gradient_and_displacement(space, gradient)?);
        }
        let projections = self.project_jacobians(&pairs)?;
        let mut models = vec![QuadraticModel::default(); self.groups().len()];
        for ((block, projection), &group) in self.blocks().iter().zip(&projections).zip(self.group_of()) {
            block.extend_quadratic(projection, &mut models[group]);
        }
        Ok(models)
    }

    /// `g` and `θ* − μ` of one site as if they were the Jacobians of two logits, `[1, 2, d_out, d_in]`.
    fn gradient_and_displacement(&self, space: &SiteSpace, gradient: &AdapterWeights) -> Result<Array4<f64>> {
        let missing = || Error::Incompatible(format!("the gradient lacks `{}`", space.site));
        let whole = gradient.get(&space.site).ok_or_else(missing)?;
        let map = &self.map()[&space.site];
        if whole.dim() != map.dim() {
            let (expected, found) = (map.shape().to_vec(), whole.shape().to_vec());
            return Err(Error::Shape { what: format!("gradient at `{}`", space.site), expected, found });
        }
        let pair = [space.used_rows(whole), space.displacement(self.map(), self.centre())?];
        let pair = stack(Axis(0), &[pair[0].view(), pair[1].view()]);
        Ok(pair.map_err(|e| Error::numerical("layout of a gradient", e))?.insert_axis(Axis(0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_that_keep_no_weight_from_the_centre_have_no_best_prior_precision() {
        let spectrum = Spectrum { values: vec![(2.0, 1.0), (0.5, 1.0)] };
        // e θ²: as far from the centre as noise of variance 1/e would put a weight at least, or less
        let at = |displacement: f64| {
            let pulls = spectrum.values.iter().map(|(e, _)| (e * displacement).powi(2)).collect();
            QuadraticModel { pulls, ..QuadraticModel::default() }.maximize(&spectrum)
        };
        let error = at(0.1).unwrap_err().to_string();
        assert!(error.contains("no optimum for λ below 4.405e4"), "{error}"); // 2 e¹⁰
        // a pull along what is flat: the expansion has no bound there
        let flat = Spectrum { values: vec![(2.0, 1.0), (1e-8, 1.0)] };
        let model = QuadraticModel { pulls: vec![0.0, 1.0], ..QuadraticModel::default() };
        let error = model.maximize(&flat).unwrap_err().to_string();
        assert!(error.contains("above 4.540e-13") && error.contains("flat"), "{error}"); // 1e-8 e⁻¹⁰
        // far enough: the derivative Σ e/(λ + e) − λ Σ (eθ/(λ + e))² is zero
        let lambda = at(3.0).unwrap().precision.value();
        let terms = spectrum.values.iter().map(|(e, _)| e / (lambda + e) - lambda * (3.0 * e / (lambda + e)).powi(2));
        assert!(terms.sum::<f64>().abs() < 1e-9);
    }
}
