//! Says in closed form what each training item would be answered if it had not been trained on.

use super::mode::Mode;
use super::model::LinearizedModel;
use crate::belief::{LinkApprox, LogitBelief};
use crate::error::Result;
use crate::likelihood::{SharedLikelihood, Target};
use crate::linalg::CholeskyFactor;
use crate::prior::PriorPrecisions;
use ndarray::{Array1, Array2, s};

/// A belief about every training item as if it had not been trained on.
///
/// At the mode of the linearised model, with posterior covariance `S_n` and Fisher information `Λ_n` of item n's outputs:
/// `S₋ₙ = S_n (I − Λ_n S_n)⁻¹` and `f₋ₙ = f̂_n − S₋ₙ ∇ log p(y_n | f̂_n)`, one Newton step from the mode of all items to that of all
/// others; exact for a Gaussian likelihood. (Rad & Maleki 2018, arXiv 1801.10243; Vehtari et al. 2016, JMLR 17.)
///
/// The Jacobians have seen the labels: what training the network without item n would change in them is not in it.
#[derive(Debug, Clone)]
pub struct LeaveOneOut {
    shifted: LogitBelief,
    own: LogitBelief,
    targets: Vec<Target>,
    likelihood: SharedLikelihood,
    precisions: PriorPrecisions,
}

impl LinearizedModel {
    /// Leaves out every item in turn, at a mode of this model.
    ///
    /// # Errors
    /// If the mode is not of this model, or an item alone determines its outputs to rounding.
    pub fn leave_one_out(&self, mode: &Mode) -> Result<LeaveOneOut> {
        self.check_mode(mode)?;
        let curved = self.kernel.curved(&*mode.roots, &self.ranges, mode.scale)?;
        let mut shift = Array1::zeros(self.n_rows());
        let mut covariances = Vec::with_capacity(self.n_items());
        for (item, range) in curved.items().into_iter().zip(&self.ranges) {
            // S + SR(I − RᵀSR)⁻¹RᵀS
            let half = CholeskyFactor::new(item.slack.view())?.half_solve(item.rooted.t());
            let without: Array2<f64> = item.covariance + half.t().dot(&half);
            let own = without.dot(&mode.score.slice(s![range.clone()]));
            shift.slice_mut(s![range.clone()]).assign(&-own);
            covariances.push(without);
        }
        Ok(LeaveOneOut {
            shifted: self.belief(&shift, &covariances),
            own: self.belief(&(&mode.change + &shift), &covariances),
            targets: self.targets.clone(),
            likelihood: self.likelihood.clone(),
            precisions: self.precisions.scaled(mode.scale)?,
        })
    }
}

impl LeaveOneOut {
    /// The network's own answers, moved by what leaving the item out changes in the linearised model: `N(f*_n + f₋ₙ − f̂_n, S₋ₙ)`.
    pub fn belief(&self) -> &LogitBelief {
        &self.shifted
    }

    /// The linearised model's answers without the item: `N(f₋ₙ, S₋ₙ)`.
    pub fn own_belief(&self) -> &LogitBelief {
        &self.own
    }

    /// How much each target surprises those who have seen all others: `−ln E[p(y_n | f)]` in nats under a belief about the training
    /// items as if they had not been trained on, [`LeaveOneOut::belief`], [`LeaveOneOut::own_belief`] or one of them that was
    /// calibrated. Items that are far up among these ([`largest_first`]) are mislabelled more often than others.
    ///
    /// One number an item, in the data's order. (Vehtari, Gelman & Gabry 2017, arXiv 1507.04544, where the sum of such terms estimates the
    /// log predictive density of new items; here that would be too good, for the Jacobians have seen the labels.)
    ///
    /// # Errors
    /// If the belief is about another number of items, or as [`crate::likelihood::Likelihood::log_predictive`].
    pub fn surprises(&self, belief: &LogitBelief, link: LinkApprox) -> Result<Vec<f64>> {
        let logs = self.likelihood.log_predictive(belief, &self.targets, link)?;
        Ok(logs.into_iter().map(|log| 0.0 - log).collect())
    }

    /// The items' targets, in the data's order.
    pub fn targets(&self) -> &[Target] {
        &self.targets
    }

    /// The items' labels, in the data's order.
    ///
    /// # Errors
    /// If a target is not a class.
    pub fn labels(&self) -> Result<Vec<usize>> {
        Target::classes(&self.targets, "training items")
    }

    /// How targets depend on outputs.
    pub fn likelihood(&self) -> &SharedLikelihood {
        &self.likelihood
    }

    /// The prior precisions under which items were left out.
    pub fn precisions(&self) -> &PriorPrecisions {
        &self.precisions
    }
}

/// Ranks values: the places of the largest first, equal ones in their order.
///
/// ```
/// use bayes_lora::posterior::largest_first;
/// assert_eq!(largest_first(&[0.1, 3.0, 0.1, 7.0]), [3, 1, 0, 2]);
/// ```
pub fn largest_first(values: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[b].total_cmp(&values[a]));
    order
}
