//! Measures detection of one kind of item by a score at the thresholds that matter: how pure the alarms are, and how many of the
//! others set one off.

use super::auroc::Ranking;
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
    let (mut found, mut sum) = (0, 0.0);
    for (alarms, true_alarms) in alarms(positive, negative)? {
        sum += (true_alarms - found) as f64 * true_alarms as f64 / alarms as f64;
        found = true_alarms;
    }
    Ok(sum / positive.len() as f64)
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
    if !(recall > 0.0 && recall <= 1.0) {
        return Err(Error::config("recall", "in (0, 1]", recall));
    }
    let enough = |true_alarms: usize| true_alarms as f64 >= recall * positive.len() as f64;
    let levels = alarms(positive, negative)?;
    // the loosest threshold finds all
    let at = levels.into_iter().find(|(_, true_alarms)| enough(*true_alarms));
    Ok(at.map_or(1.0, |(alarms, true_alarms)| (alarms - true_alarms) as f64 / negative.len() as f64))
}

/// For every threshold from strict to loose: how many items score at least so much, and how many of them are positive.
fn alarms(positive: &[f64], negative: &[f64]) -> Result<Vec<(usize, usize)>> {
    let ranking = Ranking::new(positive, negative)?;
    let (mut end, mut alarms, mut true_alarms) = (ranking.order.len(), 0, 0);
    let levels = ranking.run_lengths.iter().rev().map(|run| {
        let items = &ranking.order[end - run..end];
        end -= run;
        alarms += run;
        true_alarms += items.iter().filter(|item| ranking.positive[**item]).count();
        (alarms, true_alarms)
    });
    Ok(levels.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
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

    #[test]
    fn bad_input_is_refused_with_names_and_numbers() {
        let error = false_positive_rate_at(0.0, &[1.0], &[0.0]).unwrap_err().to_string();
        assert!(error.contains("recall") && error.contains('0'), "{error}");
        assert!(average_precision(&[], &[1.0]).is_err());
        assert!(average_precision(&[f64::NAN], &[1.0]).is_err());
    }
}
