//! Measures the surprise at the labels: the negative log-likelihood.

use super::bootstrap::BayesianBootstrap;
use super::interval::Estimate;
use super::predictions::Predictions;
use crate::belief::item_loss;
use crate::error::Result;
use ndarray::ArrayView2;

/// Mean negative log-probability of the labels, in nats.
///
/// NLL = −(1/n) Σ_i ln p_i,y_i
///
/// The probabilities are those of the whole method, averaged over its draws: `−ln mean_s p_s`, not `mean_s −ln p_s`.
/// A probability of exactly 0 costs 708.4 nats, see [`item_loss`]; of a belief,
/// [`LogitBelief::losses`](crate::belief::LogitBelief::losses) tells larger losses apart.
///
/// # Shapes
/// - probabilities: `[n_items, n_classes]`; labels: `[n_items]`; output: nats per item, lower is better.
///
/// # Errors
/// If there is no item, lengths differ, a row is not a distribution or a label is not a class.
///
/// ```
/// use bayes_lora::metrics::nll;
/// use ndarray::arr2;
///
/// let uniform = arr2(&[[0.25, 0.25, 0.25, 0.25]]);
/// assert!((nll(uniform.view(), &[3])? - 4f64.ln()).abs() < 1e-15);
/// # Ok::<(), bayes_lora::error::Error>(())
/// ```
pub fn nll(probabilities: ArrayView2<f64>, labels: &[usize]) -> Result<f64> {
    let losses = item_losses(&Predictions::new(probabilities, labels)?);
    Ok(losses.iter().sum::<f64>() / losses.len() as f64)
}

/// [`nll`] with its interval by the Bayesian bootstrap.
///
/// # Errors
/// As [`nll`], or if the bootstrap's own settings are out of bounds.
pub fn nll_estimate(
    probabilities: ArrayView2<f64>,
    labels: &[usize],
    bootstrap: &BayesianBootstrap,
) -> Result<Estimate> {
    bootstrap.mean(&item_losses(&Predictions::new(probabilities, labels)?))
}

/// −ln p_y of each item, in nats.
pub(super) fn item_losses(predictions: &Predictions) -> Vec<f64> {
    let rows = predictions.probabilities.rows();
    rows.into_iter().zip(predictions.labels).map(|(row, &label)| item_loss(row[label])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::arr2;

    #[test]
    fn equals_the_hand_computed_case() {
        let p = arr2(&[[0.5, 0.25, 0.25], [0.1, 0.8, 0.1]]);
        let expected = -(0.25f64.ln() + 0.8f64.ln()) / 2.0;
        // One addition and one division apart.
        assert!((nll(p.view(), &[2, 1]).unwrap() - expected).abs() < 1e-15);
    }

    #[test]
    fn a_label_of_probability_zero_costs_708_nats() {
        let p = arr2(&[[1.0, 0.0]]);
        assert_eq!(nll(p.view(), &[0]).unwrap(), 0.0);
        // ln(2^-1022) = −1022 ln 2 = −708.396…
        let cost = nll(p.view(), &[1]).unwrap();
        assert!((cost - 1022.0 * std::f64::consts::LN_2).abs() < 1e-10);
    }
}
