//! Writes numbers of any size for readers.

/// Four significant digits between 1e-3 and 1e5, three with an exponent outside; only zero is written `0`, without a sign.
///
/// ```
/// use bayes_lora::number::significant;
/// let texts = [0.0, -0.0, 0.01234567, 20.0, 6108.4, 8.7e6, -2.5e-5].map(significant);
/// assert_eq!(texts, ["0", "0", "0.01235", "20", "6108", "8.70e6", "-2.50e-5"]);
/// ```
pub fn significant(value: f64) -> String {
    let size = value.abs();
    if size == 0.0 {
        return "0".into();
    }
    if !(1e-3..1e5).contains(&size) {
        return format!("{value:.2e}");
    }
    let decimals = (3 - size.log10().floor() as i32).max(0) as usize;
    let text = format!("{value:.decimals$}");
    if decimals == 0 { text } else { text.trim_end_matches('0').trim_end_matches('.').into() }
}

/// Bytes in the largest unit of which there is one.
///
/// ```
/// assert_eq!([12, 1536 << 10].map(bayes_lora::number::bytes_text), ["12 bytes", "1.5 MiB"]);
/// ```
pub fn bytes_text(bytes: u64) -> String {
    let units = [(1u64 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match units.iter().find(|(size, _)| bytes >= *size) {
        Some((size, unit)) => format!("{:.1} {unit}", bytes as f64 / *size as f64),
        None => format!("{bytes} bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_text_is_the_number_to_three_digits(mantissa in 1.0..10.0f64, exponent in -300..300i32, sign in any::<bool>()) {
            let value = mantissa * 10f64.powi(exponent) * if sign { -1.0 } else { 1.0 };
            let read: f64 = significant(value).parse().unwrap();
            // half a unit of the third digit of the smallest mantissa
            prop_assert!((read / value - 1.0).abs() <= 5.001e-3, "{} {}", value, read);
        }
    }

    #[test]
    fn what_is_no_number_says_so() {
        assert_eq!([f64::NAN, f64::INFINITY, f64::NEG_INFINITY].map(significant), ["NaN", "inf", "-inf"]);
        assert_eq!([9.9996e-4, 0.001, 99999.9, 1e5].map(significant), ["1.00e-3", "0.001", "100000", "1.00e5"]);
    }
}
