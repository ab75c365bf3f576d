//! Says how right the surest answers are and how many can be given, each with its interval.

use super::bootstrap::BayesianBootstrap;
use super::interval::{Estimate, check_share};
use super::predictions::Predictions;
use super::ranked::Ranked;
use crate::error::Result;
use ndarray::ArrayView2;
use serde::{Deserialize, Serialize};

/// What answering the surest items alone is worth, by the top-label confidence; intervals by the Bayesian bootstrap, which sees no
/// errors but those of the items: where all of the surest are right it is sure of 1.
///
/// At equal weights these are [`RiskCoverage::accuracy_at`](super::RiskCoverage::accuracy_at) and
/// [`RiskCoverage::coverage_at`](super::RiskCoverage::coverage_at).
///
/// ```
/// use bayes_lora::metrics::{BayesianBootstrap, SelectiveScores};
/// use ndarray::arr2;
///
/// let p = arr2(&[[0.9, 0.1], [0.2, 0.8], [0.7, 0.3], [0.4, 0.6]]);
/// let scores = SelectiveScores::new(p.view(), &[0, 1, 1, 1], (0.5, 0.9), &BayesianBootstrap::default())?;
/// assert_eq!(scores.accuracy_at_coverage.value, 1.0); // of the surest two
/// assert_eq!(scores.coverage_at_accuracy.value, 0.5); // with the third, two of three are right
/// assert!(scores.coverage_at_accuracy.low < 0.5);
/// # Ok::<(), bayes_lora::error::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct SelectiveScores {
    /// Accuracy on the smallest set of surest items that makes up the given share.
    pub accuracy_at_coverage: Estimate,
    /// Largest share of items, surest first, that is answered with the given accuracy; 0 where none is.
    pub coverage_at_accuracy: Estimate,
}

impl SelectiveScores {
    /// Scores the predictions at a coverage and at an accuracy, both above 0 and at most 1.
    ///
    /// # Shapes
    /// - probabilities: `[n_items, n_classes]`; labels: `[n_items]`.
    ///
    /// # Errors
    /// If there is no item, lengths differ, a row is not a distribution, a label is not a class, or a level or an option of the
    /// bootstrap is out of its bounds.
    pub fn new(
        probabilities: ArrayView2<f64>,
        labels: &[usize],
        (coverage, accuracy): (f64, f64),
        bootstrap: &BayesianBootstrap,
    ) -> Result<Self> {
        check_share("coverage", coverage)?;
        check_share("accuracy", accuracy)?;
        let predictions = Predictions::new(probabilities, labels)?;
        let ranked = Ranked::new(&predictions.confidence, &predictions.correct);
        let statistics =
            |weights: &[f64]| [ranked.accuracy_at(coverage, weights), ranked.coverage_at(accuracy, weights)];
        let [accuracy_at_coverage, coverage_at_accuracy] = bootstrap.estimates(labels.len(), statistics)?;
        Ok(Self { accuracy_at_coverage, coverage_at_accuracy })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::RiskCoverage;
    use ndarray::Array2;

    fn example(n: usize) -> (Array2<f64>, Vec<usize>) {
        let p = Array2::from_shape_fn((n, 2), |(i, c)| {
            let sure = 0.5 + ((i * 7) % 10) as f64 / 25.0; // with ties
            if c == 0 { sure } else { 1.0 - sure }
        });
        (p, (0..n).map(|i| usize::from(i % 4 == 0)).collect())
    }

    #[test]
    fn the_values_are_those_of_the_curve() {
        let (p, labels) = example(37);
        let curve = RiskCoverage::new(p.view(), &labels).unwrap();
        for level in [0.07, 0.3, 0.75, 0.8, 1.0] {
            let bootstrap = BayesianBootstrap { n_draws: 3, ..Default::default() };
            let scores = SelectiveScores::new(p.view(), &labels, (level, level), &bootstrap).unwrap();
            assert!((scores.accuracy_at_coverage.value - curve.accuracy_at(level).unwrap()).abs() < 1e-12, "{level}");
            assert!((scores.coverage_at_accuracy.value - curve.coverage_at(level).unwrap()).abs() < 1e-12, "{level}");
        }
    }

    #[test]
    fn at_full_coverage_the_interval_is_that_of_the_accuracy() {
        let (p, labels) = example(40);
        let bootstrap = BayesianBootstrap { n_draws: 4000, ..Default::default() };
        let scores = SelectiveScores::new(p.view(), &labels, (1.0, 0.5), &bootstrap).unwrap();
        let right = |weights: &[f64]| weights.iter().zip(&labels).filter(|(_, y)| **y == 0).map(|(w, _)| w).sum();
        let expected = bootstrap.estimate(40, right).unwrap();
        let found = scores.accuracy_at_coverage;
        for (a, b) in [(found.value, expected.value), (found.low, expected.low), (found.high, expected.high)] {
            assert!((a - b).abs() < 1e-12, "{a} {b}"); // sums in another order
        }
        // three quarters are right: half is reached by all items in nearly every draw
        assert!(scores.coverage_at_accuracy.low > 1.0 - 1e-12 && scores.coverage_at_accuracy.value > 1.0 - 1e-12);
    }

    #[test]
    fn levels_out_of_bounds_are_refused_by_name() {
        let (p, labels) = example(5);
        let refusal = |levels| {
            SelectiveScores::new(p.view(), &labels, levels, &BayesianBootstrap::default()).unwrap_err().to_string()
        };
        assert_eq!(refusal((0.0, 0.5)), "coverage: must be above 0 and at most 1, got 0");
        assert_eq!(refusal((0.5, 1.5)), "accuracy: must be above 0 and at most 1, got 1.5");
    }
}
