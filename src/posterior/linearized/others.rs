//! The posterior covariance of other items' outputs, with those of the training items and with each other.

use super::kernel::{Curved, Kernel};
use super::model::LinearizedModel;
use super::rows::JacobianRows;
use crate::error::{Error, Result};
use crate::linalg::matmul;
use ndarray::{Array2, ArrayView2};

/// Combinations of other items' outputs, in the form of the training items' [`Kernel`].
pub(super) enum OtherRows {
    /// `K(x, train)`, `[m', M]`.
    Gram(Array2<f64>),
    /// Φ, `[m', m]`.
    Features(Array2<f64>),
}

impl LinearizedModel {
    /// Rows of other items beside the kernel, whose rows were `train`: any that are as many are taken for these.
    ///
    /// # Errors
    /// If they are not as many, or the others are in other coordinates.
    pub(super) fn other_rows(&self, train: &JacobianRows, others: &JacobianRows) -> Result<OtherRows> {
        let (expected, found) = (self.n_rows(), train.n_rows());
        if expected != found {
            return Err(Error::Count { what: "rows of the training items' Jacobians".into(), expected, found });
        }
        train.check_same_coordinates(others)?;
        Ok(match &self.kernel {
            Kernel::Gram(_) => OtherRows::Gram(others.kernel(train)?),
            Kernel::Features(_) => OtherRows::Features(others.to_matrix()),
        })
    }
}

impl Curved<'_> {
    /// `S(x, train) V` for V `[M, q]`: the posterior covariance of other combinations with weighted sums of the training items', `[m', q]`.
    ///
    /// # Errors
    /// If the others are not in the kernel's form.
    pub(super) fn covariance_with(&self, others: &OtherRows, v: ArrayView2<f64>) -> Result<Array2<f64>> {
        match (self.kernel, others) {
            (Kernel::Gram(gram), OtherRows::Gram(cross)) => {
                let inner = self.pull(matmul(gram.view(), v).view()) / self.scale;
                let inner = self.factor.solve(inner.view());
                let rest = &v - &self.push(inner.view());
                Ok(matmul(cross.view(), rest.view()) / self.scale)
            }
            (Kernel::Features(train), OtherRows::Features(others)) => {
                let weights = self.factor.solve(matmul(train.t(), v).view());
                Ok(matmul(others.view(), weights.view()) / self.scale)
            }
            _ => Err(other_form()),
        }
    }

    /// `S(x, x')` of other combinations, `[m', m']`; `own` is asked for their kernel where the training items' is a matrix.
    ///
    /// # Errors
    /// If the others are not in the kernel's form.
    pub(super) fn covariance_of(&self, others: &OtherRows, own: impl FnOnce() -> Array2<f64>) -> Result<Array2<f64>> {
        match (self.kernel, others) {
            (Kernel::Gram(_), OtherRows::Gram(cross)) => {
                let pulled = self.pull(cross.t()) / self.scale;
                let half = self.factor.half_solve(pulled.view());
                Ok(own() / self.scale - matmul(half.t(), half.view()))
            }
            (Kernel::Features(_), OtherRows::Features(others)) => {
                let half = self.factor.half_solve(others.t()) / self.scale.sqrt();
                Ok(matmul(half.t(), half.view()))
            }
            _ => Err(other_form()),
        }
    }
}

fn other_form() -> Error {
    Error::Incompatible("rows of other items are not in the form of the training items' kernel".into())
}
