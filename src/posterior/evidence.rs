//! Computes the Laplace evidence and the prior precision that maximises it.

use crate::error::{Error, Result};
use crate::prior::PriorPrecision;
use crate::search::{Search, SearchEnd};

/// Eigenvalues `e ≥ 0` of the curvature `H` (a sum over the data), with multiplicities.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Spectrum {
    /// Pairs (eigenvalue, multiplicity).
    pub values: Vec<(f64, f64)>,
}

/// Where the evidence is largest.
#[derive(Debug, Clone, PartialEq)]
pub struct EvidenceOptimum {
    /// The prior precision λ.
    pub precision: PriorPrecision,
    /// Standard deviation of log λ by the curvature of the evidence there.
    pub log_sd: f64,
    /// Iterations used.
    pub iterations: usize,
    /// The search for it.
    pub search: Search,
}

impl Spectrum {
    /// `log det(H/λ + I) = Σ ln(1 + e/λ)`.
    pub fn log_det_ratio(&self, precision: PriorPrecision) -> f64 {
        self.values.iter().map(|(e, n)| n * (e / precision.value()).ln_1p()).sum()
    }

    /// `Σ e/(λ + e)`, the effective number of parameters.
    pub fn effective_dimension(&self, precision: PriorPrecision) -> f64 {
        self.values.iter().map(|(e, n)| n * e / (precision.value() + e)).sum()
    }

    /// Maximises `−½ λ·scatter − ½ log det(H/λ + I)` over λ, where scatter is `‖θ* − μ‖²`.
    ///
    /// The derivative in log λ, `½ (Σ e/(λ + e) − λ·scatter)`, falls monotonically, so there is one optimum: above the smaller of the
    /// largest eigenvalue and half its multiplicity over the scatter, below `√(Σ e / scatter)`. It is found between these by Newton
    /// steps on log λ, to a relative 1e-12.
    ///
    /// # Errors
    /// If the curvature is zero (any λ is as good as a larger one) or the scatter is zero (any smaller one is better).
    pub fn maximize(&self, scatter: f64) -> Result<EvidenceOptimum> {
        let total: f64 = self.values.iter().map(|(e, n)| e * n).sum();
        if !(total > 0.0 && total.is_finite()) {
            return Err(Error::numerical(WHAT, format!("trace of the curvature is {total}")));
        }
        if !(scatter > 0.0 && scatter.is_finite()) {
            return Err(Error::numerical(
                WHAT,
                format!("‖θ* − μ‖² is {scatter}: train the adapter first, or fix the prior precision"),
            ));
        }
        // value of the derivative in log λ and its own derivative
        let slope = |log: f64| {
            let lambda = log.exp();
            let (mut g, mut h) = (-lambda * scatter, -lambda * scatter);
            for (e, n) in &self.values {
                let share = e / (lambda + e);
                g += n * share;
                h -= n * share * (1.0 - share);
            }
            (0.5 * g, 0.5 * h)
        };
        let (largest, multiplicity) = self.values.iter().fold((0.0, 0.0), |top, v| if v.0 > top.0 { *v } else { top });
        let bounds = (largest.min(0.5 * multiplicity / scatter).ln(), (total / scatter).sqrt().ln());
        rise_to_top(slope, bounds)
    }

    /// The largest and the smallest positive eigenvalue.
    ///
    /// # Errors
    /// If none is positive.
    pub(super) fn range(&self) -> Result<(f64, f64)> {
        let positive = self.values.iter().map(|(e, _)| *e).filter(|e| *e > 0.0);
        let (largest, smallest) = positive.fold((0.0f64, f64::INFINITY), |(l, s), e| (l.max(e), s.min(e)));
        if !(largest > 0.0 && largest.is_finite()) {
            return Err(Error::numerical(WHAT, format!("largest eigenvalue of the curvature is {largest}")));
        }
        Ok((largest, smallest))
    }
}

const WHAT: &str = "evidence maximisation";

/// What the searches of this module are over.
pub(super) const PRIOR_PRECISION: &str = "prior precision";

