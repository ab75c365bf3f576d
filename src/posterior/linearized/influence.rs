//! Says what leaving a training item out would change in the answers about other items.

use super::mode::Mode;
use super::model::LinearizedModel;
use super::others::OtherRows;
use super::rows::JacobianRows;
use crate::error::{Error, Result};
use crate::likelihood::{SharedLikelihood, Target};
use ndarray::{Array2, Array3, ArrayView1, ArrayView3, Axis, s};

/// The influence of N training items on n other items.
///
/// One Newton step from the mode of all items to that of all others but item t changes the outputs for x by
/// `Δ_t f(x) = −J(x) Σ₋ₜ J_tᵀ ∇log p(y_t | f̂_t)`, with the posterior covariance `Σ₋ₜ` of the exact generalised Gauss-Newton matrix
/// without the item; exact for a Gaussian likelihood. (Koh & Liang 2017, arXiv 1703.04730, equation 2, there with all items in the
/// matrix and with the opposite sign: the influence of adding weight.) The Jacobians do not change: what training another network
/// without the item would do to its features is not in it.
///
/// The influences of several items add up to that of leaving all of them out, but for what they know in common.
#[derive(Debug, Clone)]
pub struct Influence {
    /// `f*(x)`, `[n, C]`
    outputs: Array2<f64>,
    /// `[N, n, C]`
    changes: Array3<f64>,
    likelihood: SharedLikelihood,
}

impl LinearizedModel {
    /// The influence of every training item on other items, at a mode of this model; `train` are the rows that it was made from, `others`
    /// come from them by [`JacobianRows::of_others`].
    ///
    /// It takes 8 N·n·C bytes; where that is too much, ask about the others in parts.
    ///
    /// # Errors
    /// If mode and rows are not of this model, the others are in other coordinates, or an item alone determines its outputs to rounding.
    pub fn influence(&self, mode: &Mode, train: &JacobianRows, others: &JacobianRows) -> Result<Influence> {
        self.influence_on(mode, &self.other_rows(train, others)?, others.items.outputs.clone())
    }

    pub(super) fn influence_on(&self, mode: &Mode, others: &OtherRows, outputs: Array2<f64>) -> Result<Influence> {
        self.check_mode(mode)?;
        let curved = self.kernel.curved(&*mode.roots, &self.ranges, mode.scale)?;
        let mut pulls = Array2::zeros((self.n_rows(), self.n_items()));
        for (item, own) in curved.items().into_iter().enumerate() {
            let range = self.ranges[item].clone();
            let pull = own.without(&mode.roots[item], mode.score.slice(s![range.clone()]))?;
            pulls.slice_mut(s![range, item]).assign(&-pull);
        }
        let of_combinations = curved.covariance_with(others, pulls.view())?;
        let (n, n_outputs) = outputs.dim();
        let k = of_combinations.nrows() / n.max(1);
        let mut changes = Array3::zeros((self.n_items(), n, n_outputs));
        for (train, mut changes) in changes.outer_iter_mut().enumerate() {
            for (other, mut change) in changes.outer_iter_mut().enumerate() {
                let own = of_combinations.slice(s![other * k..(other + 1) * k, train]);
                change.assign(&self.combinations.push(own, n_outputs));
            }
        }
        Ok(Influence { outputs, changes, likelihood: self.likelihood.clone() })
    }
}

impl Influence {
    /// Number of training items.
    pub fn n_training(&self) -> usize {
        self.changes.len_of(Axis(0))
    }

    /// Number of other items.
    pub fn n_others(&self) -> usize {
        self.outputs.nrows()
    }

    /// The change of each other item's outputs where a training item is left out, `[n_training, n_others, C]`; up to a common shift
    /// of an item's outputs where these matter up to one.
    pub fn changes(&self) -> ArrayView3<'_, f64> {
        self.changes.view()
    }

    /// The change where several training items are left out, to first order: the sum of theirs, `[n_others, C]`.
    ///
    /// # Errors
    /// If there is no such training item.
    pub fn change_without(&self, left_out: &[usize]) -> Result<Array2<f64>> {
        let mut sum = Array2::zeros(self.outputs.dim());
        for &item in left_out {
            if item >= self.n_training() {
                return Err(Error::config("training item", format!("below {}", self.n_training()), item));
            }
            sum += &self.changes.index_axis(Axis(0), item);
        }
        Ok(sum)
    }

    /// The change of `−log p(y | x)` of each other item in nats, from the network's own answer, where several training items are left out.
    ///
    /// # Errors
    /// As [`Influence::change_without`]; if there is not one target an item, or one is none for its item.
    pub fn loss_change_without(&self, left_out: &[usize], targets: &[Target]) -> Result<Vec<f64>> {
        self.check_targets(targets)?;
        let change = self.change_without(left_out)?;
        let rise = |other| self.loss_change(other, change.row(other), targets);
        Ok((0..self.n_others()).map(rise).collect())
    }

    /// The same for each training item alone, `[n_training, n_others]`: positive where the item helps, for the loss rises without it.
    /// Sums over training items are the linear datamodel of Park et al. (2023, arXiv 2303.14186).
    ///
    /// # Errors
    /// As [`Influence::loss_change_without`].
    pub fn loss_changes(&self, targets: &[Target]) -> Result<Array2<f64>> {
        self.check_targets(targets)?;
        let shape = (self.n_training(), self.n_others());
        Ok(Array2::from_shape_fn(shape, |(train, other)| {
            self.loss_change(other, self.changes.slice(s![train, other, ..]), targets)
        }))
    }

    fn loss_change(&self, other: usize, change: ArrayView1<f64>, targets: &[Target]) -> f64 {
        let (outputs, target) = (self.outputs.row(other), &targets[other]);
        let without = &outputs + &change;
        self.likelihood.log_density(outputs, target) - self.likelihood.log_density(without.view(), target)
    }

    fn check_targets(&self, targets: &[Target]) -> Result<()> {
        let (expected, found) = (self.n_others(), targets.len());
        if expected != found {
            return Err(Error::Count { what: "targets of the other items".into(), expected, found });
        }
        for (item, (outputs, target)) in self.outputs.outer_iter().zip(targets).enumerate() {
            let present: Vec<bool> = outputs.iter().map(|v| v.is_finite()).collect();
            self.likelihood.check_target(&item.to_string(), target, &present)?;
        }
        Ok(())
    }
}
