//! Writes numbers for readers.

use crate::calibrate::ConformalScore;
use crate::compare::cell::ExtraData;
use crate::metrics::Estimate;
use crate::number::significant;

/// Three decimals with a true minus, for scores that stand in columns; large values with fewer, small ones with an exponent: only zero is
/// written as zero, and without a sign.
pub(super) fn number(value: f64) -> String {
    let size = value.abs();
    let text = match size {
        0.0 => "0.000".into(),
        s if s < 5e-4 => format!("{value:.0e}"),
        s if s < 100.0 => format!("{value:.3}"),
        s if s < 1e6 => format!("{value:.1}"),
        _ => format!("{value:.3e}"),
    };
    text.replace('-', "−")
}

/// The same with a sign, for differences.
pub(super) fn signed(value: f64) -> String {
    if value > 0.0 { format!("+{}", number(value)) } else { number(value) }
}

/// A number that a method found, of any size.
pub(super) fn found(value: f64) -> String {
    significant(value).replace('-', "−")
}

pub(super) fn interval(low: f64, high: f64) -> String {
    format!("[{}, {}]", number(low), number(high))
}

/// The interval of an estimate.
pub(super) fn bounds(estimate: &Estimate) -> String {
    interval(estimate.low, estimate.high)
}

pub(super) fn percent(share: f64) -> String {
    let text = format!("{:.1}", 100.0 * share);
    format!("{} %", text.trim_end_matches(".0"))
}

/// A probability in two digits, without claiming a certainty that draws cannot give.
pub(super) fn probability(value: f64) -> String {
    match value {
        v if v < 0.005 => "<0.01".into(),
        v if v > 0.995 => ">0.99".into(),
        v => format!("{v:.2}"),
    }
}

/// Digits in groups of three.
pub(super) fn count(n: usize) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

pub(super) fn seconds(value: f64) -> String {
    match value {
        v if v < 0.0995 => format!("{:.0} ms", 1000.0 * v),
        v if v < 120.0 => format!("{v:.1} s"),
        v if v < 7200.0 => format!("{:.1} min", v / 60.0),
        v => format!("{:.1} h", v / 3600.0),
    }
}

pub(super) fn bytes(n: u64) -> String {
    match n as f64 {
        v if v < 1e3 => format!("{n} B"),
        v if v < 1e6 => format!("{:.1} kB", v / 1e3),
        v if v < 1e9 => format!("{:.1} MB", v / 1e6),
        v => format!("{:.1} GB", v / 1e9),
    }
}

/// What a row read besides the training data: the method, then its calibrator.
pub(super) fn extra_data(of_method: ExtraData, calibration_labels: usize) -> String {
    let method = match of_method {
        ExtraData::None => None,
        ExtraData::Unlabelled(n) => Some(format!("{} inputs without labels", count(n))),
        ExtraData::Labelled(n) => Some(format!("{} labelled items", count(n))),
    };
    let calibrator =
        (calibration_labels > 0).then(|| format!("{} labels for the calibrator", count(calibration_labels)));
    match (method, calibrator) {
        (None, None) => "none".into(),
        (Some(one), None) | (None, Some(one)) => one,
        (Some(method), Some(calibrator)) => format!("{method}, {calibrator}"),
    }
}

pub(super) fn set_score(score: ConformalScore) -> String {
    let drawn = |randomized: bool| if randomized { "" } else { ", without draws" };
    match score {
        ConformalScore::LeastAmbiguous => "LAC".into(),
        ConformalScore::Adaptive { randomized } => format!("APS{}", drawn(randomized)),
        ConformalScore::RegularizedAdaptive { randomized, penalty, free_ranks } => {
            format!("RAPS (λ = {penalty}, from rank {}{})", free_ranks + 1, drawn(randomized))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_three_decimals_and_only_zero_is_written_as_zero() {
        let texts = [0.0, 0.12345, -0.5, 99.9996, 708.396, 1234567.0, -2.5e-5].map(number);
        assert_eq!(texts, ["0.000", "0.123", "−0.500", "100.000", "708.4", "1.235e6", "−3e−5"]);
        assert_eq!(number(-0.0), "0.000");
        assert_eq!([0.02, -0.02, 0.0, 1e-4].map(signed), ["+0.020", "−0.020", "0.000", "+1e−4"]);
        assert_eq!([0.0, 21.5, -612.25, 2.5e-5, 3e7].map(found), ["0", "21.5", "−612.2", "2.50e−5", "3.00e7"]);
        assert_eq!(bounds(&Estimate { value: 0.0, low: -0.25, high: 0.5 }), "[−0.250, 0.500]");
    }

    #[test]
    fn counts_times_and_sizes_are_readable() {
        assert_eq!([0, 999, 1000, 1234567].map(count), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!(
            [0.0, 0.05, 1.26, 119.0, 600.0, 36000.0].map(seconds),
            ["0 ms", "50 ms", "1.3 s", "119.0 s", "10.0 min", "10.0 h"]
        );
        assert_eq!([12, 4096, 5_000_000, 7_250_000_000].map(bytes), ["12 B", "4.1 kB", "5.0 MB", "7.2 GB"]);
        assert_eq!([0.8, 0.925].map(percent), ["80 %", "92.5 %"]);
        assert_eq!([0.5, 1.0, 0.9997, 0.0004, 0.0].map(probability), ["0.50", ">0.99", ">0.99", "<0.01", "<0.01"]);
    }

    #[test]
    fn extra_data_name_method_and_calibrator() {
        assert_eq!(extra_data(ExtraData::None, 0), "none");
        assert_eq!(extra_data(ExtraData::Labelled(1200), 0), "1,200 labelled items");
        assert_eq!(extra_data(ExtraData::None, 50), "50 labels for the calibrator");
        let both = extra_data(ExtraData::Unlabelled(64), 50);
        assert_eq!(both, "64 inputs without labels, 50 labels for the calibrator");
    }

    #[test]
    fn set_scores_say_their_settings() {
        assert_eq!(set_score(ConformalScore::LeastAmbiguous), "LAC");
        assert_eq!(set_score(ConformalScore::Adaptive { randomized: false }), "APS, without draws");
        let raps = ConformalScore::RegularizedAdaptive { randomized: true, penalty: 0.1, free_ranks: 2 };
        assert_eq!(set_score(raps), "RAPS (λ = 0.1, from rank 3)");
    }
}
