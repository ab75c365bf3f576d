//! Multiplies host matrices on all cores.

use faer::linalg::matmul::triangular::{self, BlockStructure};
use faer::{Accum, MatMut, MatRef, Par};
use ndarray::{Array2, ArrayView2};

/// All cores for many multiplications: below some millions one core is done before others have begun.
pub(super) fn par_of(n_multiplications: usize) -> Par {
    if n_multiplications > 1 << 23 { Par::rayon(0) } else { Par::Seq }
}

/// `a · b` in f64, on all cores for large products.
///
/// # Shapes
/// - a: `[m, k]`, b: `[k, n]`; output `[m, n]`.
pub fn matmul(a: ArrayView2<f64>, b: ArrayView2<f64>) -> Array2<f64> {
    let (m, k) = a.dim();
    let n = b.ncols();
    assert_eq!(k, b.nrows(), "inner dimensions of a matrix product");
    let mut out = Array2::<f64>::zeros((m, n));
    if m * n * k == 0 {
        return out;
    }
    let (own_a, own_b) = (owned_unless_contiguous(a), owned_unless_contiguous(b));
    let a = own_a.as_ref().map_or(a, |own| own.view());
    let b = own_b.as_ref().map_or(b, |own| own.view());
    if let (Some(a), Some(b), Some(ov)) = (borrowed(a), borrowed(b), out.as_slice_mut()) {
        faer::linalg::matmul::matmul(
            MatMut::from_row_major_slice_mut(ov, m, n),
            Accum::Replace,
            a,
            b,
            1.0,
            par_of(m * n * k),
        );
    }
    out
}

/// Adds `a · aᵀ` to the lower triangle of `sum`, at half the work of the whole product; [`mirror_lower`] fills in the upper one.
///
/// # Shapes
/// - sum: `[m, m]`, a: `[m, k]`.
pub fn add_lower_gram(sum: &mut Array2<f64>, a: ArrayView2<f64>) {
    let (m, k) = a.dim();
    assert_eq!((m, m), sum.dim(), "dimensions of a sum of outer products");
    if m * k == 0 {
        return;
    }
    let own = owned_unless_contiguous(a);
    let a = own.as_ref().map_or(a, |own| own.view());
    if let (Some(a), Some(values)) = (borrowed(a), sum.as_slice_mut()) {
        triangular::matmul(
            MatMut::from_row_major_slice_mut(values, m, m),
            BlockStructure::TriangularLower,
            Accum::Add,
            a,
            BlockStructure::Rectangular,
            a.transpose(),
            BlockStructure::Rectangular,
            1.0,
            par_of(m * m * k),
        );
    }
}

/// Copies the lower triangle of a square matrix onto the upper one.
pub fn mirror_lower(matrix: &mut Array2<f64>) {
    for row in 1..matrix.nrows() {
        for column in 0..row {
            matrix[[column, row]] = matrix[[row, column]];
        }
    }
}

/// The matrix as it lies in memory, row by row or column by column.
fn borrowed(matrix: ArrayView2<'_, f64>) -> Option<MatRef<'_, f64>> {
    let (rows, columns) = matrix.dim();
    match matrix.to_slice() {
        Some(values) => Some(MatRef::from_row_major_slice(values, rows, columns)),
        None => Some(MatRef::from_column_major_slice(matrix.reversed_axes().to_slice()?, rows, columns)),
    }
}

/// A copy where the matrix lies in memory with gaps.
fn owned_unless_contiguous(matrix: ArrayView2<f64>) -> Option<Array2<f64>> {
    let contiguous = matrix.is_standard_layout() || matrix.t().is_standard_layout();
    (!contiguous).then(|| matrix.as_standard_layout().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_equal_those_of_ndarray_whatever_the_layout() {
        let a = Array2::from_shape_fn((7, 5), |(i, j)| (i * 3 + j) as f64 * 0.1 - 1.0);
        let b = Array2::from_shape_fn((7, 4), |(i, j)| (i + 2 * j) as f64 * 0.3 - 1.0);
        let difference = matmul(a.t(), b.view()) - a.t().dot(&b);
        assert!(difference.iter().all(|d| d.abs() < 1e-12)); // order of summation only
    }

    #[test]
    fn sums_of_outer_products_equal_whole_products_whatever_the_layout() {
        let a = Array2::from_shape_fn((70, 90), |(i, j)| ((i * 31 + j * 17) % 23) as f64 / 11.0 - 1.0);
        for a in [a.view(), a.t(), a.slice(ndarray::s![..;2, 3..])] {
            let mut sum = Array2::ones((a.nrows(), a.nrows()));
            add_lower_gram(&mut sum, a);
            add_lower_gram(&mut sum, a);
            mirror_lower(&mut sum);
            let expected = a.dot(&a.t()) * 2.0 + 1.0;
            assert!((&sum - &expected).iter().all(|d| d.abs() < 1e-11)); // order of summation of 180 terms
            assert_eq!(sum, sum.t());
        }
    }
}
