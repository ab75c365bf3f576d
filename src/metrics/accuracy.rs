//! Counts how often the top class is the label.

use super::predictions::Predictions;
use crate::error::Result;
use ndarray::ArrayView2;

/// Share of the items whose most probable class is the label.
///
/// acc = (1/n) Σ_i 1{argmax_c p_ic = y_i}
///
/// An exact tie between classes goes to the first of them ([`top_class`](crate::belief::top_class)), here as in training. For an interval see
/// [`beta_interval`](crate::metrics::beta_interval) or [`Scores`](crate::metrics::Scores).
///
/// # Shapes
/// - probabilities: `[n_items, n_classes]`; labels: `[n_items]`; output: a share in `[0, 1]`, higher is better.
///
/// # Errors
/// If there is no item, lengths differ, a row is not a distribution or a label is not a class.
///
/// ```
/// use bayes_lora::metrics::accuracy;
/// use ndarray::arr2;
///
/// let p = arr2(&[[0.9, 0.1], [0.4, 0.6], [0.7, 0.3], [0.2, 0.8]]);
/// assert_eq!(accuracy(p.view(), &[0, 1, 1, 1])?, 0.75);
/// # Ok::<(), bayes_lora::error::Error>(())
/// ```
pub fn accuracy(probabilities: ArrayView2<f64>, labels: &[usize]) -> Result<f64> {
    let predictions = Predictions::new(probabilities, labels)?;
    Ok(predictions.n_correct() as f64 / predictions.n_items() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::arr2;

    #[test]
    fn all_right_is_one_and_all_wrong_is_zero() {
        let p = arr2(&[[0.9, 0.1], [0.4, 0.6]]);
        assert_eq!(accuracy(p.view(), &[0, 1]).unwrap(), 1.0);
        assert_eq!(accuracy(p.view(), &[1, 0]).unwrap(), 0.0);
    }

    #[test]
    fn a_label_out_of_range_is_an_error() {
        assert!(accuracy(arr2(&[[0.9, 0.1]]).view(), &[2]).is_err());
    }
}
