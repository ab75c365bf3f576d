//! Asks how much of what a perfect ranking of the errors would save is saved by a score that rejects answers.

use super::bootstrap::{BayesianBootstrap, equal_weights};
use super::interval::Estimate;
use super::ranked::Ranked;
use crate::error::{Error, Result, check_finite};

/// Prediction rejection ratio: the area between the rejection curve of chance and that of a confidence, over the area between those of
/// chance and of an oracle.
///
/// PRR = (r − A)/(r − A*)
///
/// with r the share of errors among all answers (the curve of chance), A the area under the risk–coverage curve of the confidence
/// ([`RiskCoverage`](super::RiskCoverage)), and A* that of the oracle, who rejects every error first. 1 is the oracle, 0 is chance, and a
/// confidence that ranks backwards is below 0. Of equal confidences the mean over all orders counts.
///
/// The risk is that of the answers kept, as in LM-Polygraph. Where rejected answers are replaced by right ones and risk is over all answers, as
/// in the first of the papers, the ratio for right and wrong answers is `2 · AUROC − 1`, and tells nothing beyond [`auroc`](super::auroc); the
/// one here weighs the errors among the surest answers more.
///
/// # Errors
/// If the lengths differ, a confidence is not finite, or the answers are all right or all wrong.
///
/// Malinin & Gales (2021), arXiv 2002.07650; Fadeeva et al. (2023), arXiv 2311.07383.
///
/// ```
/// use bayes_lora::metrics::prediction_rejection_ratio;
///
/// let correct = [true, true, false, false];
/// assert_eq!(prediction_rejection_ratio(&[0.9, 0.8, 0.3, 0.1], &correct)?, 1.0);
/// // the risks 0, 1/2, 1/3, 1/2 in place of the oracle's 0, 0, 1/3, 1/2
/// let ratio = prediction_rejection_ratio(&[0.9, 0.3, 0.8, 0.1], &correct)?;
/// assert!((ratio - (0.5 - 1.0 / 3.0) / (0.5 - 5.0 / 24.0)).abs() < 1e-12);
/// # Ok::<(), bayes_lora::error::Error>(())
/// ```
pub fn prediction_rejection_ratio(confidence: &[f64], correct: &[bool]) -> Result<f64> {
    Ok(Rejection::new(confidence, correct)?.ratio(&equal_weights(correct.len())))
}

/// [`prediction_rejection_ratio`] with its interval: the items bootstrapped.
///
/// # Errors
/// As [`prediction_rejection_ratio`], or if the bootstrap's own settings are out of bounds.
pub fn prediction_rejection_estimate(
    confidence: &[f64],
    correct: &[bool],
    bootstrap: &BayesianBootstrap,
) -> Result<Estimate> {
    let rejection = Rejection::new(confidence, correct)?;
    bootstrap.estimate(correct.len(), |weights| rejection.ratio(weights))
}

struct Rejection {
    ranked: Ranked,
    oracle: Ranked,
    /// 1 for a wrong answer.
    wrong: Vec<f64>,
}

impl Rejection {
    fn new(confidence: &[f64], correct: &[bool]) -> Result<Self> {
        if confidence.len() != correct.len() {
            let (expected, found) = (confidence.len(), correct.len());
            return Err(Error::Count { what: "answers marked right or wrong".into(), expected, found });
        }
        check_finite("confidences", confidence.iter().map(|c| c.is_finite()))?;
        for (what, kind) in [("right", true), ("wrong", false)] {
            if !correct.contains(&kind) {
                return Err(Error::empty(format!("set of {what} answers")));
            }
        }
        let of_oracle: Vec<f64> = correct.iter().map(|right| f64::from(u8::from(*right))).collect();
        Ok(Self {
            ranked: Ranked::new(confidence, correct),
            oracle: Ranked::new(&of_oracle, correct),
            wrong: of_oracle.iter().map(|right| 1.0 - right).collect(),
        })
    }

