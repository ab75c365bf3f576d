//! Chooses the items whose labels, together, would say most.

use super::joint::JointBelief;
use crate::error::{Error, Result};
use crate::linalg::CholeskyFactor;
use ndarray::{Array2, s};

/// One of a batch of items to label.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Choice {
    /// Its place among the items.
    pub item: usize,
    /// What its label adds to those of the items chosen before it, in nats.
    pub gain: f64,
}

impl JointBelief {
    /// Chooses a batch whose labels together say most about the weights: one item after the other, always the one that adds most to
    /// [`JointBelief::information`] of those before, the first of equal ones. Items that say the same as others are left.
    ///
    /// The information of a set is submodular, so that the greedy batch has at least 1 − 1/e of the best one's. After each choice the
    /// others' covariances are conditioned on its label, by a column of a block Cholesky factor of `I + RᵀSR`. For n items with w
    /// Fisher directions a batch of b takes b n w² (b w + k) multiplications. (Kirsch et al. 2019, arXiv 1906.08158, with the
    /// information of Gaussian outputs in place of sampled ones.)
    ///
    /// # Errors
    /// If there are fewer items, or the covariance is not positive semi-definite.
    pub fn choose_batch(&self, n: usize) -> Result<Vec<Choice>> {
        if n > self.n_items() {
            return Err(Error::Count { what: "items to choose from".into(), expected: n, found: self.n_items() });
        }
        // of every item what I + RᵀSR still says about it, given the labels of those chosen
        let mut left: Vec<Array2<f64>> = self
            .roots
            .iter()
            .zip(&self.ranges)
            .map(|(root, range)| {
                let own = self.covariance.slice(s![range.clone(), range.clone()]);
                Array2::eye(root.ncols()) + root.t().dot(&own).dot(root)
            })
            .collect();
        // the item's rows of the factor, one block a choice
        let mut factors: Vec<Vec<Array2<f64>>> = vec![Vec::new(); self.n_items()];
        let mut is_chosen = vec![false; self.n_items()];
        let mut choices = Vec::with_capacity(n);
        for _ in 0..n {
            let mut best: Option<(Choice, CholeskyFactor)> = None;
            for item in (0..self.n_items()).filter(|&item| !is_chosen[item]) {
                let factor = CholeskyFactor::new(left[item].view())?;
                let gain = 0.5 * factor.log_det();
                if best.as_ref().is_none_or(|(choice, _)| gain > choice.gain) {
                    best = Some((Choice { item, gain }, factor));
                }
            }
            let Some((choice, factor)) = best else { break };
            is_chosen[choice.item] = true;
            choices.push(choice);
            let rooted = self.rooted(choice.item);
            let of_chosen = std::mem::take(&mut factors[choice.item]);
            for item in (0..self.n_items()).filter(|&item| !is_chosen[item]) {
                let mut shared = self.roots[item].t().dot(&rooted.slice(s![self.ranges[item].clone(), ..]));
                for (own, chosen) in factors[item].iter().zip(&of_chosen) {
                    shared -= &own.dot(&chosen.t());
                }
                let column = factor.half_solve(shared.t()).t().to_owned();
                left[item] -= &column.dot(&column.t());
                factors[item].push(column);
            }
        }
        Ok(choices)
    }
}
