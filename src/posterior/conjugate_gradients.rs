//! Solves systems whose matrix is known by its products alone.

use crate::error::{Error, Result};
use ndarray::Array1;

/// How a system was solved.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SolverReport {
    /// Steps taken.
    pub steps: usize,
    /// Norm of the residual, relative to the right side.
    pub residual: f64,
}

/// `M⁻¹ right` for a positive definite M, given `product(v) = M v`, to a residual of `tolerance` of the right side.
///
/// # Errors
/// If it is not reached in `max_steps`, or as the product.
pub(super) fn conjugate_gradients(
    what: &str,
    right: &Array1<f64>,
    product: impl Fn(&Array1<f64>) -> Result<Array1<f64>>,
    tolerance: f64,
    max_steps: usize,
) -> Result<(Array1<f64>, SolverReport)> {
    let scale = right.dot(right).sqrt().max(f64::MIN_POSITIVE);
    let mut z = Array1::zeros(right.len());
    let mut rest = right.clone();
    let mut direction = rest.clone();
    let mut squared = rest.dot(&rest);
    for steps in 0..=max_steps {
        let residual = squared.sqrt() / scale;
        if residual <= tolerance {
            return Ok((z, SolverReport { steps, residual }));
        }
        let image = product(&direction)?;
        let step = squared / direction.dot(&image);
        z.scaled_add(step, &direction);
        rest.scaled_add(-step, &image);
        let next = rest.dot(&rest);
        direction = &rest + &(direction * (next / squared));
        squared = next;
    }
    let residual = squared.sqrt() / scale;
    Err(Error::numerical(
        format!("{what} by conjugate gradients"),
        format!("after {max_steps} steps the residual is {residual:e} of the right side, not {tolerance:e}"),
    ))
}
