//! Holds what a belief about outputs says about targets.

use super::target::Target;
use crate::belief::{LinkApprox, LogitBelief};
use crate::error::{Error, Result};
use ndarray::{Array1, Array2, Array3, ArrayView1, Axis};

/// Mean and covariance of the targets of a set of items, **noise included**: `E[y] = E_f[E[y | f]]` and
/// `Cov[y] = E_f[Cov(y | f)] + Cov_f(E[y | f])`.
#[derive(Debug, Clone, PartialEq)]
pub struct TargetMoments {
    /// `[n_items, n_outputs]`; class probabilities where the target is a class.
    pub mean: Array2<f64>,
    /// `[n_items, n_outputs, n_outputs]`; zero for outputs that an item does not have.
    pub covariance: Array3<f64>,
}

/// Mean and covariance of one unit's target given its outputs.
pub(super) type OneMoments = (Array1<f64>, Array2<f64>);

impl TargetMoments {
    /// The moments of every item, over the draws or nodes of `link`; `given` are those of one unit given its outputs.
    pub(super) fn over_draws(
        belief: &LogitBelief,
        link: LinkApprox,
        given: impl Fn(ArrayView1<f64>) -> OneMoments,
    ) -> Result<Self> {
        let (n, c) = (belief.n_items(), belief.n_classes());
        let (mut mean, mut covariance) = (Array2::zeros((n, c)), Array3::zeros((n, c, c)));
        for item in 0..n {
            let (draws, weights) = belief.output_draws(item, link)?;
            let all: Vec<OneMoments> = draws.outer_iter().map(&given).collect();
            let mut centre = Array1::zeros(c);
            for ((m, _), weight) in all.iter().zip(&weights) {
                centre.scaled_add(*weight, m);
            }
            let mut spread = covariance.index_axis_mut(Axis(0), item);
            for ((m, noise), weight) in all.iter().zip(&weights) {
                let d = m - &centre;
                for ((a, b), value) in spread.indexed_iter_mut() {
                    // −∞ minus −∞ where the item lacks an output
                    let product = if d[a].is_finite() && d[b].is_finite() { d[a] * d[b] } else { 0.0 };
                    *value += weight * (noise[[a, b]] + product);
                }
            }
            mean.row_mut(item).assign(&centre);
        }
        Ok(Self { mean, covariance })
    }
}

/// `ln Σ_k w_k p(y | f_k)` of every item over the draws or nodes of `link`.
pub(super) fn log_mean_densities(
    belief: &LogitBelief,
    targets: &[Target],
    link: LinkApprox,
    log_density: impl Fn(ArrayView1<f64>, &Target) -> f64,
) -> Result<Vec<f64>> {
    check_one_each(belief, targets)?;
    let one = |(item, target): (usize, &Target)| {
        let (draws, weights) = belief.output_draws(item, link)?;
        let logs: Vec<f64> =
            draws.outer_iter().zip(&weights).map(|(outputs, w)| w.ln() + log_density(outputs, target)).collect();
        let top = logs.iter().fold(f64::NEG_INFINITY, |m, v| m.max(*v));
        if top == f64::NEG_INFINITY {
            return Ok(top);
        }
        Ok(top + logs.iter().map(|v| (v - top).exp()).sum::<f64>().ln())
    };
    targets.iter().enumerate().map(one).collect()
}

/// Checks that every item has its target.
///
/// # Errors
/// Names both numbers.
pub(super) fn check_one_each(belief: &LogitBelief, targets: &[Target]) -> Result<()> {
    let (expected, found) = (belief.n_items(), targets.len());
    if expected == found {
        return Ok(());
    }
    Err(Error::Count { what: "targets of the predicted items".into(), expected, found })
}
