//! Gathers all metrics of one set of predictions, each with its interval.

use super::bootstrap::{BayesianBootstrap, weighted_sum};
use super::ece::Binned;
use super::interval::{Estimate, beta_interval};
use super::predictions::Predictions;
use super::ranked::Ranked;
use super::{brier, nll};
use crate::error::{Error, Result};
use crate::setters::setters;
use ndarray::ArrayView2;
use serde::{Deserialize, Serialize};

/// How predictions are scored.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct ScoreOptions {
    /// Number of confidence bins of the calibration errors, at least 1.
    pub n_bins: usize,
    /// Number of draws of the Bayesian bootstrap, at least 1.
    pub n_draws: usize,
    /// Seed of the draws.
    pub seed: u64,
    /// Mass of every interval, strictly between 0 and 1.
    pub level: f64,
}

impl Default for ScoreOptions {
    /// 15 bins, 1,000 draws, seed 0, 95 %.
    fn default() -> Self {
        let BayesianBootstrap { n_draws, seed, level } = BayesianBootstrap::default();
        Self { n_bins: 15, n_draws, seed, level }
    }
}

impl ScoreOptions {
    setters! {
        /// Sets the number of confidence bins.
        with_n_bins(n_bins: usize);
        /// Sets the number of draws of the Bayesian bootstrap.
        with_n_draws(n_draws: usize);
        /// Sets the seed of the draws.
        with_seed(seed: u64);
        /// Sets the mass of every interval.
        with_level(level: f64);
    }

    /// Checks every bound.
    ///
    /// # Errors
    /// Names the field, its bound and its value.
    pub fn validate(&self) -> Result<()> {
        for (field, value) in [("n_bins", self.n_bins), ("n_draws", self.n_draws)] {
            if value == 0 {
                return Err(Error::config(field, "at least 1", value));
            }
        }
        if !(self.level > 0.0 && self.level < 1.0) {
            return Err(Error::config("level", "strictly between 0 and 1", self.level));
        }
        Ok(())
    }

    /// The bootstrap that these options ask for.
    pub fn bootstrap(&self) -> BayesianBootstrap {
        BayesianBootstrap { n_draws: self.n_draws, seed: self.seed, level: self.level }
    }
}

/// All metrics of one set of predictions, each with its interval.
///
/// Accuracy has its Beta posterior; the others share the draws of one Bayesian bootstrap. The interval of a calibration
/// error can lie above its value, see [`ece`](crate::metrics::ece).
///
/// ```
/// use bayes_lora::metrics::{ScoreOptions, Scores};
/// use ndarray::arr2;
///
/// let p = arr2(&[[0.9, 0.1], [0.3, 0.7], [0.6, 0.4]]);
/// let scores = Scores::new(p.view(), &[0, 1, 1], &ScoreOptions::default())?;
/// assert_eq!(scores.n_items, 3);
/// assert!(scores.accuracy.low < scores.accuracy.value);
/// # Ok::<(), bayes_lora::error::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    /// Number of items scored.
    pub n_items: usize,
    /// Share of right answers.
    pub accuracy: Estimate,
    /// Negative log-likelihood, nats per item.
    pub nll: Estimate,
    /// Brier score, 0 to 2.
    pub brier: Estimate,
    /// Expected calibration error, equal-width bins.
    pub ece: Estimate,
    /// Expected calibration error, equal-mass bins.
    pub adaptive_ece: Estimate,
    /// Expected calibration error without its upward bias, equal-width bins.
    pub debiased_ece: Estimate,
    /// Maximum calibration error, equal-width bins.
    pub mce: Estimate,
    /// Area under the risk–coverage curve.
    pub aurc: Estimate,
}

impl Scores {
    /// Scores the predictions.
    ///
    /// # Shapes
    /// - probabilities: `[n_items, n_classes]`; labels: `[n_items]`.
    ///
    /// # Errors
    /// If there is no item, lengths differ, a row is not a distribution, a label is not a class, or an option is out of
    /// its bounds.
    pub fn new(probabilities: ArrayView2<f64>, labels: &[usize], options: &ScoreOptions) -> Result<Self> {
        let predictions = Predictions::new(probabilities, labels)?;
        let n_items = predictions.n_items();
        let losses = WeightedLosses::new(&predictions, options.n_bins)?;
        let adaptive = Binned::equal_mass(&predictions, options.n_bins)?;
        let [nll, brier, ece, debiased_ece, mce, aurc, adaptive_ece] =
            options.bootstrap().estimates(n_items, |weights| {
                let at = losses.at(weights);
                [at.nll, at.brier, at.ece, at.debiased_ece, at.mce, at.aurc, adaptive.at(weights).ece]
            })?;
        Ok(Self {
            n_items,
            accuracy: beta_interval(predictions.n_correct(), n_items, options.level)?,
            nll,
            brier,
            ece,
            adaptive_ece,
            debiased_ece,
            mce,
            aurc,
        })
    }
}

/// Everything that does not depend on the weights of the items, found once.
pub(super) struct WeightedLosses {
    nll: Vec<f64>,
    brier: Vec<f64>,
    binned: Binned,
    ranked: Ranked,
}

