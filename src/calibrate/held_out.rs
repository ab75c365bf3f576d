//! Checks held-out logits against their labels or soft targets.

use crate::error::{Error, Result, check_finite};
use ndarray::{Array2, ArrayView2};

/// How far from 1 the probabilities or soft targets of an item may sum.
pub(super) const SUM_TOLERANCE: f64 = 1e-6;

/// Refuses an empty set, NaN, +∞ and items without any finite logit. A logit of −∞ is a class that the item lacks.
///
/// # Shapes
/// - logits: `[n_items, n_classes]`.
pub(super) fn checked_logits(logits: ArrayView2<f64>) -> Result<()> {
    let (n_items, n_classes) = logits.dim();
    if n_items == 0 {
        return Err(Error::empty("set of held-out items"));
    }
    if n_classes == 0 {
        return Err(Error::empty("set of classes"));
    }
    // minus infinity marks a class that an item does not have
    check_finite("held-out logits", logits.iter().map(|v| v.is_finite() || *v == f64::NEG_INFINITY))?;
    for (item, row) in logits.rows().into_iter().enumerate() {
        if row.iter().all(|v| v.is_infinite()) {
            return Err(Error::NonFinite {
                what: format!("held-out logits of item {item}, all"),
                count: n_classes,
                total: n_classes,
            });
        }
    }
    Ok(())
}

/// The one-hot rows of labels.
///
/// # Shapes
/// - labels: `[n_items]`; output: `[n_items, n_classes]`.
pub(super) fn one_hot(labels: &[usize], n_items: usize, n_classes: usize) -> Result<Array2<f64>> {
    check_labels(labels, n_items, n_classes)?;
    Ok(Array2::from_shape_fn((n_items, n_classes), |(item, class)| f64::from(labels[item] == class)))
}

/// Refuses labels that are not one for each item, or no class.
pub(super) fn check_labels(labels: &[usize], n_items: usize, n_classes: usize) -> Result<()> {
    if labels.len() != n_items {
        return Err(Error::Count {
            what: "labels for the held-out items".into(),
            expected: n_items,
            found: labels.len(),
        });
    }
    match labels.iter().enumerate().find(|(_, label)| **label >= n_classes) {
        None => Ok(()),
        Some((item, &label)) => Err(Error::LabelOutOfRange { item: item.to_string(), label, n_classes }),
    }
}

/// Soft targets with rows that sum to exactly 1, none of it on a class that the item lacks.
///
/// # Shapes
/// - targets, logits, output: `[n_items, n_classes]`.
pub(super) fn checked_targets(targets: ArrayView2<f64>, logits: ArrayView2<f64>) -> Result<Array2<f64>> {
    if targets.dim() != logits.dim() {
        return Err(Error::Shape {
            what: "soft targets of the held-out items".into(),
            expected: logits.shape().to_vec(),
            found: targets.shape().to_vec(),
        });
    }
    let mut checked = targets.to_owned();
    for (item, mut row) in checked.rows_mut().into_iter().enumerate() {
        for (class, &t) in row.iter().enumerate() {
            // Written so that NaN fails too.
            if !(0.0..=1.0 + SUM_TOLERANCE).contains(&t) {
                return Err(Error::config(format!("targets[{item}, {class}]"), "in [0, 1]", t));
            }
            if t > 0.0 && logits[[item, class]] == f64::NEG_INFINITY {
                return Err(Error::Incompatible(format!(
                    "held-out item {item}: class {class} is a target with share {t}, but its logit is −∞, so the item \
                     does not have it"
                )));
            }
        }
        let sum = row.sum();
        if (sum - 1.0).abs() > SUM_TOLERANCE {
            return Err(Error::config(format!("sum of targets[{item}]"), format!("1 within {SUM_TOLERANCE:e}"), sum));
        }
        row /= sum;
    }
    Ok(checked)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::arr2;

    #[test]
    fn bad_logits_are_refused_with_names_and_numbers() {
        let message = |logits: Array2<f64>| checked_logits(logits.view()).unwrap_err().to_string();
        assert_eq!(message(Array2::zeros((0, 2))), "set of held-out items is empty");
        assert_eq!(message(Array2::zeros((2, 0))), "set of classes is empty");
        assert_eq!(
            message(arr2(&[[f64::NAN, 1.0], [f64::INFINITY, 0.0]])),
            "held-out logits: 2 of 4 values are not finite"
        );
        assert_eq!(
            message(arr2(&[[0.0, 1.0], [f64::NEG_INFINITY, f64::NEG_INFINITY]])),
            "held-out logits of item 1, all: 2 of 2 values are not finite"
        );
        assert!(checked_logits(arr2(&[[0.0, f64::NEG_INFINITY]]).view()).is_ok());
    }

    #[test]
    fn bad_targets_are_refused_with_names_and_numbers() {
        let logits = arr2(&[[0.0, f64::NEG_INFINITY]]);
        let message = |targets: Array2<f64>| checked_targets(targets.view(), logits.view()).unwrap_err().to_string();
        assert_eq!(
            message(arr2(&[[0.5, 0.5, 0.0]])),
            "soft targets of the held-out items: expected shape [1, 2], found [1, 3]"
        );
        assert_eq!(message(arr2(&[[0.5, 0.0]])), "sum of targets[0]: must be 1 within 1e-6, got 0.5");
        assert_eq!(message(arr2(&[[f64::NAN, 0.0]])), "targets[0, 0]: must be in [0, 1], got NaN");
        assert!(message(arr2(&[[0.75, 0.25]])).contains("class 1 is a target with share 0.25"));
        assert_eq!(one_hot(&[0, 5], 2, 2).unwrap_err().to_string(), "item `1`: label 5 is out of range for 2 classes");
        assert_eq!(one_hot(&[0], 2, 2).unwrap_err().to_string(), "labels for the held-out items: expected 2, found 1");
    }
}
