//! Measures detection of one kind of item by a score at the thresholds that matter: how pure the alarms are, and how many of the
//! others set one off.

use super::auroc::Ranking;
use super::bootstrap::BayesianBootstrap;
use super::interval::Estimate;
use crate::error::{Error, Result};

/// Mean precision over the thresholds, weighted by the recall that each adds.
///
/// AUPR = Σ_k (R_k − R_{k−1}) P_k
///
/// with P and R of the items that score at least the k-th highest value. Chance is the share of positives: say which set is
/// positive, and how large both are. As scikit-learn's `average_precision_score`.
///
/// # Errors
/// If either set is empty or a score is not finite.
///
/// Davis & Goadrich (2006), ICML.
///
/// ```
/// use bayes_lora::metrics::average_precision;
///
/// let foreign_entropy = [1.2, 0.9, 0.4];
/// let familiar_entropy = [0.1, 0.6];
/// // precision 1 at two of three recalls, then 3/4
/// assert!((average_precision(&foreign_entropy, &familiar_entropy)? - (2.0 + 0.75) / 3.0).abs() < 1e-12);
/// # Ok::<(), bayes_lora::error::Error>(())
/// ```
pub fn average_precision(positive: &[f64], negative: &[f64]) -> Result<f64> {
    let alarms = Alarms::new(positive, negative)?;
    Ok(alarms.average_precision(&alarms.equal_weights()))
}

/// [`average_precision`] with its interval: both sets of items bootstrapped, independently of each other and at their sizes.
///
/// # Errors
/// As [`average_precision`], or if the bootstrap's own settings are out of bounds.
///
/// ```
/// use bayes_lora::metrics::{BayesianBootstrap, average_precision_estimate};
///
/// let estimate = average_precision_estimate(&[1.2, 0.9, 0.4], &[0.1, 0.6], &BayesianBootstrap::default())?;
/// assert!(estimate.low < estimate.value && estimate.high <= 1.0);
/// # Ok::<(), bayes_lora::error::Error>(())
/// ```
pub fn average_precision_estimate(
    positive: &[f64],
    negative: &[f64],
    bootstrap: &BayesianBootstrap,
) -> Result<Estimate> {
    let alarms = Alarms::new(positive, negative)?;
    alarms.estimate(bootstrap, |weights| alarms.average_precision(weights))
}

/// Share of negatives that score at least the threshold at which the share `recall` of positives does: FPR@95 for 0.95.
///
/// The threshold is the strictest one that finds so many.
///
/// # Errors
/// If either set is empty, a score is not finite, or `recall` is not in (0, 1].
///
/// ```
/// use bayes_lora::metrics::false_positive_rate_at;
///
/// assert_eq!(false_positive_rate_at(0.95, &[1.2, 0.9, 0.4], &[0.1, 0.6])?, 0.5);
/// # Ok::<(), bayes_lora::error::Error>(())
/// ```
pub fn false_positive_rate_at(recall: f64, positive: &[f64], negative: &[f64]) -> Result<f64> {
    check_recall(recall)?;
    let alarms = Alarms::new(positive, negative)?;
    Ok(alarms.false_positive_rate_at(recall, &alarms.equal_weights()))
}

/// [`false_positive_rate_at`] with its interval: both sets of items bootstrapped, independently of each other.
///
/// # Errors
/// As [`false_positive_rate_at`], or if the bootstrap's own settings are out of bounds.
///
/// ```
/// use bayes_lora::metrics::{BayesianBootstrap, false_positive_rate_estimate};
///
/// let estimate = false_positive_rate_estimate(0.95, &[1.2, 0.9, 0.4], &[0.1, 0.6], &BayesianBootstrap::default())?;
/// assert!(estimate.low <= 0.5 && 0.5 <= estimate.high);
/// # Ok::<(), bayes_lora::error::Error>(())
/// ```
pub fn false_positive_rate_estimate(
    recall: f64,
    positive: &[f64],
    negative: &[f64],
    bootstrap: &BayesianBootstrap,
) -> Result<Estimate> {
    check_recall(recall)?;
    let alarms = Alarms::new(positive, negative)?;
    alarms.estimate(bootstrap, |weights| alarms.false_positive_rate_at(recall, weights))
}

