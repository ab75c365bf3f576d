//! Factors a positive semi-definite matrix, which may be singular.

use crate::error::{Error, Result};
use ndarray::{Array2, ArrayView2};

/// Relative size under which a pivot counts as zero; eigenvalues of covariances carry about this much rounding.
const PIVOT_TOLERANCE: f64 = 1e-10;

/// Lower-triangular `L` with `L Lᵀ = M`; a pivot that is zero to rounding gives a zero column.
///
/// # Shapes
/// - matrix: `[n, n]`, symmetric positive semi-definite; output `[n, n]`.
///
/// # Errors
/// If a pivot is clearly negative or a value is not finite.
pub fn semidefinite_cholesky(matrix: ArrayView2<f64>) -> Result<Array2<f64>> {
    let n = matrix.nrows();
    let scale = matrix.diag().iter().fold(0.0f64, |m, v| m.max(v.abs()));
    let mut l = Array2::zeros((n, n));
    for j in 0..n {
        let pivot = matrix[[j, j]] - (0..j).map(|k| l[[j, k]] * l[[j, k]]).sum::<f64>();
        if !pivot.is_finite() || pivot < -1e-6 * scale {
            return Err(Error::numerical(
                "Cholesky factorisation",
                format!("pivot {j} is {pivot}, so the matrix is not positive semi-definite"),
            ));
        }
        if pivot <= PIVOT_TOLERANCE * scale {
            continue;
        }
        l[[j, j]] = pivot.sqrt();
        for i in j + 1..n {
            let dot: f64 = (0..j).map(|k| l[[i, k]] * l[[j, k]]).sum();
            l[[i, j]] = (matrix[[i, j]] - dot) / l[[j, j]];
        }
    }
    Ok(l)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_factor_reproduces_matrices_of_any_rank(
            values in proptest::collection::vec(-2.0..2.0f64, 12), rank in 1usize..4,
        ) {
            let full = Array2::from_shape_vec((4, 3), values).unwrap();
            let half = full.slice(ndarray::s![.., ..rank]);
            let m = half.dot(&half.t());
            let l = semidefinite_cholesky(m.view()).unwrap();
            let error = (&l.dot(&l.t()) - &m).iter().fold(0.0f64, |e, v| e.max(v.abs()));
            // a dropped pivot of 1e-10·scale perturbs the rest by at most its square root times the scale
            prop_assert!(error < 1e-4 * (1.0 + m.diag().sum()));
        }
    }

    #[test]
    fn a_negative_matrix_is_refused() {
        assert!(semidefinite_cholesky(ndarray::arr2(&[[-1.0]]).view()).is_err());
        assert!(semidefinite_cholesky(ndarray::arr2(&[[f64::NAN]]).view()).is_err());
    }
}
