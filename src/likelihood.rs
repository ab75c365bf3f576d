//! States how labels depend on the model's outputs, and the curvature `Λ` this gives in output space.
//!
//! ```
//! use bayes_lora::likelihood::categorical_fisher;
//! use ndarray::arr1;
//! let fisher = categorical_fisher(arr1(&[0.5, 0.5]).view());
//! assert_eq!(fisher[[0, 0]], 0.25);
//! assert_eq!(fisher[[0, 1]], -0.25);
//! ```

use crate::error::{Error, Result};
use ndarray::{Array2, ArrayView1};

/// The distribution of a label given the outputs `f`.
#[derive(Debug, Clone, Copy, PartialEq, Default, serde::Serialize, serde::Deserialize)]
pub enum Likelihood {
    /// `p(y | f) = softmax(f)_y`; `Λ = diag(p) − p pᵀ`.
    #[default]
    Categorical,
    /// `p(y | f) = N(y; f, σ² I)` with one-hot or real targets; `Λ = I / σ²`.
    Gaussian {
        /// Noise variance σ² > 0.
        noise_variance: f64,
    },
}

impl Likelihood {
    /// Output-space Fisher information `Λ` of one item `[n_classes, n_classes]`, from its class probabilities.
    pub fn fisher(&self, probabilities: ArrayView1<f64>) -> Array2<f64> {
        match *self {
            Self::Categorical => categorical_fisher(probabilities),
            Self::Gaussian { noise_variance } => Array2::eye(probabilities.len()) / noise_variance,
        }
    }

    /// Checks the noise variance.
    ///
    /// # Errors
    /// If it is not positive and finite.
    pub fn check(&self) -> Result<()> {
        match *self {
            Self::Gaussian { noise_variance } if !(noise_variance > 0.0 && noise_variance.is_finite()) => {
                Err(Error::config("noise_variance", "positive and finite", noise_variance))
            }
            _ => Ok(()),
        }
    }
}

/// `Λ = diag(p) − p pᵀ`, the Fisher information of a categorical label in logit space. `[n_classes, n_classes]`
///
/// The diagonal is `p_i Σ_{k≠i} p_k`: `p_i − p_i²` would lose all digits where the model is sure.
pub fn categorical_fisher(p: ArrayView1<f64>) -> Array2<f64> {
    Array2::from_shape_fn((p.len(), p.len()), |(i, j)| {
        if i == j {
            let others: f64 = p.iter().enumerate().filter(|(k, _)| *k != i).map(|(_, v)| v).sum();
            p[i] * others
        } else {
            -p[i] * p[j]
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linalg::semidefinite_cholesky;
    use ndarray::arr1;

    #[test]
    fn a_saturated_model_still_has_a_semidefinite_fisher() {
        for small in [1e-6, 1e-11, 1e-15, 1e-30] {
            let fisher = categorical_fisher(arr1(&[1.0 - small, small * 0.7, small * 0.3]).view());
            let factor = semidefinite_cholesky(fisher.view()).unwrap();
            let error = (&factor.dot(&factor.t()) - &fisher).mapv(f64::abs).sum();
            assert!(error <= 1e-9 * fisher.diag().sum()); // relative to its own tiny scale
        }
    }
}
