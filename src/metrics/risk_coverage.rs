//! Asks how many errors remain when only the most confident items are answered.

use super::bootstrap::equal_weights;
use super::interval::check_share;
use super::predictions::Predictions;
use super::ranked::{Ranked, SLACK};
use crate::error::{Error, Result, check_finite};
use ndarray::ArrayView2;
use serde::{Deserialize, Serialize};

/// Area under the risk–coverage curve of the top-label confidence.
///
/// AURC = (1/n) Σ_k risk(k),  risk(k) = share of errors among the k most confident items
///
/// Among items of equal confidence the errors are spread evenly (the mean over all their orders), so that the result
/// does not depend on the order of the items.
///
/// # Shapes
/// - probabilities: `[n_items, n_classes]`; labels: `[n_items]`; output: in `[0, 1]`, lower is better.
///
/// # Errors
/// If there is no item, lengths differ, a row is not a distribution or a label is not a class.
///
/// El-Yaniv & Wiener (2010), JMLR 11; Geifman, Uziel & El-Yaniv (2019), arXiv 1805.08206.
///
/// ```
/// use bayes_lora::metrics::aurc;
/// use ndarray::arr2;
///
/// // The one error is the least confident answer: risks 0, 0, 1/3.
/// let p = arr2(&[[0.9, 0.1], [0.8, 0.2], [0.6, 0.4]]);
/// assert!((aurc(p.view(), &[0, 0, 1])? - 1.0 / 9.0).abs() < 1e-12);
/// # Ok::<(), bayes_lora::error::Error>(())
/// ```
pub fn aurc(probabilities: ArrayView2<f64>, labels: &[usize]) -> Result<f64> {
    let predictions = Predictions::new(probabilities, labels)?;
    let ranked = Ranked::new(&predictions.confidence, &predictions.correct);
    Ok(ranked.area(&equal_weights(labels.len())))
}

/// The risk–coverage curve: error among the most confident items against the share of items answered.
///
/// ```
/// use bayes_lora::metrics::RiskCoverage;
///
/// let confidence = [0.9, 0.8, 0.7, 0.6];
/// let curve = RiskCoverage::from_confidence(&confidence, &[true, true, false, true])?;
/// assert_eq!(curve.coverage, [0.25, 0.5, 0.75, 1.0]);
/// assert_eq!(curve.risk, [0.0, 0.0, 1.0 / 3.0, 0.25]);
/// assert_eq!(curve.accuracy_at(0.5)?, 1.0);
/// # Ok::<(), bayes_lora::error::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RiskCoverage {
    /// Share of the items answered, `k/n` for k = 1, …, n.
    pub coverage: Vec<f64>,
    /// Share of errors among them; among equal confidences the mean over all orders.
    pub risk: Vec<f64>,
    /// Area under the curve, the mean of `risk`: [`aurc`].
    pub area: f64,
}

impl RiskCoverage {
    /// The curve of the top-label confidence.
    ///
    /// # Shapes
    /// - probabilities: `[n_items, n_classes]`; labels: `[n_items]`.
    ///
    /// # Errors
    /// As [`aurc`].
    pub fn new(probabilities: ArrayView2<f64>, labels: &[usize]) -> Result<Self> {
        let predictions = Predictions::new(probabilities, labels)?;
        Ok(Self::from_ranked(&Ranked::new(&predictions.confidence, &predictions.correct)))
    }

    /// The curve of any confidence, such as negative entropy or negative mutual information; higher is surer.
    ///
    /// # Errors
    /// If there is no item, the lengths differ, or a confidence is not finite.
    pub fn from_confidence(confidence: &[f64], correct: &[bool]) -> Result<Self> {
        if confidence.is_empty() {
            return Err(Error::empty("set of confidences"));
        }
        if correct.len() != confidence.len() {
            return Err(Error::Count {
                what: "answers marked right or wrong".into(),
                expected: confidence.len(),
                found: correct.len(),
            });
        }
        check_finite("confidences", confidence.iter().map(|c| c.is_finite()))?;
        Ok(Self::from_ranked(&Ranked::new(confidence, correct)))
    }