/// Newton steps on log λ inside a bracket, to a relative 1e-12; `slope` gives the first and second derivative of the evidence.
fn rise_to_top(slope: impl Fn(f64) -> (f64, f64), bounds: (f64, f64)) -> Result<EvidenceOptimum> {
    let ((mut low, mut high), mut log) = (bounds, bounds.1);
    for iteration in 1..=200 {
        let (g, h) = slope(log);
        if g > 0.0 {
            low = log
        } else {
            high = log
        }
        let newton = log - g / h;
        let next = if newton > low && newton < high { newton } else { 0.5 * (low + high) };
        if (next - log).abs() <= 1e-12 * (1.0 + log.abs()) {
            let precision = PriorPrecision::new(next.exp())?;
            let bounds = (bounds.0.exp(), bounds.1.exp());
            return Ok(EvidenceOptimum {
                precision,
                search: Search::new(PRIOR_PRECISION, precision.value(), bounds, SearchEnd::Inside),
                log_sd: (-slope(next).1).sqrt().recip(),
                iterations: iteration,
            });
        }
        log = next;
    }
    Err(Error::numerical(WHAT, "no convergence in 200 steps"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn objective(s: &Spectrum, scatter: f64, log: f64) -> f64 {
        let precision = PriorPrecision::new(log.exp()).unwrap();
        -0.5 * log.exp() * scatter - 0.5 * s.log_det_ratio(precision)
    }

    proptest! {
        #[test]
        fn no_grid_point_beats_the_optimum(
            values in proptest::collection::vec(1e-6..1e4f64, 1..30), scatter in 1e-3..1e3f64,
        ) {
            let spectrum = Spectrum { values: values.into_iter().map(|e| (e, 1.0)).collect() };
            let best = spectrum.maximize(scatter).unwrap();
            let at = objective(&spectrum, scatter, best.precision.value().ln());
            for step in -80..=80 {
                let other = objective(&spectrum, scatter, f64::from(step) * 0.25);
                prop_assert!(other <= at + 1e-9 * (1.0 + at.abs())); // rounding of the sums
            }
        }

        #[test]
        fn the_optimum_is_stationary_by_finite_differences(
            values in proptest::collection::vec(1e-2..1e2f64, 2..20), scatter in 0.1..10.0f64,
        ) {
            let spectrum = Spectrum { values: values.into_iter().map(|e| (e, 2.0)).collect() };
            let log = spectrum.maximize(scatter).unwrap().precision.value().ln();
            let h = 1e-4;
            let slope = (objective(&spectrum, scatter, log + h) - objective(&spectrum, scatter, log - h)) / (2.0 * h);
            prop_assert!(slope.abs() < 1e-5); // central difference error h²·f''' plus rounding/h
        }
    }

    #[test]
    fn an_optimum_at_any_scale_lies_inside_its_search() {
        for (eigenvalue, scatter) in [(1e-40, 1.0), (1e40, 1e-40), (3.0, 1e60), (1e-300, 1e-3), (2.0, 2.0)] {
            let spectrum = Spectrum { values: vec![(eigenvalue, 5.0), (0.0, 7.0)] };
            let found = spectrum.maximize(scatter).unwrap();
            // 5e/(λ + e) = λ·scatter
            let lambda = found.precision.value();
            let ratio = lambda * scatter * (lambda + eigenvalue) / (5.0 * eigenvalue);
            assert!((ratio - 1.0).abs() < 1e-9, "{eigenvalue} {scatter}: {found:?}");
            assert!(found.search.is_inside() && found.search.low <= lambda && lambda <= found.search.high);
        }
    }

    #[test]
    fn degenerate_cases_are_named() {
        let spectrum = Spectrum { values: vec![(0.0, 3.0)] };
        assert!(spectrum.maximize(1.0).unwrap_err().to_string().contains("trace of the curvature is 0"));
        let spectrum = Spectrum { values: vec![(1.0, 3.0)] };
        assert!(spectrum.maximize(0.0).unwrap_err().to_string().contains("is 0"));
    }
}
