//! Decomposes symmetric matrices.

use crate::error::{Error, Result, check_finite};
use faer::diag::Diag;
use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::evd::{ComputeEigenvectors, EvdError, self_adjoint_evd, self_adjoint_evd_scratch};
use faer::{Mat, Par, Spec};
use ndarray::{Array1, Array2, ArrayView2};

/// Eigenvalues and eigenvectors `M = Q diag(values) Qᵀ`.
#[derive(Debug, Clone, PartialEq)]
pub struct Eigen {
    /// `[k]`, ascending.
    pub values: Array1<f64>,
    /// `[n, k]`, one orthonormal eigenvector a column.
    pub vectors: Array2<f64>,
}

/// From here on several cores decompose a matrix sooner than one: two take twice as long at 74.
const MANY: usize = 256;

/// Eigendecomposition of a symmetric matrix; reads the lower triangle.
///
/// # Errors
/// If a value is not finite or the iteration does not converge.
pub fn eigh(matrix: ArrayView2<f64>) -> Result<Eigen> {
    let n = matrix.nrows();
    check_finite(format_args!("symmetric matrix [{n}, {n}]"), matrix.iter().map(|v| v.is_finite()))?;
    // the iteration may not converge where most rows are zero; it does on a matrix moved away from zero, whose eigenvalues
    // are as exact as any: to the rounding of the largest
    let scale = matrix.iter().fold(0.0f64, |m, v| m.max(v.abs()));
    let mut last = None;
    for shift in [0.0, scale] {
        let m = Mat::from_fn(n, n, |i, j| matrix[[i, j]] + if i == j { shift } else { 0.0 });
        match decomposed(&m) {
            Ok((u, s)) => {
                let s = s.column_vector();
                return Ok(Eigen {
                    values: Array1::from_shape_fn(n, |i| s[i] - shift),
                    vectors: Array2::from_shape_fn((n, n), |(i, j)| u[(i, j)]),
                });
            }
            Err(error) => last = Some(error),
        }
    }
    Err(Error::numerical("eigendecomposition", format!("{last:?}")))
}

/// Eigenvectors and eigenvalues, ascending.
fn decomposed(m: &Mat<f64>) -> std::result::Result<(Mat<f64>, Diag<f64>), EvdError> {
    let n = m.nrows();
    let par = if n < MANY { Par::Seq } else { Par::rayon(0) };
    let (mut u, mut s) = (Mat::zeros(n, n), Diag::zeros(n));
    let scratch = self_adjoint_evd_scratch::<f64>(n, ComputeEigenvectors::Yes, par, Spec::default());
    let mut memory = MemBuffer::new(scratch);
    self_adjoint_evd(m.as_ref(), s.as_mut(), Some(u.as_mut()), par, MemStack::new(&mut memory), Spec::default())?;
    Ok((u, s))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn eigenpairs_rebuild_the_matrix(values in proptest::collection::vec(-2.0..2.0f64, 25)) {
            let half = Array2::from_shape_vec((5, 5), values).unwrap();
            let m = &half + &half.t();
            let e = eigh(m.view()).unwrap();
            let rebuilt = (&e.vectors * &e.values).dot(&e.vectors.t());
            prop_assert!((&rebuilt - &m).iter().all(|d| d.abs() < 1e-12)); // f64 rounding of a 5×5
            prop_assert!(e.values.windows(2).into_iter().all(|w| w[0] <= w[1]));
        }
    }

    #[test]
    fn a_small_block_among_hundreds_of_zero_rows_is_decomposed() {
        // pads leave such Gram matrices
        let half = Array2::from_shape_fn((15, 15), |(i, j)| ((i * 7 + j * 3) % 11) as f64 / 11.0 - 0.4);
        let block = half.dot(&half.t());
        let mut m = Array2::zeros((960, 960));
        m.slice_mut(ndarray::s![400..415, 400..415]).assign(&block);
        let (whole, alone) = (eigh(m.view()).unwrap(), eigh(block.view()).unwrap());
        for (found, expected) in whole.values.iter().rev().zip(alone.values.iter().rev()) {
            assert!((found - expected).abs() < 1e-12 * alone.values[14]); // f64 rounding of the largest
        }
    }

    #[test]
    fn nan_is_refused_by_count() {
        let error = eigh(ndarray::arr2(&[[f64::NAN, 0.0], [0.0, 1.0]]).view()).unwrap_err();
        assert!(error.to_string().contains("1 of 4"));
    }
}
