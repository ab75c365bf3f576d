//! Takes averaged probabilities for logits.

use crate::error::{Error, Result};
use ndarray::{Array2, ArrayView2};

/// ln p, with −∞ where p is 0.
pub(super) fn log_probabilities(probabilities: ArrayView2<f64>) -> Result<Array2<f64>> {
    let wrong = |p: f64| !p.is_finite() || p < 0.0;
    if let Some(((item, class), p)) = probabilities.indexed_iter().find(|(_, p)| wrong(**p)) {
        return Err(Error::config(format!("probabilities[{item}, {class}]"), "finite and at least 0", p));
    }
    for (item, row) in probabilities.rows().into_iter().enumerate() {
        if row.sum() == 0.0 {
            return Err(Error::config(format!("sum of probabilities[{item}]"), "above 0", 0.0));
        }
    }
    Ok(probabilities.mapv(f64::ln))
}
