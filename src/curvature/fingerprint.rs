//! Names an adapter by a 64-bit hash, so that sums of curvature know what they are about.

use crate::error::{Error, Result};
use crate::hash::fnv1a;
use crate::lora::AdapterWeights;

/// Hashes the names of an adapter's matrices and every bit of their weights: two adapters that differ anywhere differ here
/// (but for one chance in 2⁶⁴).
pub fn adapter_fingerprint(weights: &AdapterWeights) -> u64 {
    let bytes = weights.iter().flat_map(|(site, weight)| {
        site.to_string().into_bytes().into_iter().chain(weight.iter().flat_map(|v| v.to_bits().to_le_bytes()))
    });
    fnv1a(bytes)
}

/// Checks that `what` was fitted at the adapter in hand.
///
/// # Errors
/// Names both fingerprints.
pub(crate) fn check_same_adapter(what: &str, expected: u64, found: u64) -> Result<()> {
    if expected != found {
        return Err(Error::Incompatible(format!(
            "a {what} is about the adapter at which it was fitted, and the two here differ (fingerprints {expected:016x} \
             and {found:016x})"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tape::{LoraMatrix, Site};
    use ndarray::Array2;

    #[test]
    fn one_bit_of_one_weight_or_another_module_changes_the_fingerprint() {
        let adapter = |module: &str, value: f64| {
            let mut weight = Array2::zeros((3, 2));
            weight[[2, 1]] = value;
            AdapterWeights::from([(Site { module: module.into(), matrix: LoraMatrix::A }, weight)])
        };
        let own = adapter_fingerprint(&adapter("q_proj", 1.0));
        assert_eq!(own, adapter_fingerprint(&adapter("q_proj", 1.0)));
        assert_ne!(own, adapter_fingerprint(&adapter("q_proj", 1.0f64.next_up())));
        assert_ne!(own, adapter_fingerprint(&adapter("k_proj", 1.0)));
    }
}
