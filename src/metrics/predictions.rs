//! Checks one set of predictions once and finds what every metric needs: top class, confidence, right or wrong.

use crate::belief::top_class;
use crate::error::{Error, Result, check_finite};
use ndarray::ArrayView2;

/// How far from 1 the probabilities of an item may sum: rounding of single precision, not more.
const SUM_TOLERANCE: f64 = 1e-6;

/// Checked probabilities and labels, with the top class of each item.
///
/// The top class is that of [`top_class`].
///
/// # Shapes
/// - probabilities: `[n_items, n_classes]`; labels, confidence, correct: `[n_items]`.
#[derive(Debug, Clone)]
pub(super) struct Predictions<'a> {
    pub(super) probabilities: ArrayView2<'a, f64>,
    pub(super) labels: &'a [usize],
    /// Probability of the top class.
    pub(super) confidence: Vec<f64>,
    /// Whether the top class is the label.
    pub(super) correct: Vec<bool>,
}

impl<'a> Predictions<'a> {
    /// Checks the input of every metric.
    ///
    /// # Errors
    /// If there is no item or no class, the lengths differ, a probability is NaN or outside `[0, 1]`, a row does not sum
    /// to 1 within 1e-6, or a label is not a class.
    pub(super) fn new(probabilities: ArrayView2<'a, f64>, labels: &'a [usize]) -> Result<Self> {
        let (n_items, n_classes) = probabilities.dim();
        if n_items == 0 {
            return Err(Error::empty("set of predictions"));
        }
        if n_classes == 0 {
            return Err(Error::empty("set of classes"));
        }
        if labels.len() != n_items {
            return Err(Error::Count {
                what: "labels for the predicted items".into(),
                expected: n_items,
                found: labels.len(),
            });
        }
        check_finite("probabilities", probabilities.iter().map(|p| p.is_finite()))?;

        let mut confidence = Vec::with_capacity(n_items);
        let mut correct = Vec::with_capacity(n_items);
        for (item, (row, &label)) in probabilities.rows().into_iter().zip(labels).enumerate() {
            let mut sum = 0.0;
            for (class, &p) in row.iter().enumerate() {
                if !(0.0..=1.0 + SUM_TOLERANCE).contains(&p) {
                    return Err(Error::config(format!("probabilities[{item}, {class}]"), "in [0, 1]", p));
                }
                sum += p;
            }
            if (sum - 1.0).abs() > SUM_TOLERANCE {
                return Err(Error::config(
                    format!("sum of probabilities[{item}]"),
                    format!("1 within {SUM_TOLERANCE:e}"),
                    sum,
                ));
            }
            if label >= n_classes {
                return Err(Error::LabelOutOfRange { item: item.to_string(), label, n_classes });
            }
            let top = top_class(row);
            confidence.push(row[top]);
            correct.push(top == label);
        }
        Ok(Self { probabilities, labels, confidence, correct })
    }

    /// Number of items, at least 1.
    pub(super) fn n_items(&self) -> usize {
        self.labels.len()
    }

    /// How many items have the label as their top class.
    pub(super) fn n_correct(&self) -> usize {
        self.correct.iter().filter(|&&c| c).count()
    }

    /// Confidence minus correctness of each item, in `[−1, 1]`: positive where the prediction is overconfident.
    pub(super) fn gaps(&self) -> Vec<f64> {
        self.confidence
            .iter()
            .zip(&self.correct)
            .map(|(&confidence, &correct)| confidence - f64::from(u8::from(correct)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::{Array2, arr2};

    fn message(probabilities: Array2<f64>, labels: &[usize]) -> String {
        Predictions::new(probabilities.view(), labels).expect_err("must be refused").to_string()
    }

    #[test]
    fn finds_top_class_and_correctness() {
        let p = arr2(&[[0.2, 0.5, 0.3], [0.6, 0.4, 0.0]]);
        let predictions = Predictions::new(p.view(), &[1, 1]).unwrap();
        assert_eq!(predictions.confidence, [0.5, 0.6]);
        assert_eq!(predictions.correct, [true, false]);
        assert_eq!(predictions.gaps(), [-0.5, 0.6]);
        assert_eq!(predictions.n_correct(), 1);
    }

    #[test]
    fn an_exact_tie_goes_to_the_first_class() {
        let p = arr2(&[[0.5, 0.5]]);
        assert!(Predictions::new(p.view(), &[0]).unwrap().correct[0]);
        assert!(!Predictions::new(p.view(), &[1]).unwrap().correct[0]);
    }

    #[test]
    fn rounding_of_single_precision_is_accepted() {
        let p = arr2(&[[1.0 + 5e-7, 0.0], [0.3333333, 0.6666664]]);
        assert!(Predictions::new(p.view(), &[0, 1]).is_ok());
    }

    #[test]
    fn bad_input_is_refused_with_names_and_numbers() {
        assert_eq!(message(Array2::zeros((0, 3)), &[]), "set of predictions is empty");
        assert_eq!(message(Array2::zeros((1, 0)), &[0]), "set of classes is empty");
        assert_eq!(message(arr2(&[[0.5, 0.5]]), &[0, 1]), "labels for the predicted items: expected 1, found 2");
        assert_eq!(message(arr2(&[[f64::NAN, 0.5]]), &[0]), "probabilities: 1 of 2 values are not finite");
        assert_eq!(message(arr2(&[[1.25, -0.25]]), &[0]), "probabilities[0, 0]: must be in [0, 1], got 1.25");
        assert_eq!(message(arr2(&[[0.5, 0.25]]), &[0]), "sum of probabilities[0]: must be 1 within 1e-6, got 0.75");
        assert_eq!(message(arr2(&[[0.5, 0.5]]), &[2]), "item `0`: label 2 is out of range for 2 classes");
    }
}
