//! Says whether a saved copy of a weight is the model's own, up to the rounding of either.

use crate::error::Result;
use crate::lora::weights::to_vec;
use burn::tensor::{DType, Tensor};

/// Relative rounding of bf16, the coarsest element type that a weight may have gone through, twice over.
const HALF_RELATIVE: f64 = 1.0 / 256.0;
/// Absolute rounding of f16 where it is denormal.
const HALF_ABSOLUTE: f64 = 1.0 / 16_777_216.0;
/// The same for f32, twice over, and where that is denormal.
const FULL: (f64, f64) = (1.0 / 4_194_304.0, 1e-37);
/// Rows that are looked at on the host at once.
const ROWS: usize = 1024;

/// By how much the largest difference is larger than rounding explains; not positive where the two are the same weight.
///
/// A copy whose values are all numbers of f16 or bf16 has been rounded to one of them, as has a model that is held in one. Any
/// other copy is the model's own weight to the last bits or has been trained, however little.
///
/// # Errors
/// If a copy from the device fails.
pub(super) fn excess(copy: Tensor<2>, own: Tensor<2>) -> Result<f64> {
    let is_half = matches!(own.dtype(), DType::F16 | DType::BF16) || was_rounded(&copy)?;
    let (relative, absolute) = if is_half { (HALF_RELATIVE, HALF_ABSOLUTE) } else { FULL };
    let own = own.cast(copy.dtype());
    let allowed = own.clone().abs().mul_scalar(relative).add_scalar(absolute);
    Ok(to_vec(((copy - own).abs() - allowed).max())?.first().copied().unwrap_or(f64::NAN))
}

/// True if all values are numbers of half precision.
fn was_rounded(copy: &Tensor<2>) -> Result<bool> {
    let n_rows = copy.dims()[0];
    for start in (0..n_rows).step_by(ROWS) {
        let rows = copy.clone().narrow(0, start, ROWS.min(n_rows - start));
        if !to_vec(rows)?.into_iter().all(is_half_precise) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// True of every number of f16 and of bf16: neither needs the last 13 of f32's 23 bits.
fn is_half_precise(value: f64) -> bool {
    let single = value as f32;
    f64::from(single) == value && single.to_bits() & 0x1fff == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_half_precision_are_told_by_their_bits() {
        for value in
            [0.0, -1.5, 1.0 / 16_777_216.0, 65504.0, 1.0 + 1.0 / 1024.0, f64::from(f32::from_bits(0x3f81_0000))]
        {
            assert!(is_half_precise(value), "{value}");
        }
        for value in [0.1, 1.0 + 1.0 / 2048.0, 1e-300, f64::from(0.1f32)] {
            assert!(!is_half_precise(value), "{value}");
        }
    }
}