    /// Accuracy on the smallest set of most confident items that makes up at least the given share of all.
    ///
    /// # Errors
    /// If the coverage is not above 0 and at most 1.
    pub fn accuracy_at(&self, coverage: f64) -> Result<f64> {
        check_share("coverage", coverage)?;
        let enough = |covered: &f64| *covered >= coverage - SLACK;
        let first = self.coverage.iter().position(enough).unwrap_or(self.risk.len() - 1);
        Ok(1.0 - self.risk[first])
    }

    /// Largest share of the items, most confident first, that is answered with at least the given accuracy; 0 where none is.
    ///
    /// # Errors
    /// If the accuracy is not above 0 and at most 1.
    ///
    /// ```
    /// use bayes_lora::metrics::RiskCoverage;
    ///
    /// let curve = RiskCoverage::from_confidence(&[0.9, 0.8, 0.7, 0.6], &[true, false, true, true])?;
    /// assert_eq!(curve.coverage_at(0.75)?, 1.0); // accuracies 1, 1/2, 2/3, 3/4
    /// assert_eq!(curve.coverage_at(0.8)?, 0.25);
    /// # Ok::<(), bayes_lora::error::Error>(())
    /// ```
    pub fn coverage_at(&self, accuracy: f64) -> Result<f64> {
        check_share("accuracy", accuracy)?;
        let enough = |risk: &f64| 1.0 - risk >= accuracy - SLACK;
        let last = self.risk.iter().rposition(enough);
        Ok(last.map_or(0.0, |index| self.coverage[index]))
    }

    /// Area above that of a perfect ranking of the same answers (E-AURC): 0 when every error is ranked last.
    ///
    /// Geifman, Uziel & El-Yaniv (2019), arXiv 1805.08206, eq. 2.
    pub fn excess_area(&self) -> f64 {
        let n = self.risk.len();
        let n_wrong = (self.risk.last().copied().unwrap_or(0.0) * n as f64).round() as usize;
        let best: f64 = (1..=n_wrong).map(|wrong| wrong as f64 / (n - n_wrong + wrong) as f64).sum();
        self.area - best / n as f64
    }

