//! Measures the squared distance between probabilities and the truth.

use super::predictions::Predictions;
use crate::error::Result;
use ndarray::ArrayView2;

/// Mean squared distance between the probabilities and the one-hot label, summed over the classes.
///
/// Brier = (1/n) Σ_i Σ_c (p_ic − 1{c = y_i})²
///
/// This is Brier's own form, from 0 to 2; some codes halve it or divide it by the number of classes.
///
/// # Shapes
/// - probabilities: `[n_items, n_classes]`; labels: `[n_items]`; output: in `[0, 2]`, lower is better.
///
/// # Errors
/// If there is no item, lengths differ, a row is not a distribution or a label is not a class.
///
/// Brier (1950), Monthly Weather Review 78, eq. 2.
///
/// ```
/// use bayes_lora::metrics::brier;
/// use ndarray::arr2;
///
/// let p = arr2(&[[0.75, 0.25]]);
/// assert_eq!(brier(p.view(), &[0])?, 0.125);
/// # Ok::<(), bayes_lora::error::Error>(())
/// ```
pub fn brier(probabilities: ArrayView2<f64>, labels: &[usize]) -> Result<f64> {
    let losses = item_losses(&Predictions::new(probabilities, labels)?);
    Ok(losses.iter().sum::<f64>() / losses.len() as f64)
}

/// Σ_c (p_c − 1{c = y})² of each item.
pub(super) fn item_losses(predictions: &Predictions) -> Vec<f64> {
    let rows = predictions.probabilities.rows();
    rows.into_iter()
        .zip(predictions.labels)
        .map(|(row, &label)| {
            let squares = row.iter().enumerate().map(|(class, &p)| {
                let difference = p - f64::from(u8::from(class == label));
                difference * difference
            });
            squares.sum()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::arr2;

    #[test]
    fn equals_the_hand_computed_case() {
        let p = arr2(&[[0.5, 0.25, 0.25], [0.1, 0.8, 0.1]]);
        // (0.25 + 0.0625 + 0.5625 + 0.01 + 0.04 + 0.01) / 2
        let expected = (0.875 + 0.06) / 2.0;
        // Six rounded terms below 1.
        assert!((brier(p.view(), &[2, 1]).unwrap() - expected).abs() < 1e-15);
    }

    #[test]
    fn runs_from_zero_for_certainty_to_two_for_certain_error() {
        let p = arr2(&[[1.0, 0.0]]);
        assert_eq!(brier(p.view(), &[0]).unwrap(), 0.0);
        assert_eq!(brier(p.view(), &[1]).unwrap(), 2.0);
    }

    #[test]
    fn rows_that_do_not_sum_to_one_are_an_error() {
        assert!(brier(arr2(&[[0.5, 0.4]]).view(), &[0]).is_err());
    }
}
