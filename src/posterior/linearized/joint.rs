//! What the posterior says about many other items at once.

use super::mode::Mode;
use super::model::{LinearizedModel, gaussian_belief};
use super::others::OtherRows;
use super::rows::JacobianRows;
use crate::belief::LogitBelief;
use crate::error::{Error, Result};
use crate::linalg::CholeskyFactor;
use crate::posterior::jacobians::Combinations;
use ndarray::{Array2, ArrayView1, ArrayView2, s};
use std::ops::Range;

/// The joint posterior of the outputs of n items that were not trained on, with the Fisher information that a label of each would
/// bring: `N(f*(x), S(x, x'))`, `S = J(x) Σ J(x')ᵀ` at the mode of the linearised model, and `Λ_x = R_x R_xᵀ` at `f*(x)`.
#[derive(Debug, Clone)]
pub struct JointBelief {
    outputs: Array2<f64>,
    /// `[n·k, n·k]`
    pub(super) covariance: Array2<f64>,
    pub(super) ranges: Vec<Range<usize>>,
    /// `R_x` `[k, w]`
    pub(super) roots: Vec<Array2<f64>>,
    combinations: Combinations,
}

impl LinearizedModel {
    /// The joint posterior of other items, at a mode of this model; `train` are the rows that it was made from, `others` come from them by
    /// [`JacobianRows::of_others`]. No label of them is read.
    ///
    /// With k combinations an item it takes 8 (n·k)² bytes: 2,000 items of four classes, 288 MB.
    ///
    /// # Errors
    /// If mode and rows are not of this model, or the others are in other coordinates.
    pub fn joint_belief(&self, mode: &Mode, train: &JacobianRows, others: &JacobianRows) -> Result<JointBelief> {
        self.joint_belief_of(mode, &self.other_rows(train, others)?, || others.gram(), others.items.outputs.clone())
    }

    pub(super) fn joint_belief_of(
        &self,
        mode: &Mode,
        others: &OtherRows,
        gram: impl FnOnce() -> Array2<f64>,
        outputs: Array2<f64>,
    ) -> Result<JointBelief> {
        self.check_mode(mode)?;
        let curved = self.kernel.curved(&*mode.roots, &self.ranges, mode.scale)?;
        let covariance = curved.covariance_of(others, gram)?;
        let k = covariance.nrows() / outputs.nrows().max(1);
        let root = |row: ArrayView1<f64>| Ok(self.combinations.pull(self.likelihood.fisher_root(row)?.view(), k));
        let roots = outputs.outer_iter().map(root).collect::<Result<_>>()?;
        let ranges = (0..outputs.nrows()).map(|item| item * k..(item + 1) * k).collect();
        Ok(JointBelief { outputs, covariance, ranges, roots, combinations: self.combinations })
    }
}

impl JointBelief {
    /// Number of items.
    pub fn n_items(&self) -> usize {
        self.ranges.len()
    }

    /// The joint covariance of all items' combinations, item after item: the differences of outputs to the first where they matter up to
    /// a shift, else all outputs. `[n·k, n·k]`
    pub fn covariance(&self) -> ArrayView2<'_, f64> {
        self.covariance.view()
    }

    /// The belief about each item alone; the epistemic part of its [`LogitBelief::decompose`] is the mutual information of the item's
    /// answer and the weights, by which single items are chosen. (BALD: Houlsby et al. 2011, arXiv 1112.5745.)
    pub fn belief(&self) -> LogitBelief {
        let own = |range: &Range<usize>| self.covariance.slice(s![range.clone(), range.clone()]).to_owned();
        let covariances: Vec<Array2<f64>> = self.ranges.iter().map(own).collect();
        gaussian_belief(self.outputs.clone(), &covariances, self.combinations)
    }

    /// What the labels of a set of items B would say about the weights, in nats: `½ ln det(I + R_Bᵀ S_BB R_B)`, the fall of the
    /// posterior's entropy where each label brings its Fisher information. An item twice counts as two labels.
    /// (MacKay 1992, Neural Computation 4; Kirsch & Gal 2022, arXiv 2208.00549.)
    ///
    /// # Errors
    /// If there is no such item, or the covariance is not positive semi-definite.
    pub fn information(&self, items: &[usize]) -> Result<f64> {
        let mut blocks = Vec::new();
        for &item in items {
            if item >= self.n_items() {
                return Err(Error::config("item", format!("below {}", self.n_items()), item));
            }
            blocks.push(self.rooted(item));
        }
        let widths: Vec<usize> = items.iter().map(|&item| self.roots[item].ncols()).collect();
        let total: usize = widths.iter().sum();
        let mut matrix = Array2::eye(total);
        let mut column = 0;
        for (rooted, own) in blocks.iter().zip(&widths) {
            let mut row = 0;
            for (&item, width) in items.iter().zip(&widths) {
                let part = self.roots[item].t().dot(&rooted.slice(s![self.ranges[item].clone(), ..]));
                let mut target = matrix.slice_mut(s![row..row + width, column..column + own]);
                target += &part;
                row += width;
            }
            column += own;
        }
        Ok(0.5 * CholeskyFactor::new(matrix.view())?.log_det())
    }

    /// `S R_x`, the covariance of all combinations with an item's Fisher directions, `[n·k, w]`.
    pub(super) fn rooted(&self, item: usize) -> Array2<f64> {
        self.covariance.slice(s![.., self.ranges[item].clone()]).dot(&self.roots[item])
    }
}
