//! Finds the inverse temperature that minimises a negative log-likelihood, and says when there is none.

use crate::error::{Error, Result};
use ndarray::ArrayView2;
use serde::{Deserialize, Serialize};

/// The bracket in which β is sought.
pub(super) const BETA_MIN: f64 = 1e-3;
const BETA_MAX: f64 = 1e3;
/// Relative width at which the search stops: the rounding of the derivatives is about there.
const TOLERANCE: f64 = 1e-14;
const MAX_ITERATIONS: usize = 200;

/// How a search for β ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TemperatureOutcome {
    /// The unique minimum lies inside `[1e-3, 1e3]` and was found.
    Optimal,
    /// The logits tell less than nothing about the labels (no β ≥ 1e-3 beats going lower): β = 1e-3, nearly uniform.
    WorseThanUniform,
    /// Sharper is always better, as when every held-out answer is right: β = 1e3 instead of infinity. The set cannot
    /// tell how sure to be; do not use this β.
    Unbounded,
    /// All logits of every item are equal, so β has no effect: β = 1.
    Undetermined,
}

/// The negative log-likelihood of held-out items as a function of β.
///
/// The largest logit of each item is taken as its zero, and absent classes are left out.
pub(super) struct Objective {
    /// Logits minus their maximum, so at most 0, finite.
    logits: Vec<Vec<f64>>,
    /// Σ_c t_c z_c of each item.
    target: Vec<f64>,
}

impl Objective {
    pub(super) fn new(logits: ArrayView2<f64>, targets: ArrayView2<f64>) -> Self {
        let (mut centred, mut target) = (Vec::new(), Vec::new());
        for (row, shares) in logits.rows().into_iter().zip(targets.rows()) {
            let max = row.fold(f64::NEG_INFINITY, |m, &v| m.max(v));
            let present = row.iter().zip(&shares).filter(|(v, _)| v.is_finite());
            target.push(present.clone().map(|(v, t)| t * (v - max)).sum());
            centred.push(present.map(|(v, _)| v - max).collect());
        }
        Self { logits: centred, target }
    }

    /// Mean negative log-likelihood at β, nats per item.
    pub(super) fn nll(&self, beta: f64) -> f64 {
        let losses = self
            .logits
            .iter()
            .zip(&self.target)
            .map(|(z, target)| z.iter().map(|z| (beta * z).exp()).sum::<f64>().ln() - beta * target);
        losses.sum::<f64>() / self.target.len() as f64
    }

    /// First and second derivative of the **summed** negative log-likelihood.
    pub(super) fn derivatives(&self, beta: f64) -> (f64, f64) {
        let (mut slope, mut curvature) = (0.0, 0.0);
        for (z, target) in self.logits.iter().zip(&self.target) {
            let (mut sum, mut first) = (0.0, 0.0);
            for z in z {
                let weight = (beta * z).exp();
                sum += weight;
                first += weight * z;
            }
            let mean = first / sum;
            let squares = z.iter().map(|z| (beta * z).exp() * (z - mean) * (z - mean));
            slope += mean - target;
            curvature += squares.sum::<f64>() / sum;
        }
        (slope, curvature)
    }