fn check_recall(recall: f64) -> Result<()> {
    if recall > 0.0 && recall <= 1.0 { Ok(()) } else { Err(Error::config("recall", "in (0, 1]", recall)) }
}

/// Items by score, as thresholds see them.
struct Alarms {
    ranking: Ranking,
    n_positive: f64,
    n_negative: f64,
}

impl Alarms {
    fn new(positive: &[f64], negative: &[f64]) -> Result<Self> {
        let ranking = Ranking::new(positive, negative)?;
        Ok(Self { ranking, n_positive: positive.len() as f64, n_negative: negative.len() as f64 })
    }

    fn equal_weights(&self) -> Vec<f64> {
        vec![1.0; self.ranking.order.len()]
    }

    /// A statistic with its interval. Its value is that of the counts: the bootstrap's equal weights add up to them but for rounding.
    fn estimate(&self, bootstrap: &BayesianBootstrap, statistic: impl Fn(&[f64]) -> f64) -> Result<Estimate> {
        let drawn = bootstrap.estimate(self.ranking.order.len(), &statistic)?;
        Ok(Estimate { value: statistic(&self.equal_weights()), ..drawn })
    }

    /// For every threshold from strict to loose, how many positives and how many negatives score at least so much. Items count by
    /// their weights, which are scaled to sum to its size in each set: where all are 1, these are counts, exactly.
    fn levels(&self, weights: &[f64]) -> Vec<(f64, f64)> {
        let of_set = |items: &[usize], positive: bool| -> f64 {
            items.iter().filter(|item| self.ranking.positive[**item] == positive).map(|item| weights[*item]).sum()
        };
        let order = &self.ranking.order;
        let (to_positive, to_negative) =
            (self.n_positive / of_set(order, true), self.n_negative / of_set(order, false));
        let (mut end, mut right, mut wrong) = (order.len(), 0.0, 0.0);
        let levels = self.ranking.run_lengths.iter().rev().map(|run| {
            let items = &order[end - run..end];
            end -= run;
            right += to_positive * of_set(items, true);
            wrong += to_negative * of_set(items, false);
            (right, wrong)
        });
        levels.collect()
    }

    fn average_precision(&self, weights: &[f64]) -> f64 {
        let (mut found, mut sum) = (0.0, 0.0);
        for (right, wrong) in self.levels(weights) {
            if right > found {
                sum += (right - found) * right / (right + wrong);
                found = right;
            }
        }
        sum / self.n_positive
    }

