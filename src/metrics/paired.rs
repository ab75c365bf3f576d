//! Compares two methods on the same items.

use super::bootstrap::{BayesianBootstrap, equal_weights};
use super::interval::Estimate;
use super::paired_table::{PairedTable, checked_pair};
use super::scores::{ScoreOptions, WeightedLosses};
use crate::error::Result;
use ndarray::ArrayView2;
use serde::{Deserialize, Serialize};

/// How far two methods are apart on one metric.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PairedDifference {
    /// The metric of A minus that of B, in the metric's own units.
    pub difference: Estimate,
    /// Posterior probability that A is the better of the two: lower for a loss, higher for accuracy.
    pub p_better: f64,
}

impl PairedDifference {
    /// Compares two losses, both computed from the **same** Bayesian bootstrap weights.
    ///
    /// `losses` receives weights `[n_items]` that sum to 1 and answers `(loss of A, loss of B)`. P(A better) is the
    /// share of draws in which A's loss is lower, equal draws counting half.
    ///
    /// # Errors
    /// If there is no item, a setting of the bootstrap is out of its bounds, or a loss is not finite.
    ///
    /// ```
    /// use bayes_lora::metrics::{BayesianBootstrap, PairedDifference};
    ///
    /// let (a, b) = ([0.2, 0.5, 0.1], [0.4, 0.6, 0.2]);
    /// let mean = |w: &[f64], l: &[f64; 3]| w.iter().zip(l).map(|(w, l)| w * l).sum::<f64>();
    /// let bootstrap = BayesianBootstrap::default();
    /// let paired = PairedDifference::of_losses(3, &bootstrap, |w| (mean(w, &a), mean(w, &b)))?;
    /// assert_eq!(paired.p_better, 1.0); // A is better on every item
    /// # Ok::<(), bayes_lora::error::Error>(())
    /// ```
    pub fn of_losses(
        n_items: usize,
        bootstrap: &BayesianBootstrap,
        mut losses: impl FnMut(&[f64]) -> (f64, f64),
    ) -> Result<Self> {
        let [paired] = Self::of_several(n_items, bootstrap, |w| [losses(w)])?;
        Ok(paired)
    }

    fn of_several<const K: usize>(
        n_items: usize,
        bootstrap: &BayesianBootstrap,
        mut losses: impl FnMut(&[f64]) -> [(f64, f64); K],
    ) -> Result<[Self; K]> {
        let mut differences = |w: &[f64]| losses(w).map(|(a, b)| a - b);
        let draws = bootstrap.draws(n_items, &mut differences)?;
        let values = differences(&equal_weights(n_items));
        let mut paired = [Self { difference: Estimate { value: 0.0, low: 0.0, high: 0.0 }, p_better: 0.5 }; K];
        for (k, paired) in paired.iter_mut().enumerate() {
            paired.difference = bootstrap.summarise(values[k], draws.iter().map(|d| d[k]))?;
            let lower = draws.iter().filter(|d| d[k] < 0.0).count() as f64;
            let equal = draws.iter().filter(|d| d[k] == 0.0).count() as f64;
            paired.p_better = (lower + 0.5 * equal) / draws.len() as f64;
        }
        Ok(paired)
    }
}

/// Two methods compared on the same items, metric by metric; differences are A minus B.
///
/// ```
/// use bayes_lora::metrics::{PairedScores, ScoreOptions};
/// use ndarray::arr2;
///
/// let a = arr2(&[[0.7, 0.3], [0.4, 0.6], [0.6, 0.4]]);
/// let b = arr2(&[[0.6, 0.4], [0.5, 0.5], [0.7, 0.3]]);
/// let paired = PairedScores::new(a.view(), b.view(), &[0, 1, 0], &ScoreOptions::default())?;
/// assert!(paired.accuracy.difference.value > 0.0); // higher is better
/// assert!(paired.nll.difference.value < 0.0); // lower is better
/// # Ok::<(), bayes_lora::error::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PairedScores {
    /// How the answers agree.
    pub table: PairedTable,
    /// Share of right answers; positive where A is better.
    pub accuracy: PairedDifference,
    /// Negative log-likelihood, nats per item; negative where A is better.
    pub nll: PairedDifference,
    /// Brier score; negative where A is better.
    pub brier: PairedDifference,
    /// Expected calibration error, equal-width bins; negative where A is better.
    pub ece: PairedDifference,
    /// Area under the risk–coverage curve; negative where A is better.
    pub aurc: PairedDifference,
}

