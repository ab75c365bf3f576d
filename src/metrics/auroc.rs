//! Measures how well one score separates two sets of items, such as foreign from familiar ones.

use super::bootstrap::{BayesianBootstrap, equal_weights};
use super::interval::Estimate;
use crate::error::{Error, Result, check_finite};

/// Probability that a positive item scores above a negative one, ties counting half.
///
/// AUROC = (1/nm) Σ_ij [1{s_i > t_j} + ½ 1{s_i = t_j}] = (R − n(n + 1)/2)/nm
///
/// with R the sum of the mid-ranks of the n positives among all. For out-of-distribution detection the positives are the
/// foreign items and the score is an uncertainty (entropy, mutual information): ½ is chance.
///
/// # Errors
/// If either set is empty or a score is not finite.
///
/// Hanley & McNeil (1982), Radiology 143.
///
/// ```
/// use bayes_lora::metrics::auroc;
///
/// let foreign_entropy = [1.2, 0.9, 0.4];
/// let familiar_entropy = [0.1, 0.4];
/// assert!((auroc(&foreign_entropy, &familiar_entropy)? - 5.5 / 6.0).abs() < 1e-12);
/// # Ok::<(), bayes_lora::error::Error>(())
/// ```
pub fn auroc(positive: &[f64], negative: &[f64]) -> Result<f64> {
    let ranking = Ranking::new(positive, negative)?;
    Ok(ranking.auroc(&equal_weights(ranking.positive.len())))
}

/// [`auroc`] with its interval: both sets of items bootstrapped, independently of each other.
///
/// # Errors
/// As [`auroc`], or if the bootstrap's own settings are out of bounds.
///
/// ```
/// use bayes_lora::metrics::{BayesianBootstrap, auroc_estimate};
///
/// let estimate = auroc_estimate(&[1.2, 0.9, 0.4], &[0.1, 0.4], &BayesianBootstrap::default())?;
/// assert!(estimate.low < estimate.value && estimate.high <= 1.0);
/// # Ok::<(), bayes_lora::error::Error>(())
/// ```
pub fn auroc_estimate(positive: &[f64], negative: &[f64], bootstrap: &BayesianBootstrap) -> Result<Estimate> {
    let ranking = Ranking::new(positive, negative)?;
    // The parts of a Dirichlet vector, each divided by its sum, are independent Dirichlet vectors.
    bootstrap.estimate(ranking.positive.len(), |weights| ranking.auroc(weights))
}

/// All items from the lowest score to the highest, in runs of equal score.
pub(super) struct Ranking {
    pub(super) order: Vec<usize>,
    pub(super) run_lengths: Vec<usize>,
    pub(super) positive: Vec<bool>,
}

impl Ranking {
    pub(super) fn new(positive: &[f64], negative: &[f64]) -> Result<Self> {
        for (what, scores) in [("positive", positive), ("negative", negative)] {
            if scores.is_empty() {
                return Err(Error::empty(format!("set of {what} items")));
            }
            check_finite(format_args!("scores of the {what} items"), scores.iter().map(|s| s.is_finite()))?;
        }
        let scores: Vec<f64> = positive.iter().chain(negative).copied().collect();
        let mut order: Vec<usize> = (0..scores.len()).collect();
        order.sort_unstable_by(|&i, &j| scores[i].total_cmp(&scores[j]));
        let runs = order.chunk_by(|&i, &j| scores[i] == scores[j]);
        Ok(Self {
            run_lengths: runs.map(<[usize]>::len).collect(),
            positive: (0..scores.len()).map(|i| i < positive.len()).collect(),
            order,
        })
    }

    /// The area when items have these weights; only ratios within each set matter.
    fn auroc(&self, weights: &[f64]) -> f64 {
        let (mut positives, mut negatives, mut pairs) = (0.0, 0.0, 0.0);
        let mut rest = &self.order[..];
        for &length in &self.run_lengths {
            let (run, tail) = rest.split_at(length);
            rest = tail;
            let (mut run_positive, mut run_negative) = (0.0, 0.0);
            for &item in run {
                if self.positive[item] {
                    run_positive += weights[item];
                } else {
                    run_negative += weights[item];
                }
            }
            pairs += run_positive * (negatives + 0.5 * run_negative);
            positives += run_positive;
            negatives += run_negative;
        }
        pairs / (positives * negatives)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn over_pairs(positive: &[f64], negative: &[f64]) -> f64 {
        let mut wins = 0.0;
        for s in positive {
            for t in negative {
                wins += if s > t {
                    1.0
                } else if s == t {
                    0.5
                } else {
                    0.0
                };
            }
        }
        wins / (positive.len() * negative.len()) as f64
    }

    #[test]
    fn equals_the_count_over_pairs_with_ties() {
        let positive = [3.0, 1.0, 2.0, 2.0, 5.0, 1.0];
        let negative = [2.0, 1.0, 0.0, 2.0, 3.0];
        let expected = over_pairs(&positive, &negative);
        // Eleven rounded weights.
        assert!((auroc(&positive, &negative).unwrap() - expected).abs() < 1e-14);
    }

    #[test]
    fn separation_is_one_and_no_information_is_a_half() {
        // Products of weights that are not powers of two.
        let near = |a: f64, b: f64| (a - b).abs() < 1e-15;
        assert!(near(auroc(&[2.0, 3.0], &[0.0, 1.0, 1.5]).unwrap(), 1.0));
        assert!(near(auroc(&[0.0, 1.0], &[2.0]).unwrap(), 0.0));
        assert!(near(auroc(&[1.0; 4], &[1.0; 3]).unwrap(), 0.5));
    }

    #[test]
    fn swapping_the_sets_gives_the_complement() {
        let (a, b) = ([0.3, 0.9, 0.5, 0.5], [0.1, 0.5, 0.7]);
        let sum = auroc(&a, &b).unwrap() + auroc(&b, &a).unwrap();
        // Seven rounded weights, twice.
        assert!((sum - 1.0).abs() < 1e-14);
    }

    #[test]
    fn the_interval_holds_the_value_and_repeats_with_the_seed() {
        let positive: Vec<f64> = (0..60).map(|i| f64::from(i % 13) + 2.0).collect();
        let negative: Vec<f64> = (0..80).map(|i| f64::from(i % 11)).collect();
        let bootstrap = BayesianBootstrap::default();
        let estimate = auroc_estimate(&positive, &negative, &bootstrap).unwrap();
        assert!(estimate.low < estimate.value && estimate.value < estimate.high);
        assert_eq!(estimate, auroc_estimate(&positive, &negative, &bootstrap).unwrap());
        // Hanley & McNeil's standard error at A ≈ 0.68, n = 60, m = 80 is 0.046; a 95 % interval spans about 0.18.
        let width = estimate.high - estimate.low;
        assert!((0.12..0.24).contains(&width), "{width}");
    }

    #[test]
    fn empty_sets_and_nan_are_refused() {
        let message = |e: Error| e.to_string();
        assert_eq!(message(auroc(&[], &[1.0]).unwrap_err()), "set of positive items is empty");
        assert_eq!(
            message(auroc(&[1.0], &[f64::NAN, 2.0]).unwrap_err()),
            "scores of the negative items: 1 of 2 values are not finite"
        );
    }
}
