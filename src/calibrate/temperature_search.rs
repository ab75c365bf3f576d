//! Finds the inverse temperature that minimises a negative log-likelihood, and says when there is none.

use crate::error::{Error, Result};
use crate::search::SearchEnd;
use ndarray::ArrayView2;

/// The search begins where no log-probability is farther than this from that of uniform answers: a smaller β changes nothing.
const NEARLY_UNIFORM: f64 = 1e-6;
/// … and goes at least to where the smallest gap between two logits is so many nats: a larger β changes no probability.
const NEARLY_CERTAIN: f64 = 40.0;
/// Relative width at which the search stops: the rounding of the derivatives is about there.
const TOLERANCE: f64 = 1e-14;
const MAX_ITERATIONS: usize = 200;

/// How the search for β went.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Outcome {
    pub(super) beta: f64,
    /// Relative to the scale of the logits, so that logits in other units give the same probabilities.
    pub(super) bounds: (f64, f64),
    /// `AtLower`: the logits tell less than nothing about the labels, and uniform answers are best. `AtUpper`: sharper is always better,
    /// as when every held-out answer is right. `Undetermined`: all logits of every item are equal.
    pub(super) end: SearchEnd,
    /// Evaluations of the derivatives.
    pub(super) iterations: usize,
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

    /// The minimising β, or the end at which the search for it stopped.
    pub(super) fn minimise(&self) -> Result<Outcome> {
        // the largest and the smallest gap to the logit on top
        let gaps = self.logits.iter().flatten().map(|z| -z).filter(|gap| *gap > 0.0);
        let (widest, narrowest) = gaps.fold((0.0f64, f64::INFINITY), |(w, n), gap| (w.max(gap), n.min(gap)));
        if widest == 0.0 {
            return Ok(Outcome { beta: 1.0, bounds: (1.0, 1.0), end: SearchEnd::Undetermined, iterations: 0 });
        }
        let bounded = |beta: f64| beta.clamp(f64::MIN_POSITIVE, f64::MAX);
        let mut bounds = (bounded(NEARLY_UNIFORM / widest), bounded(NEARLY_CERTAIN / narrowest));
        let at = |beta, bounds, end, iterations| Ok(Outcome { beta, bounds, end, iterations });
        // all targets are on top: the slope is negative for every β, but underflows to 0
        if self.target.iter().all(|&t| t == 0.0) {
            return at(bounds.1, bounds, SearchEnd::AtUpper, 0);
        }
        if self.derivatives(bounds.0).0 >= 0.0 {
            return at(bounds.0, bounds, SearchEnd::AtLower, 1);
        }
        let mut iterations = 1;
        // a target off the top makes the slope positive in the end, however little there is of it
        while self.derivatives(bounds.1).0 < 0.0 {
            if bounds.1 == f64::MAX {
                return at(bounds.1, bounds, SearchEnd::AtUpper, iterations);
            }
            bounds.1 = bounded(bounds.1 * 4.0);
            iterations += 1;
        }
        let (mut low, mut high) = bounds;
        let (mut beta, mut last_slope) = (1.0 / widest, f64::INFINITY);
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
            let next = if gains && newton > low && newton < high { newton } else { low.sqrt() * high.sqrt() };
            last_slope = slope.abs();
            let done = slope == 0.0 || (newton - beta).abs() <= TOLERANCE * beta || high - low <= TOLERANCE * beta;
            if done {
                return at(beta, bounds, SearchEnd::Inside, iteration + iterations);
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

    fn search(logits: &Array2<f64>, labels: &[usize]) -> Outcome {
        let targets = one_hot(labels, logits.nrows(), logits.ncols()).unwrap();
        Objective::new(logits.view(), targets.view()).minimise().unwrap()
    }

    #[test]
    fn degenerate_sets_are_reported_and_going_further_would_change_nothing() {
        let logits = arr2(&[[2.0, 0.0], [0.0, 1.0]]);
        let right = search(&logits, &[0, 1]);
        assert_eq!((right.end, right.beta), (SearchEnd::AtUpper, 40.0));
        let wrong = search(&logits, &[1, 0]);
        assert_eq!((wrong.end, wrong.beta), (SearchEnd::AtLower, 5e-7));
        let flat = search(&Array2::zeros((3, 2)), &[0, 1, 0]);
        assert_eq!((flat.end, flat.beta), (SearchEnd::Undetermined, 1.0));
    }

    #[test]
    fn three_of_four_right_has_a_minimum_at_any_scale_of_the_logits() {
        for scale in [1e-9, 1e-5, 1.0, 5e3, 1e6, 1e100] {
            let logits = Array2::from_shape_fn((4, 2), |(_, c)| if c == 0 { scale } else { 0.0 });
            let found = search(&logits, &[0, 0, 0, 1]);
            assert_eq!(found.end, SearchEnd::Inside, "{scale}");
            // the odds are three to one
            assert!((found.beta * scale / 3f64.ln() - 1.0).abs() < 1e-12, "{scale}: {found:?}");
            assert!(found.bounds.0 < found.beta && found.beta < found.bounds.1);
        }
    }

    #[test]
    fn a_gap_of_rounding_beside_one_of_thousands_still_converges() {
        let logits = arr2(&[[5000.0, 0.0], [5000.0, 0.0], [5000.0, 0.0], [1e-12, 0.0]]);
        let found = search(&logits, &[0, 0, 1, 1]);
        assert_eq!(found.end, SearchEnd::Inside, "{found:?}");
        assert!((found.beta * 5000.0 / 2f64.ln() - 1.0).abs() < 1e-9, "{found:?}");
    }

    #[test]
    fn huge_logits_with_one_error_converge() {
        let mut logits = Array2::from_shape_fn((200, 2), |(_, c)| if c == 0 { 700.0 } else { 0.0 });
        logits[[7, 0]] = -1e-3;
        let Outcome { beta, end, .. } = search(&logits, &[0; 200]);
        assert_eq!(end, SearchEnd::Inside);
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
