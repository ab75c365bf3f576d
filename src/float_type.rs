//! The element types in which a network can run, and the one number that each needs in place of −∞.

use crate::error::{Error, Result};
use burn::tensor::{DType, Device};

/// The element types of weights and activations.
pub(crate) const FLOATS: [DType; 4] = [DType::F64, DType::F32, DType::F16, DType::BF16];

/// Refuses an element type that is no floating-point number, of `what`.
pub(crate) fn check_float(what: impl Into<String>, dtype: DType) -> Result<()> {
    if FLOATS.contains(&dtype) {
        return Ok(());
    }
    Err(Error::Unsupported { what: what.into(), found: format!("{dtype:?}"), supported: "F64, F32, F16, BF16".into() })
}

/// The same of one that `device` does not compute with.
pub(crate) fn check_float_on(what: &str, dtype: DType, device: &Device) -> Result<()> {
    check_float(what, dtype)?;
    if device.supports_dtype(dtype) {
        return Ok(());
    }
    let supported = "what the device computes with".into();
    Err(Error::Unsupported { what: what.into(), found: format!("{dtype:?}"), supported })
}

/// A score that stands for −∞ where a whole row of −∞ would become NaN: finite in `dtype`, also with a score of a network added
/// to it, and so far below any of those that its exponential beside theirs is 0.
pub(crate) fn absent(dtype: DType) -> f64 {
    match dtype {
        // the largest f16 is 65504
        DType::F16 => -3e4,
        _ => -1e9,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_for_minus_infinity_stays_finite_with_a_score_added() {
        for dtype in FLOATS {
            let least = dtype.finfo().unwrap().min;
            assert!(absent(dtype) - 3e4 > least, "{dtype:?}");
            assert!(absent(dtype) <= -3e4);
        }
    }

    #[test]
    fn whole_numbers_are_no_element_type_of_a_network() {
        let error = check_float("element type of the model", DType::I32).unwrap_err().to_string();
        assert!(error.contains("I32") && error.contains("BF16"), "{error}");
    }
}
