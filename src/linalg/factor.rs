//! Factors a positive definite matrix once, for many solves.

use super::matmul::par_of;
use crate::error::{Error, Result, check_finite};
use faer::linalg::solvers::Llt;
use faer::linalg::triangular_solve::{solve_lower_triangular_in_place, solve_upper_triangular_in_place};
use faer::{Mat, MatRef, Par, Side};
use ndarray::{Array1, Array2, ArrayView1, ArrayView2};

/// The Cholesky factor L of a positive definite `M = L Lᵀ`.
#[derive(Debug, Clone)]
pub struct CholeskyFactor {
    factor: Llt<f64>,
}

impl CholeskyFactor {
    /// Factors a matrix `[n, n]`; reads the lower triangle.
    ///
    /// # Errors
    /// If a value is not finite or the matrix is not positive definite.
    pub fn new(matrix: ArrayView2<f64>) -> Result<Self> {
        let n = matrix.nrows();
        check_finite(format_args!("positive definite matrix [{n}, {n}]"), matrix.iter().map(|v| v.is_finite()))?;
        let rows = matrix.as_standard_layout();
        let values = rows.as_slice().ok_or_else(|| Error::empty("layout of a positive definite matrix"))?;
        let factor = MatRef::from_row_major_slice(values, n, n).llt(Side::Lower).map_err(|e| {
            Error::numerical("Cholesky factorisation", format!("a matrix [{n}, {n}] is not positive definite: {e:?}"))
        })?;
        Ok(Self { factor })
    }

    fn lower(&self) -> MatRef<'_, f64> {
        self.factor.L()
    }

    /// `ln det M`
    pub fn log_det(&self) -> f64 {
        let lower = self.lower();
        2.0 * (0..lower.nrows()).map(|i| lower[(i, i)].ln()).sum::<f64>()
    }

    /// `L⁻¹ B` for B `[n, k]`.
    pub fn half_solve(&self, right: ArrayView2<f64>) -> Array2<f64> {
        let mut columns = to_faer(right);
        let parallel = parallel(&columns);
        solve_lower_triangular_in_place(self.lower(), columns.as_mut(), parallel);
        from_faer(&columns)
    }

    /// `M⁻¹ B` for B `[n, k]`.
    pub fn solve(&self, right: ArrayView2<f64>) -> Array2<f64> {
        let mut columns = to_faer(right);
        let parallel = parallel(&columns);
        solve_lower_triangular_in_place(self.lower(), columns.as_mut(), parallel);
        solve_upper_triangular_in_place(self.lower().transpose(), columns.as_mut(), parallel);
        from_faer(&columns)
    }

    /// `M⁻¹ b` for b `[n]`.
    pub fn solve_vector(&self, right: ArrayView1<f64>) -> Array1<f64> {
        self.solve(right.insert_axis(ndarray::Axis(1))).column(0).to_owned()
    }
}

fn parallel(columns: &Mat<f64>) -> Par {
    par_of(columns.nrows().pow(2) * columns.ncols())
}

fn to_faer(matrix: ArrayView2<f64>) -> Mat<f64> {
    Mat::from_fn(matrix.nrows(), matrix.ncols(), |i, j| matrix[[i, j]])
}

fn from_faer(matrix: &Mat<f64>) -> Array2<f64> {
    Array2::from_shape_fn((matrix.nrows(), matrix.ncols()), |(i, j)| matrix[(i, j)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::{Axis, arr2};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn solutions_and_determinant_are_those_of_the_matrix(values in proptest::collection::vec(-2.0..2.0f64, 25)) {
            let half = Array2::from_shape_vec((5, 5), values).unwrap();
            let m = half.dot(&half.t()) + Array2::<f64>::eye(5);
            let factor = CholeskyFactor::new(m.view()).unwrap();
            let eigen = crate::linalg::eigh(m.view()).unwrap();
            let log_det: f64 = eigen.values.iter().map(|e| e.ln()).sum();
            prop_assert!((factor.log_det() - log_det).abs() < 1e-11 * (1.0 + log_det.abs())); // rounding of five terms
            let x = factor.solve(half.view());
            prop_assert!((m.dot(&x) - &half).iter().all(|d| d.abs() < 1e-11)); // condition below 101
            let first = factor.solve_vector(half.column(0));
            prop_assert!((&first - &x.column(0)).iter().all(|d| d.abs() < 1e-12));
            let z = factor.half_solve(half.view());
            let square: f64 = z.column(0).dot(&z.column(0));
            prop_assert!((square - half.column(0).dot(&x.index_axis(Axis(1), 0))).abs() < 1e-11 * (1.0 + square));
        }
    }

    #[test]
    fn a_matrix_that_is_not_positive_definite_is_refused() {
        let error = CholeskyFactor::new(arr2(&[[1.0, 2.0], [2.0, 1.0]]).view()).unwrap_err().to_string();
        assert!(error.contains("not positive definite"), "{error}");
        assert!(CholeskyFactor::new(arr2(&[[f64::NAN]]).view()).is_err());
    }
}
