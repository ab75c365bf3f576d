//! Integrates against the standard normal density.

use super::eigen::eigh;
use crate::error::{Error, Result};
use ndarray::{Array1, Array2};

/// Gauss–Hermite nodes and weights for `E[g(z)]`, `z ~ N(0, 1)`: `Σ w_i g(z_i)`, exact for polynomials of degree
/// `2·points − 1`. Weights sum to 1.
///
/// Golub & Welsch (1969): eigenvalues of the Jacobi matrix with off-diagonal `√k`.
///
/// # Errors
/// If `points` is 0.
pub fn gauss_hermite(points: usize) -> Result<(Array1<f64>, Array1<f64>)> {
    if points == 0 {
        return Err(Error::config("points", "at least 1", points));
    }
    let jacobi =
        Array2::from_shape_fn(
            (points, points),
            |(i, j)| {
                if i.abs_diff(j) == 1 { (i.max(j) as f64).sqrt() } else { 0.0 }
            },
        );
    let eigen = eigh(jacobi.view())?;
    let weights = eigen.vectors.row(0).mapv(|v| v * v);
    Ok((eigen.values, weights))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_of_the_standard_normal_are_exact() {
        let (z, w) = gauss_hermite(8).unwrap();
        for (power, moment) in [(0, 1.0), (1, 0.0), (2, 1.0), (4, 3.0), (6, 15.0), (14, 135_135.0)] {
            let value: f64 = z.iter().zip(&w).map(|(z, w)| w * z.powi(power)).sum();
            assert!((value - moment).abs() < 1e-10 * (1.0 + moment)); // f64 rounding
        }
    }
}