    fn ratio(&self, weights: &[f64]) -> f64 {
        let risk: f64 = weights.iter().zip(&self.wrong).map(|(weight, wrong)| weight * wrong).sum();
        (risk - self.ranked.area(weights)) / (risk - self.oracle.area(weights))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::auroc;

    /// Confidences without ties, and some that are wrong.
    fn answers(n: usize, seed: usize) -> (Vec<f64>, Vec<bool>) {
        let place = |i: usize| (i * (2 * seed + 7) * 31 + seed * 17) % 997;
        let confidence = (0..n).map(|i| place(i) as f64 / 997.0).collect();
        (confidence, (0..n).map(|i| (i * i + seed * i) % 7 > 2 || place(i) > 800).collect())
    }

    /// Mean risk of the k surest, k = 1 … n, by sorting.
    fn area_by_sorting(confidence: &[f64], correct: &[bool]) -> f64 {
        let mut order: Vec<usize> = (0..correct.len()).collect();
        order.sort_by(|a, b| confidence[*b].total_cmp(&confidence[*a]));
        let wrong_of = |k: usize| order[..k].iter().filter(|i| !correct[**i]).count() as f64;
        (1..=order.len()).map(|k| wrong_of(k) / k as f64).sum::<f64>() / order.len() as f64
    }

    #[test]
    fn it_is_the_ratio_of_areas_that_sorting_gives() {
        for seed in 0..6 {
            let (confidence, correct) = answers(90, seed);
            let truth: Vec<f64> = correct.iter().map(|right| f64::from(u8::from(*right))).collect();
            let risk = correct.iter().filter(|right| !**right).count() as f64 / 90.0;
            let expected = (risk - area_by_sorting(&confidence, &correct)) / (risk - area_by_sorting(&truth, &correct));
            let found = prediction_rejection_ratio(&confidence, &correct).unwrap();
            assert!((found - expected).abs() < 1e-12, "{found} {expected}"); // sums of 90 rounded terms
        }
    }

    #[test]
    fn the_oracle_has_one_chance_has_zero_and_the_reverse_is_below() {
        let correct = [true, false, true, true, false];
        let truth: Vec<f64> = correct.iter().map(|right| f64::from(u8::from(*right))).collect();
        let reverse: Vec<f64> = truth.iter().map(|t| -t).collect();
        assert!((prediction_rejection_ratio(&truth, &correct).unwrap() - 1.0).abs() < 1e-15);
        assert!(prediction_rejection_ratio(&[0.5; 5], &correct).unwrap().abs() < 1e-15);
        // the risks 1, 1, 2/3, 1/2, 2/5 against the oracle's 0, 0, 0, 1/4, 2/5
        let (area, best) = ((2.0 + 2.0 / 3.0 + 0.5 + 0.4) / 5.0, 0.65 / 5.0);
        let found = prediction_rejection_ratio(&reverse, &correct).unwrap();
        assert!(found < 0.0 && (found - (0.4 - area) / (0.4 - best)).abs() < 1e-14, "{found}");
        // the mean over random rankings
        let (_, correct) = answers(200, 3);
        let of = |k: usize| {
            let chance: Vec<f64> = (0..200).map(|i| ((i * 7919 + k * 104_729) % 10_007) as f64).collect();
            prediction_rejection_ratio(&chance, &correct).unwrap()
        };
        let mean = (0..200).map(of).sum::<f64>() / 200.0;
        assert!(mean.abs() < 0.05, "{mean}"); // one ranking of 200 strays by some 0.15
    }

    /// The claim that the documentation makes of the other definition.
    #[test]
    fn with_errors_replaced_by_right_answers_it_would_be_that_of_the_auroc() {
        let (confidence, correct) = answers(120, 2);
        let part = |right: bool| -> Vec<f64> {
            confidence.iter().zip(&correct).filter(|(_, c)| **c == right).map(|(v, _)| *v).collect()
        };
        // errors left among all, from no answer kept to all of them, by the trapezium rule
        let area = |confidence: &[f64]| {
            let mut order: Vec<usize> = (0..correct.len()).collect();
            order.sort_by(|a, b| confidence[*b].total_cmp(&confidence[*a]));
            let (mut left, mut area) = (0.0, 0.0);
            for i in order {
                let more = f64::from(u8::from(!correct[i]));
                area += left + 0.5 * more;
                left += more;
            }
            (area, left * correct.len() as f64 / 2.0)
        };
        let truth: Vec<f64> = correct.iter().map(|right| f64::from(u8::from(*right))).collect();
        let ((found, chance), (best, _)) = (area(&confidence), area(&truth));
        let expected = 2.0 * auroc(&part(true), &part(false)).unwrap() - 1.0;
        assert!(((chance - found) / (chance - best) - expected).abs() < 1e-12);
    }

    #[test]
    fn the_interval_holds_the_value_and_ties_are_no_order() {
        let (confidence, correct) = answers(150, 1);
        let estimate = prediction_rejection_estimate(&confidence, &correct, &BayesianBootstrap::default()).unwrap();
        assert_eq!(estimate.value, prediction_rejection_ratio(&confidence, &correct).unwrap());
        assert!(estimate.low < estimate.value && estimate.value < estimate.high && estimate.high <= 1.0);
        let coarse: Vec<f64> = confidence.iter().map(|c| (c * 4.0).floor()).collect();
        let turned = |values: &[f64]| values.iter().rev().copied().collect::<Vec<f64>>();
        let back: Vec<bool> = correct.iter().rev().copied().collect();
        let one = prediction_rejection_ratio(&coarse, &correct).unwrap();
        assert!((one - prediction_rejection_ratio(&turned(&coarse), &back).unwrap()).abs() < 1e-14);
    }

    #[test]
    fn bad_input_is_refused_with_names_and_numbers() {
        let refusal = |c: &[f64], r: &[bool]| prediction_rejection_ratio(c, r).unwrap_err().to_string();
        assert_eq!(refusal(&[0.5], &[true]), "set of wrong answers is empty");
        assert_eq!(refusal(&[0.5, 0.2], &[false; 2]), "set of right answers is empty");
        assert!(refusal(&[0.5], &[true, false]).contains("right or wrong"));
        assert!(refusal(&[f64::NAN, 0.1], &[true, false]).contains("1 of 2"));
    }
}
