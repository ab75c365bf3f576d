//! Draws an item's outputs themselves, where more is wanted than class probabilities.

use super::{LinkApprox, LogitBelief, softmax::softmax};
use crate::error::{Error, Result};
use crate::linalg::semidefinite_cholesky;
use ndarray::{Array1, Array2, Axis, s};

impl LogitBelief {
    /// Outputs of one item at draws or nodes `[n, n_outputs]` with weights `[n]` that are positive and sum to 1.
    ///
    /// A Gaussian in the raw gauge is drawn as `link` says (analytic links take 2,000 draws). Outputs that the item does not have
    /// stay −∞.
    ///
    /// # Errors
    /// If the item has no output, its covariance is in the centred gauge, is not positive semi-definite, or Gauss–Hermite is
    /// asked of several outputs.
    pub fn output_draws(&self, item: usize, link: LinkApprox) -> Result<(Array2<f64>, Array1<f64>)> {
        match self {
            Self::Point { logits } => Ok((logits.slice(s![item..=item, ..]).to_owned(), Array1::ones(1))),
            Self::Samples { logits, log_weights } => {
                let weights = softmax(log_weights.view().insert_axis(Axis(0)));
                let weighted: Vec<usize> = (0..log_weights.len()).filter(|&k| weights[[0, k]] > 0.0).collect();
                let draws = logits.index_axis(Axis(1), item).select(Axis(0), &weighted);
                Ok((draws, weights.row(0).select(Axis(0), &weighted)))
            }
            Self::Gaussian { mean, covariance, gauge } => {
                gauge.check_raw()?;
                let mean = mean.row(item);
                let present: Vec<usize> = (0..mean.len()).filter(|&c| mean[c].is_finite()).collect();
                if present.is_empty() {
                    return Err(Error::empty(format!("set of outputs of item {item}")));
                }
                let own = covariance.index_axis(Axis(0), item).select(Axis(0), &present).select(Axis(1), &present);
                let factor = semidefinite_cholesky(own.view())?;
                let (nodes, weights) = link.nodes(present.len())?;
                let shifts = nodes.dot(&factor.t());
                let mut draws = Array2::from_elem((nodes.nrows(), mean.len()), f64::NEG_INFINITY);
                for (shift, &c) in shifts.columns().into_iter().zip(&present) {
                    draws.column_mut(c).assign(&shift.mapv(|v| mean[c] + v));
                }
                Ok((draws, weights))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::belief::LogitGauge;
    use ndarray::{arr1, arr2, arr3};

    #[test]
    fn draws_have_the_mean_and_covariance_of_the_belief_and_lack_what_the_item_lacks() {
        let belief = LogitBelief::Gaussian {
            mean: arr2(&[[1.0, f64::NEG_INFINITY, -2.0]]),
            covariance: arr3(&[[[2.0, 0.0, 0.5], [0.0, 0.0, 0.0], [0.5, 0.0, 1.0]]]),
            gauge: LogitGauge::Raw,
        };
        let (draws, weights) = belief.output_draws(0, LinkApprox::MonteCarlo { n_samples: 40_000, seed: 2 }).unwrap();
        assert!((weights.sum() - 1.0).abs() < 1e-9); // rounding of 40,000 terms
        assert!(draws.column(1).iter().all(|v| *v == f64::NEG_INFINITY));
        let moment = |a: usize, b: usize| {
            let d = |k: usize, c: usize| draws[[k, c]] - [1.0, 0.0, -2.0][c];
            (0..draws.nrows()).map(|k| weights[k] * d(k, a) * d(k, b)).sum::<f64>()
        };
        // antithetic pairs have the mean exactly; the standard error of a variance of 2 is 0.02
        assert!((weights.dot(&draws.column(0)) - 1.0).abs() < 1e-9);
        assert!((moment(0, 0) - 2.0).abs() < 0.1 && (moment(2, 2) - 1.0).abs() < 0.05);
        assert!((moment(0, 2) - 0.5).abs() < 0.05);
    }

    #[test]
    fn draws_without_weight_are_left_out() {
        let belief = LogitBelief::Samples {
            logits: arr3(&[[[1.0, 2.0]], [[f64::NAN, 0.0]], [[3.0, 4.0]]]),
            log_weights: arr1(&[0.0, f64::NEG_INFINITY, 0.0]),
        };
        let (draws, weights) = belief.output_draws(0, LinkApprox::default()).unwrap();
        assert_eq!((draws, weights), (arr2(&[[1.0, 2.0], [3.0, 4.0]]), arr1(&[0.5, 0.5])));
    }
}