    /// The minimising β, how the search ended, and how often the derivatives were evaluated.
    pub(super) fn minimise(&self) -> Result<(f64, TemperatureOutcome, usize)> {
        if self.logits.iter().flatten().all(|&z| z == 0.0) {
            return Ok((1.0, TemperatureOutcome::Undetermined, 0));
        }
        // When all targets are on top the slope is negative for every β, but underflows to 0 long before 1e3.
        let always_right = self.target.iter().all(|&t| t == 0.0);
        if always_right || self.derivatives(BETA_MAX).0 < 0.0 {
            return Ok((BETA_MAX, TemperatureOutcome::Unbounded, 1));
        }
        if self.derivatives(BETA_MIN).0 >= 0.0 {
            return Ok((BETA_MIN, TemperatureOutcome::WorseThanUniform, 2));
        }

        let (mut low, mut high) = (BETA_MIN, BETA_MAX);
        let (mut beta, mut last_slope) = (1.0, f64::INFINITY);
        for iteration in 1..=MAX_ITERATIONS {
            let (slope, curvature) = self.derivatives(beta);
            if slope < 0.0 {
                low = beta;
            } else {
                high = beta;
            }
            let newton = beta - slope / curvature;
            let gains = slope.abs() <= 0.5 * last_slope;
            // Written so that a NaN from zero curvature bisects as well.
            let next = if gains && newton > low && newton < high { newton } else { (low * high).sqrt() };
            last_slope = slope.abs();
            let done = slope == 0.0 || (newton - beta).abs() <= TOLERANCE * beta || high - low <= TOLERANCE * beta;
            if done {
                return Ok((beta, TemperatureOutcome::Optimal, iteration + 2));
            }
            beta = next;
        }
        Err(Error::numerical(
            "temperature scaling",
            format!("no convergence in {MAX_ITERATIONS} steps; β is in [{low}, {high}]"),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calibrate::held_out::one_hot;
    use ndarray::{Array2, arr2};

    fn search(logits: &Array2<f64>, labels: &[usize]) -> (f64, TemperatureOutcome) {
        let targets = one_hot(labels, logits.nrows(), logits.ncols()).unwrap();
        let (beta, outcome, _) = Objective::new(logits.view(), targets.view()).minimise().unwrap();
        (beta, outcome)
    }

    #[test]
    fn degenerate_sets_are_reported() {
        let logits = arr2(&[[2.0, 0.0], [0.0, 1.0]]);
        let right = search(&logits, &[0, 1]);
        assert_eq!(right, (1e3, TemperatureOutcome::Unbounded));
        let wrong = search(&logits, &[1, 0]);
        assert_eq!(wrong, (1e-3, TemperatureOutcome::WorseThanUniform));
        let flat = search(&Array2::zeros((3, 2)), &[0, 1, 0]);
        assert_eq!(flat, (1.0, TemperatureOutcome::Undetermined));
        // Tiny logits, mostly right: the minimum lies beyond 1e3.
        let tiny = arr2(&[[1e-5, 0.0], [1e-5, 0.0], [1e-5, 0.0]]);
        let beyond = search(&tiny, &[0, 0, 1]);
        assert_eq!(beyond, (1e3, TemperatureOutcome::Unbounded));
    }

    #[test]
    fn huge_logits_with_one_error_converge() {
        let mut logits = Array2::from_shape_fn((200, 2), |(_, c)| if c == 0 { 700.0 } else { 0.0 });
        logits[[7, 0]] = -1e-3;
        let (beta, outcome) = search(&logits, &[0; 200]);
        assert_eq!(outcome, TemperatureOutcome::Optimal);
        // Slope: 199 · 700 e^(−700β) = 1e-3 · ½ (the small margin stays near even odds).
        let expected = f64::ln(199.0 * 700.0 / 0.5e-3) / 700.0;
        // What the equation neglects is of order β · 1e-3 in the odds and e^(−700β).
        assert!((beta / expected - 1.0).abs() < 1e-4);
    }

    #[test]
    fn derivatives_equal_central_differences() {
        let logits = arr2(&[[2.0, 0.5, -1.0], [0.0, 1.0, f64::NEG_INFINITY]]);
        let targets = one_hot(&[1, 0], 2, 3).unwrap();
        let objective = Objective::new(logits.view(), targets.view());
        let (beta, h) = (0.8, 1e-5);
        let (slope, curvature) = objective.derivatives(beta);
        // The likelihood is a mean over two items, its derivatives are sums.
        let difference = (objective.nll(beta + h) - objective.nll(beta - h)) / h;
        let (above, below) = (objective.derivatives(beta + h).0, objective.derivatives(beta - h).0);
        // h² of the truncation and 1e-16/h of the rounding.
        assert!((difference - slope).abs() < 1e-9);
        assert!(((above - below) / (2.0 * h) - curvature).abs() < 1e-9);
    }
}