impl PairedScores {
    /// Compares A with B.
    ///
    /// # Shapes
    /// - probabilities_a, probabilities_b: `[n_items, n_classes]`; labels: `[n_items]`.
    ///
    /// # Errors
    /// If the shapes differ, there is no item, a row is not a distribution, a label is not a class, or an option is out
    /// of its bounds.
    pub fn new(
        probabilities_a: ArrayView2<f64>,
        probabilities_b: ArrayView2<f64>,
        labels: &[usize],
        options: &ScoreOptions,
    ) -> Result<Self> {
        let (a, b) = checked_pair(probabilities_a, probabilities_b, labels)?;
        let table = PairedTable::count(&a, &b);
        let bootstrap = options.bootstrap();
        let a = WeightedLosses::new(&a, options.n_bins)?;
        let b = WeightedLosses::new(&b, options.n_bins)?;
        let [nll, brier, ece, aurc] = PairedDifference::of_several(labels.len(), &bootstrap, |weights| {
            let (a, b) = (a.at(weights), b.at(weights));
            [(a.nll, b.nll), (a.brier, b.brier), (a.ece, b.ece), (a.aurc, b.aurc)]
        })?;
        Ok(Self {
            table,
            accuracy: PairedDifference {
                difference: table.accuracy_difference(&bootstrap)?,
                p_better: table.p_better_accuracy(),
            },
            nll,
            brier,
            ece,
            aurc,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::bootstrap::weighted_sum;
    use ndarray::Array2;
    use rand::rngs::ChaCha8Rng;
    use rand::{RngExt, SeedableRng};

    fn example(seed: u64, sharpness: f64) -> (Array2<f64>, Vec<usize>) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let n = 200;
        let p: Vec<f64> = (0..n).map(|_| rng.random::<f64>()).collect();
        let labels = p.iter().map(|&p| usize::from(rng.random::<f64>() > p)).collect();
        let said = |p: f64| 1.0 / (1.0 + ((1.0 - p) / p).powf(sharpness));
        let p = Array2::from_shape_fn((n, 2), |(i, c)| said(if c == 0 { p[i] } else { 1.0 - p[i] }));
        (p, labels)
    }

    #[test]
    fn a_method_against_itself_is_a_tie() {
        let (p, labels) = example(1, 1.0);
        let paired = PairedScores::new(p.view(), p.view(), &labels, &ScoreOptions::default()).unwrap();
        for metric in [paired.nll, paired.brier, paired.ece, paired.aurc] {
            assert_eq!(metric.p_better, 0.5);
            assert_eq!(metric.difference.low, 0.0);
            assert_eq!(metric.difference.high, 0.0);
        }
        assert_eq!(paired.accuracy.p_better, 0.5);
        assert_eq!(paired.table.only_a + paired.table.only_b, 0);
    }

    #[test]
    fn calibrated_beats_overconfident_with_the_same_answers() {
        let (calibrated, labels) = example(2, 1.0);
        let (overconfident, _) = example(2, 4.0);
        let options = ScoreOptions::default();
        let paired = PairedScores::new(calibrated.view(), overconfident.view(), &labels, &options).unwrap();
        assert_eq!(paired.accuracy.p_better, 0.5);
        assert_eq!(paired.accuracy.difference.value, 0.0);
        assert!(paired.nll.p_better > 0.99 && paired.nll.difference.high < 0.0);
        assert!(paired.ece.p_better > 0.99);
        // The same confidences in the same order, so the same curve; equal up to rounding of the powers.
        assert!(paired.aurc.difference.value.abs() < 1e-12);
    }

    #[test]
    fn swapping_the_methods_mirrors_every_number() {
        let (a, labels) = example(3, 1.0);
        let (b, _) = example(3, 1.3);
        let options = ScoreOptions::default();
        let ab = PairedScores::new(a.view(), b.view(), &labels, &options).unwrap();
        let ba = PairedScores::new(b.view(), a.view(), &labels, &options).unwrap();
        for (x, y) in [(ab.nll, ba.nll), (ab.brier, ba.brier), (ab.ece, ba.ece)] {
            // Quantiles at p and 1 − p, interpolated from the other side.
            assert!((x.difference.low + y.difference.high).abs() < 1e-12);
            assert!((x.p_better + y.p_better - 1.0).abs() < 1e-12);
        }
    }

    #[test]
    fn pairing_is_sharper_than_two_intervals() {
        let a: Vec<f64> = (0..100).map(|i| f64::from((i * 37) % 100) / 25.0).collect();
        let b: Vec<f64> = a.iter().map(|l| l + 0.1).collect();
        let bootstrap = BayesianBootstrap::default();
        let paired =
            PairedDifference::of_losses(100, &bootstrap, |w| (weighted_sum(w, &a), weighted_sum(w, &b))).unwrap();
        assert_eq!(paired.p_better, 1.0);
        // A constant difference has no spread but rounding.
        assert!(paired.difference.high - paired.difference.low < 1e-12);
    }
}
