//! Names items and adapters by 64-bit hashes, so that sums of curvature know what they are about.

use crate::lora::AdapterWeights;

/// 64-bit FNV-1a hash: the same on every machine and version.
pub(super) fn fnv1a(bytes: impl IntoIterator<Item = u8>) -> u64 {
    bytes.into_iter().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
}

/// Hashes the names of an adapter's matrices and every bit of their weights: two adapters that differ anywhere differ here
/// (but for one chance in 2⁶⁴).
pub fn adapter_fingerprint(weights: &AdapterWeights) -> u64 {
    let bytes = weights.iter().flat_map(|(site, weight)| {
        site.to_string().into_bytes().into_iter().chain(weight.iter().flat_map(|v| v.to_bits().to_le_bytes()))
    });
    fnv1a(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tape::{LoraMatrix, Site};
    use ndarray::Array2;

    #[test]
    fn hashes_are_those_of_the_published_fnv1a() {
        // from the reference's test vectors
        for (text, hash) in
            [("", 0xcbf2_9ce4_8422_2325), ("a", 0xaf63_dc4c_8601_ec8c), ("foobar", 0x8594_4171_f739_67e8)]
        {
            assert_eq!(fnv1a(text.bytes()), hash, "{text}");
        }
    }

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
