//! Answers only where the confidence passes a threshold below which the share of wrong answers would be too large.

use crate::error::{Error, Result, check_finite};
use ndarray::ArrayView1;
use serde::{Deserialize, Serialize};
use statrs::distribution::{Binomial, DiscreteCDF};

/// Most thresholds that are tried; they are chosen before a label is looked at.
const MAX_THRESHOLDS: usize = 100;

/// A threshold on the confidence (the largest probability, or minus an entropy: larger is surer) such that, with probability
/// `1 − δ` over the held-out items, at most the share r of the answers is wrong.
///
/// Thresholds are tested from strict to loose: of `n_j` items that pass, `k_j` are answered wrongly, and
/// `p_j = P(Bin(n_j, r) ≤ k_j)` is how likely so few would be at risk r. The last one before the first `p_j > δ` is taken. Strict
/// ones of which no outcome could convince, `(1 − r)^{n_j} > δ`, are left out. Exchangeable items are assumed.
///
/// Angelopoulos et al. (2021), *Learn then Test*, arXiv 2110.01052.
///
/// ```
/// use bayes_lora::calibrate::Abstention;
/// use ndarray::Array1;
///
/// // 200 items: the surer half is always right, the other half in two of three cases
/// let confidence = Array1::from_shape_fn(200, |i| if i < 100 { 0.99 } else { 0.6 });
/// let right: Vec<bool> = (0..200).map(|i| i < 100 || i % 3 > 0).collect();
/// let rule = Abstention::fit(confidence.view(), &right, 0.05, 0.1)?;
/// assert_eq!((rule.threshold, rule.n_accepted), (0.99, 100));
/// assert!(rule.accepts(0.995) && !rule.accepts(0.7));
/// # Ok::<(), bayes_lora::error::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Abstention {
    /// Answers need at least this confidence; infinite (in JSON null) where no threshold is safe.
    #[serde(with = "super::threshold")]
    pub threshold: f64,
    /// Largest share r of answers that may be wrong.
    pub risk: f64,
    /// Probability δ that it is exceeded nonetheless.
    pub failure_probability: f64,
    /// Number of held-out items.
    pub n_items: usize,
    /// How many of them pass.
    pub n_accepted: usize,
    /// How many of those were answered wrongly.
    pub n_wrong: usize,
}

impl Abstention {
    /// Finds the threshold on held-out items whose answers are known to be right or wrong.
    ///
    /// # Shapes
    /// - confidence, right: `[n_items]`
    ///
    /// # Errors
    /// If there is no item, a confidence is NaN, the lengths differ, or a probability is not in (0, 1).
    pub fn fit(confidence: ArrayView1<f64>, right: &[bool], risk: f64, failure_probability: f64) -> Result<Self> {
        for (field, value) in [("risk", risk), ("failure_probability", failure_probability)] {
            if !(value > 0.0 && value < 1.0) {
                return Err(Error::config(field, "in (0, 1)", value));
            }
        }
        let n_items = confidence.len();
        if n_items == 0 {
            return Err(Error::empty("set of held-out items"));
        }
        if right.len() != n_items {
            let what = "answers known to be right or wrong".into();
            return Err(Error::Count { what, expected: n_items, found: right.len() });
        }
        check_finite("confidence", confidence.iter().map(|c| !c.is_nan()))?;
        let mut surest: Vec<(f64, bool)> = confidence.iter().copied().zip(right.iter().copied()).collect();
        surest.sort_by(|a, b| b.0.total_cmp(&a.0));
        let fewest = (failure_probability.ln() / (1.0 - risk).ln()).ceil().max(1.0);
        let mut rule = Self { threshold: f64::INFINITY, risk, failure_probability, n_items, n_accepted: 0, n_wrong: 0 };
        for n_accepted in sizes(&surest, fewest as usize) {
            let n_wrong = surest[..n_accepted].iter().filter(|(_, right)| !right).count();
            let errors = Binomial::new(risk, n_accepted as u64).map_err(|e| Error::numerical("binomial test", e))?;
            if errors.cdf(n_wrong as u64) > failure_probability {
                break;
            }
            rule = Self { threshold: surest[n_accepted - 1].0, n_accepted, n_wrong, ..rule };
        }
        Ok(rule)
    }

    /// True if an answer of this confidence is given.
    pub fn accepts(&self, confidence: f64) -> bool {
        confidence >= self.threshold
    }
}