/// The losses at one weighting of the items.
pub(super) struct Losses {
    pub(super) nll: f64,
    pub(super) brier: f64,
    pub(super) ece: f64,
    pub(super) debiased_ece: f64,
    pub(super) mce: f64,
    pub(super) aurc: f64,
}

impl WeightedLosses {
    pub(super) fn new(predictions: &Predictions, n_bins: usize) -> Result<Self> {
        Ok(Self {
            nll: nll::item_losses(predictions),
            brier: brier::item_losses(predictions),
            binned: Binned::equal_width(predictions, n_bins)?,
            ranked: Ranked::new(&predictions.confidence, &predictions.correct),
        })
    }

    /// The losses when item i has the share `weights[i]` of the mass; the weights sum to 1.
    pub(super) fn at(&self, weights: &[f64]) -> Losses {
        let errors = self.binned.at(weights);
        Losses {
            nll: weighted_sum(weights, &self.nll),
            brier: weighted_sum(weights, &self.brier),
            ece: errors.ece,
            debiased_ece: errors.debiased,
            mce: errors.mce,
            aurc: self.ranked.area(weights),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics;
    use ndarray::Array2;
    use rand::rngs::ChaCha8Rng;
    use rand::{RngExt, SeedableRng};

    fn example(n_items: usize) -> (Array2<f64>, Vec<usize>) {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let mut p = Array2::from_shape_simple_fn((n_items, 4), || rng.random::<f64>().powi(3) + 0.01);
        for mut row in p.rows_mut() {
            let sum = row.sum();
            row /= sum;
        }
        let labels = (0..n_items).map(|_| rng.random_range(0..4)).collect();
        (p, labels)
    }

    #[test]
    fn values_are_those_of_the_single_metrics() {
        let (p, labels) = example(150);
        let scores = Scores::new(p.view(), &labels, &ScoreOptions::default()).unwrap();
        let pairs = [
            (scores.accuracy, metrics::accuracy(p.view(), &labels)),
            (scores.nll, metrics::nll(p.view(), &labels)),
            (scores.brier, metrics::brier(p.view(), &labels)),
            (scores.ece, metrics::ece(p.view(), &labels, 15)),
            (scores.adaptive_ece, metrics::adaptive_ece(p.view(), &labels, 15)),
            (scores.debiased_ece, metrics::debiased_ece(p.view(), &labels, 15)),
            (scores.mce, metrics::mce(p.view(), &labels, 15)),
            (scores.aurc, metrics::aurc(p.view(), &labels)),
        ];
        for (estimate, value) in pairs {
            // Weights 1/150 against a division at the end.
            assert!((estimate.value - value.unwrap()).abs() < 1e-13);
            assert!(estimate.low < estimate.high);
        }
        assert_eq!(scores.n_items, 150);
        for estimate in [scores.accuracy, scores.nll, scores.brier, scores.aurc] {
            assert!(estimate.low < estimate.value && estimate.value < estimate.high);
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_numbers() {
        let (p, labels) = example(60);
        let options = ScoreOptions { n_draws: 50, seed: 11, ..Default::default() };
        let first = Scores::new(p.view(), &labels, &options).unwrap();
        assert_eq!(first, Scores::new(p.view(), &labels, &options).unwrap());
        let other = ScoreOptions { seed: 12, ..options };
        let second = Scores::new(p.view(), &labels, &other).unwrap();
        assert_eq!(first.nll.value, second.nll.value);
        assert_ne!(first.nll.low, second.nll.low);
    }

    #[test]
    fn the_nll_interval_has_the_width_of_its_standard_error() {
        let (p, labels) = example(1200);
        let scores = Scores::new(p.view(), &labels, &ScoreOptions::default()).unwrap();
        let losses = nll::item_losses(&Predictions::new(p.view(), &labels).unwrap());
        let n = losses.len() as f64;
        let mean = losses.iter().sum::<f64>() / n;
        let variance = losses.iter().map(|l| (l - mean).powi(2)).sum::<f64>() / n;
        let expected = 2.0 * 1.96 * (variance / (n + 1.0)).sqrt();
        // The quantiles of 1,000 draws are good to about 6 %; the mean of 1,200 losses is nearly normal.
        let ratio = (scores.nll.high - scores.nll.low) / expected;
        assert!((ratio - 1.0).abs() < 0.15, "{ratio}");
    }

    #[test]
    fn one_item_is_enough() {
        let p = ndarray::arr2(&[[0.7, 0.3]]);
        let scores = Scores::new(p.view(), &[0], &ScoreOptions::default()).unwrap();
        // One item has weight 1 in every draw.
        assert_eq!(scores.nll.low, scores.nll.high);
        // Beta(2, 1) has the distribution function θ²; statrs inverts it to rounding at such shapes.
        assert!((scores.accuracy.low - 0.025f64.sqrt()).abs() < 1e-12);
    }

    #[test]
    fn options_out_of_bounds_are_refused() {
        let (p, labels) = example(5);
        let refused = |options| Scores::new(p.view(), &labels, &options).is_err();
        let fine = ScoreOptions::default();
        assert!(refused(ScoreOptions { n_bins: 0, ..fine }));
        assert!(refused(ScoreOptions { n_draws: 0, ..fine }));
        assert!(refused(ScoreOptions { level: 1.0, ..fine }));
    }
}