    fn from_ranked(ranked: &Ranked) -> Self {
        let n = ranked.n_items();
        let mut risk = Vec::with_capacity(n);
        // counts instead of shares: exact
        ranked.walk(&vec![1.0; n], |step| risk.push(step.wrong / step.covered));
        Self {
            coverage: (1..=n).map(|k| k as f64 / n as f64).collect(),
            area: risk.iter().sum::<f64>() / n as f64,
            risk,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::Array2;

    /// Mean area over all orders of the items that respect the confidences, by brute force.
    fn mean_over_orders(confidence: &[f64], correct: &[bool]) -> f64 {
        fn visit(used: &mut Vec<usize>, confidence: &[f64], correct: &[bool], areas: &mut Vec<f64>) {
            let n = confidence.len();
            if used.len() == n {
                let mut errors = 0.0;
                let risks = used.iter().enumerate().map(|(k, &i)| {
                    errors += f64::from(u8::from(!correct[i]));
                    errors / (k + 1) as f64
                });
                areas.push(risks.sum::<f64>() / n as f64);
                return;
            }
            for i in (0..n).filter(|i| !used.contains(i)).collect::<Vec<_>>() {
                let last = used.last().map_or(f64::INFINITY, |&j| confidence[j]);
                let skips = (0..n).any(|j| !used.contains(&j) && confidence[j] > confidence[i]);
                if confidence[i] <= last && !skips {
                    used.push(i);
                    visit(used, confidence, correct, areas);
                    used.pop();
                }
            }
        }
        let mut areas = Vec::new();
        visit(&mut Vec::new(), confidence, correct, &mut areas);
        areas.iter().sum::<f64>() / areas.len() as f64
    }

    #[test]
    fn area_equals_the_hand_computed_case() {
        let curve = RiskCoverage::from_confidence(&[0.9, 0.5, 0.7, 0.8], &[true, true, false, true]).unwrap();
        // In order: right, right, wrong, right: 0, 0, 1/3, 1/4.
        // Two rounded terms.
        assert!((curve.area - (1.0 / 3.0 + 0.25) / 4.0).abs() < 1e-15);
        // The best order has risks 0, 0, 0, 1/4.
        assert!((curve.excess_area() - 1.0 / 12.0).abs() < 1e-15);
    }

    #[test]
    fn ties_are_the_mean_over_all_orders() {
        let confidence = [0.9, 0.7, 0.7, 0.7, 0.5, 0.5];
        let correct = [true, false, true, false, true, false];
        let expected = mean_over_orders(&confidence, &correct);
        let curve = RiskCoverage::from_confidence(&confidence, &correct).unwrap();
        let ranked = Ranked::new(&confidence, &correct);
        // Twelve orders, each a sum of six rounded terms.
        assert!((curve.area - expected).abs() < 1e-14);
        assert!((ranked.area(&equal_weights(6)) - expected).abs() < 1e-14);
    }

    #[test]
    fn equal_confidence_everywhere_has_the_error_rate_as_area() {
        let curve = RiskCoverage::from_confidence(&[0.5; 4], &[true, false, true, false]).unwrap();
        assert_eq!(curve.risk, [0.5; 4]);
        assert_eq!(curve.area, 0.5);
    }

    #[test]
    fn full_coverage_has_the_accuracy() {
        let p = Array2::from_shape_fn((100, 2), |(i, c)| {
            let confidence = 0.5 + i as f64 / 250.0;
            if c == 0 { confidence } else { 1.0 - confidence }
        });
        let labels: Vec<usize> = (0..100).map(|i| usize::from(i % 4 == 0)).collect();
        let curve = RiskCoverage::new(p.view(), &labels).unwrap();
        assert_eq!(curve.accuracy_at(1.0).unwrap(), 0.75);
        // Seven items exactly, although 0.07 · 100 > 7 in floating point: 99, 98, 97, 96 (wrong), 95, 94, 93.
        assert!((curve.accuracy_at(0.07).unwrap() - 6.0 / 7.0).abs() < 1e-15);
        assert!((curve.area - aurc(p.view(), &labels).unwrap()).abs() < 1e-14);
    }

    #[test]
    fn coverage_at_an_accuracy_is_the_last_one_that_keeps_it() {
        let curve =
            RiskCoverage::from_confidence(&[0.9, 0.8, 0.7, 0.6, 0.5], &[false, true, true, true, false]).unwrap();
        // accuracies 0, 1/2, 2/3, 3/4, 3/5
        assert_eq!(curve.coverage_at(0.75).unwrap(), 0.8);
        assert_eq!(curve.coverage_at(0.6).unwrap(), 1.0);
        assert_eq!(curve.coverage_at(0.76).unwrap(), 0.0);
    }

    #[test]
    fn bad_input_is_refused_with_names_and_numbers() {
        let refused = |c: &[f64], r: &[bool]| RiskCoverage::from_confidence(c, r).is_err();
        assert!(refused(&[], &[]));
        assert!(refused(&[0.5], &[true, false]));
        assert!(refused(&[f64::NAN], &[true]));
        let curve = RiskCoverage::from_confidence(&[0.5], &[true]).unwrap();
        assert!(curve.coverage_at(1.1).is_err());
        let error = curve.accuracy_at(0.0).unwrap_err();
        assert_eq!(error.to_string(), "coverage: must be above 0 and at most 1, got 0");
    }
}
