//! Expands the log-likelihood around the trained adapter to second order, gradient included, so that the evidence can be
//! taken where that expansion has its mode.

use super::evidence::{EvidenceOptimum, PRIOR_PRECISION, Spectrum, rise_to_top};
use crate::error::Result;
use crate::prior::PriorPrecision;
use crate::search::{Search, SearchEnd};

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
        // beyond both ends the evidence has no curvature left to weigh: no e/(λ + e) is farther from 0 or 1 than 5e-5
        let (from, to) = (smallest.ln() - 10.0, largest.ln() + 10.0);
        let mut best = (f64::NEG_INFINITY, from);
        for step in 0..=((to - from) / STEP) as usize {
            let log = from + STEP * step as f64;
            let found = value(log)?;
            if found > best.0 {
                best = (found, log);
            }
        }
        let refused = |log: f64, end, why: &str| {
            let search = Search::new(PRIOR_PRECISION, log.exp(), (from.exp(), to.exp()), end);
            search.with_meaning(format!("{why}; fix it, or take the evidence at the adapter")).inside()
        };
        if best.1 + STEP > to {
            refused(to, SearchEnd::AtUpper, "the data keep no weight from the prior's centre")?;
        }
        if best.1 == from {
            refused(from, SearchEnd::AtLower, "a gradient points where the curvature is flat")?;
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
        let mut found = rise_to_top(slope, best.1, (best.1 - STEP, best.1 + STEP))?;
        (found.search.low, found.search.high) = (from.exp(), to.exp());
        Ok(found)
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
        assert!(error.contains("44053 is at the upper end of its search"), "{error}"); // 2 e¹⁰
        // a pull along what is flat: the expansion has no bound there
        let flat = Spectrum { values: vec![(2.0, 1.0), (1e-8, 1.0)] };
        let model = QuadraticModel { pulls: vec![0.0, 1.0], ..QuadraticModel::default() };
        let error = model.maximize(&flat).unwrap_err().to_string();
        assert!(error.contains("4.54e-13 is at the lower end") && error.contains("flat"), "{error}"); // 1e-8 e⁻¹⁰
        // far enough: the derivative Σ e/(λ + e) − λ Σ (eθ/(λ + e))² is zero
        let lambda = at(3.0).unwrap().precision.value();
        let terms = spectrum.values.iter().map(|(e, _)| e / (lambda + e) - lambda * (3.0 * e / (lambda + e)).powi(2));
        assert!(terms.sum::<f64>().abs() < 1e-9);
    }
}