    fn false_positive_rate_at(&self, recall: f64, weights: &[f64]) -> f64 {
        let enough = |level: &(f64, f64)| level.0 >= recall * self.n_positive;
        // the loosest threshold finds all
        self.levels(weights).iter().find(|level| enough(level)).map_or(1.0, |(_, wrong)| wrong / self.n_negative)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::draws::{Purpose, generator, normals, place};
    use proptest::prelude::*;

    #[test]
    fn known_numbers_are_met() {
        // scikit-learn's own example: y = [0, 0, 1, 1], score = [0.1, 0.4, 0.35, 0.8]
        let (positive, negative) = ([0.35, 0.8], [0.1, 0.4]);
        assert!((average_precision(&positive, &negative).unwrap() - 0.8333333333333333).abs() < 1e-15);
        assert_eq!(false_positive_rate_at(0.5, &positive, &negative).unwrap(), 0.0);
        assert_eq!(false_positive_rate_at(0.95, &positive, &negative).unwrap(), 0.5);
        // nothing is told apart: precision is the share of positives, every negative sets off an alarm
        let (same, other) = ([2.0; 3], [2.0; 9]);
        assert_eq!(average_precision(&same, &other).unwrap(), 0.25);
        assert_eq!(false_positive_rate_at(0.01, &same, &other).unwrap(), 1.0);
        // all positives are above
        assert_eq!(average_precision(&[5.0, 6.0], &[1.0, 2.0]).unwrap(), 1.0);
        assert_eq!(false_positive_rate_at(1.0, &[5.0, 6.0], &[1.0, 2.0]).unwrap(), 0.0);
    }

    proptest! {
        #[test]
        fn both_equal_their_definitions_by_counting(
            positive in prop::collection::vec(0..6i32, 1..12),
            negative in prop::collection::vec(0..6i32, 1..12),
            recall in 0.05..1.0f64,
        ) {
            let as_scores = |values: &[i32]| values.iter().map(|v| f64::from(*v)).collect::<Vec<f64>>();
            let at_least = |values: &[i32], t: i32| values.iter().filter(|v| **v >= t).count() as f64;
            let n = positive.len() as f64;
            let (mut expected, mut before, mut rate) = (0.0, 0.0, None);
            for t in (0..6).rev() {
                let (right, wrong) = (at_least(&positive, t), at_least(&negative, t));
                if right > before {
                    expected += (right - before) / n * right / (right + wrong);
                    before = right;
                }
                if right >= recall * n && rate.is_none() {
                    rate = Some(wrong / negative.len() as f64);
                }
            }
            let (p, q) = (as_scores(&positive), as_scores(&negative));
            prop_assert!((average_precision(&p, &q).unwrap() - expected).abs() < 1e-12);
            prop_assert_eq!(false_positive_rate_at(recall, &p, &q).unwrap(), rate.unwrap());
        }
    }

    /// Mean and standard deviation of what a bootstrap draws, from its 68 % interval.
    fn drawn(estimate: &Estimate) -> (f64, f64) {
        (0.5 * (estimate.low + estimate.high), 0.5 * (estimate.high - estimate.low))
    }

    #[test]
    fn intervals_are_as_wide_as_the_spread_over_fresh_data() {
        // scores N(1, 1) against N(0, 1): what 100 + 150 of them say varies from sample to sample
        let sample = |k: u64| {
            let normals = normals(&mut generator(7, Purpose::Synthetic, place("scores"), k), (1, 250));
            let scores = normals.into_raw_vec_and_offset().0;
            let positive: Vec<f64> = scores[..100].iter().map(|z| z + 1.0).collect();
            (positive, scores[100..].to_vec())
        };
        let bootstrap = BayesianBootstrap { n_draws: 2000, level: 0.6827, ..BayesianBootstrap::default() };
        let (p, n) = sample(0);
        for (estimate, value) in [
            (average_precision_estimate(&p, &n, &bootstrap).unwrap(), average_precision as fn(&[f64], &[f64]) -> _),
            (false_positive_rate_estimate(0.8, &p, &n, &bootstrap).unwrap(), |p, n| false_positive_rate_at(0.8, p, n)),
        ] {
            let fresh: Vec<f64> = (1..400).map(&sample).map(|(p, n)| value(&p, &n).unwrap()).collect();
            let mean = fresh.iter().sum::<f64>() / fresh.len() as f64;
            let sd = (fresh.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / fresh.len() as f64).sqrt();
            let (centre, width) = drawn(&estimate);
            // one sample's width is known to a third or so, its centre to a few of them
            assert!((0.67..1.5).contains(&(width / sd)), "{width} against {sd}");
            assert!((centre - mean).abs() < 4.0 * sd, "{centre} against {mean}, {sd}");
            assert_eq!(estimate.value, value(&p, &n).unwrap());
        }
    }

    #[test]
    fn bad_input_is_refused_with_names_and_numbers() {
        let error = false_positive_rate_at(0.0, &[1.0], &[0.0]).unwrap_err().to_string();
        assert!(error.contains("recall") && error.contains('0'), "{error}");
        assert!(average_precision(&[], &[1.0]).is_err());
        assert!(average_precision(&[f64::NAN], &[1.0]).is_err());
    }
}
