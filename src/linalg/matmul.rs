//! Multiplies host matrices on all cores.

use faer::{Accum, MatMut, MatRef, Par};
use ndarray::{Array2, ArrayView2};

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
    let (a, b) = (a.as_standard_layout(), b.as_standard_layout());
    if let (Some(av), Some(bv), Some(ov)) = (a.as_slice(), b.as_slice(), out.as_slice_mut()) {
        faer::linalg::matmul::matmul(
            MatMut::from_row_major_slice_mut(ov, m, n),
            Accum::Replace,
            MatRef::from_row_major_slice(av, m, k),
            MatRef::from_row_major_slice(bv, k, n),
            1.0,
            if m * n * k > 1 << 18 { Par::rayon(0) } else { Par::Seq },
        );
    }
    out
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
}