/// How many items pass each threshold to be tried, from strict to loose: equally spaced, and never between equal confidences.
fn sizes(surest: &[(f64, bool)], fewest: usize) -> Vec<usize> {
    let n = surest.len();
    let ends = (fewest..=n).filter(|&size| size == n || surest[size].0 < surest[size - 1].0);
    let ends: Vec<usize> = ends.collect();
    let step = ends.len().div_ceil(MAX_THRESHOLDS).max(1);
    // the loosest one is always among them
    ends.iter().rev().step_by(step).rev().copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::Array1;

    fn fit(confidence: &[f64], right: &[bool], risk: f64, delta: f64) -> Result<Abstention> {
        Abstention::fit(Array1::from_vec(confidence.to_vec()).view(), right, risk, delta)
    }

    #[test]
    fn at_a_risk_just_above_the_bound_an_answer_is_allowed_at_most_as_often_as_promised() {
        let (n, risk, delta) = (14, 0.3, 0.1);
        let confidence: Vec<f64> = (0..n).map(|i| 1.0 - i as f64 / 100.0).collect();
        // every outcome with its probability, where each answer is wrong with probability `risk`
        let allowed: f64 = (0..1u32 << n)
            .filter_map(|outcome| {
                let right: Vec<bool> = (0..n).map(|i| outcome >> i & 1 == 0).collect();
                let wrong = outcome.count_ones() as i32;
                let rule = fit(&confidence, &right, risk, delta).unwrap();
                (rule.n_accepted > 0).then(|| risk.powi(wrong) * (1.0 - risk).powi(n - wrong))
            })
            .sum();
        // 0.7⁷ = 0.082 is the chance of the first test; later ones are made only after it has passed
        assert!((allowed - 0.7f64.powi(7)).abs() < 1e-12 && allowed <= delta, "{allowed}");
    }

    #[test]
    fn surer_answers_pass_first_and_all_pass_where_all_are_right() {
        let confidence: Vec<f64> = (0..100).map(|i| i as f64 / 100.0).collect();
        let all = fit(&confidence, &[true; 100], 0.1, 0.1).unwrap();
        assert_eq!((all.threshold, all.n_accepted, all.n_wrong), (0.0, 100, 0));
        let half: Vec<bool> = (0..100).map(|i| i >= 50).collect();
        let rule = fit(&confidence, &half, 0.1, 0.1).unwrap();
        assert!((45..=55).contains(&rule.n_accepted), "{rule:?}");
        assert_eq!(confidence.iter().filter(|c| rule.accepts(**c)).count(), rule.n_accepted);
        assert!(rule.n_wrong as f64 <= 0.1 * rule.n_accepted as f64);
        let worse = fit(&confidence, &half, 0.02, 0.01);
        assert!(worse.unwrap().n_accepted <= rule.n_accepted);
    }

    #[test]
    fn too_few_items_or_a_model_that_is_wrong_never_answer() {
        // 0.9^20 = 0.12 could not convince at 0.1
        let few = fit(&[0.9; 20], &[true; 20], 0.1, 0.1).unwrap();
        assert_eq!((few.threshold, few.n_accepted), (f64::INFINITY, 0));
        assert!(!few.accepts(1.0));
        assert_eq!(fit(&[0.9; 22], &[true; 22], 0.1, 0.1).unwrap().n_accepted, 22);
        assert!(!fit(&[0.9; 50], &[false; 50], 0.1, 0.1).unwrap().accepts(0.9));
    }

    #[test]
    fn equal_confidences_pass_together_and_no_more_thresholds_are_tried_than_allowed() {
        let surest: Vec<(f64, bool)> = [0.9, 0.9, 0.8, 0.8, 0.8, 0.1].map(|c| (c, true)).to_vec();
        assert_eq!(sizes(&surest, 1), [2, 5, 6]);
        let many: Vec<(f64, bool)> = (0..5000).map(|i| (-f64::from(i), true)).collect();
        let tried = sizes(&many, 10);
        assert!(tried.len() <= MAX_THRESHOLDS && tried.is_sorted() && tried.last() == Some(&5000), "{}", tried.len());
    }

    #[test]
    fn bad_input_is_refused_with_names_and_numbers() {
        for (error, parts) in [
            (fit(&[0.5], &[true], 0.0, 0.1), ["risk", "0"]),
            (fit(&[0.5], &[true], 0.1, 1.0), ["failure_probability", "1"]),
            (fit(&[], &[], 0.1, 0.1), ["set of held-out items", "empty"]),
            (fit(&[0.5, 0.6], &[true], 0.1, 0.1), ["expected 2", "found 1"]),
            (fit(&[0.5, f64::NAN], &[true; 2], 0.1, 0.1), ["confidence", "1 of 2"]),
        ] {
            let error = error.unwrap_err().to_string();
            parts.into_iter().for_each(|part| assert!(error.contains(part), "{error} lacks {part}"));
        }
    }
}
