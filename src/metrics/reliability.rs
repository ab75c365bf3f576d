//! Lays confidence beside accuracy, bin by bin: the data of a reliability diagram.

use super::ece::{bin_of, checked_n_bins};
use super::interval::wilson_interval;
use super::predictions::Predictions;
use crate::error::Result;
use ndarray::ArrayView2;
use serde::{Deserialize, Serialize};

/// Mass of the interval of each bin's accuracy.
const LEVEL: f64 = 0.95;

/// The items whose top-label confidence lies in `(lower, upper]`.
///
/// The four numbers are `None` when the bin is empty.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ReliabilityBin {
    /// Lower edge, excluded.
    pub lower: f64,
    /// Upper edge, included.
    pub upper: f64,
    /// Number of items.
    pub count: usize,
    /// Mean probability of the top class.
    pub mean_confidence: Option<f64>,
    /// Share of the items whose top class is the label.
    pub accuracy: Option<f64>,
    /// Lower end of the 95 % Wilson interval of the accuracy.
    pub accuracy_low: Option<f64>,
    /// Upper end of the 95 % Wilson interval of the accuracy.
    pub accuracy_high: Option<f64>,
}

/// Confidence against accuracy over equal-width bins of the top-label confidence.
///
/// A calibrated method has `accuracy ≈ mean_confidence` in every bin; bins below the diagonal are overconfident.
///
/// Guo et al. (2017), arXiv 1706.04599, section 2.
///
/// ```
/// use bayes_lora::metrics::Reliability;
/// use ndarray::arr2;
///
/// let p = arr2(&[[0.9, 0.1], [0.95, 0.05], [0.6, 0.4]]);
/// let reliability = Reliability::new(p.view(), &[0, 1, 0], 10)?;
/// let last = &reliability.bins[9]; // (0.9, 1.0] holds 0.95 only: 0.9 belongs to the bin below
/// assert_eq!((last.count, last.accuracy), (1, Some(0.0)));
/// assert_eq!(reliability.bins[0].mean_confidence, None);
/// # Ok::<(), bayes_lora::error::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reliability {
    /// The bins, from low to high confidence.
    pub bins: Vec<ReliabilityBin>,
    /// Expected calibration error of these bins, as [`ece`](super::ece).
    pub ece: f64,
    /// Number of items in all bins together.
    pub n_items: usize,
}

impl Reliability {
    /// Bins the items by confidence.
    ///
    /// # Shapes
    /// - probabilities: `[n_items, n_classes]`; labels: `[n_items]`.
    ///
    /// # Errors
    /// If `n_bins` is 0, there is no item, lengths differ, a row is not a distribution or a label is not a class.
    pub fn new(probabilities: ArrayView2<f64>, labels: &[usize], n_bins: usize) -> Result<Self> {
        checked_n_bins(n_bins)?;
        let predictions = Predictions::new(probabilities, labels)?;
        let n_items = predictions.n_items();
        let mut tallies = vec![(0usize, 0usize, 0.0); n_bins];
        for (&confidence, &correct) in predictions.confidence.iter().zip(&predictions.correct) {
            let (count, right, total) = &mut tallies[bin_of(confidence, n_bins)];
            *count += 1;
            *right += usize::from(correct);
            *total += confidence;
        }

        let mut bins = Vec::with_capacity(n_bins);
        let mut ece = 0.0;
        for (index, (count, right, total)) in tallies.into_iter().enumerate() {
            let mut bin = ReliabilityBin {
                lower: index as f64 / n_bins as f64,
                upper: (index + 1) as f64 / n_bins as f64,
                count,
                mean_confidence: None,
                accuracy: None,
                accuracy_low: None,
                accuracy_high: None,
            };
            if count > 0 {
                let accuracy = wilson_interval(right, count, LEVEL)?;
                bin.mean_confidence = Some(total / count as f64);
                bin.accuracy = Some(accuracy.value);
                bin.accuracy_low = Some(accuracy.low);
                bin.accuracy_high = Some(accuracy.high);
                ece += (total - right as f64).abs() / n_items as f64;
            }
            bins.push(bin);
        }
        Ok(Self { bins, ece, n_items })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::ece::ece;
    use ndarray::arr2;

    #[test]
    fn bins_equal_the_hand_computed_case() {
        let p = arr2(&[[0.9, 0.1], [0.7, 0.3], [0.8, 0.2], [0.4, 0.6]]);
        let reliability = Reliability::new(p.view(), &[0, 1, 0, 1], 2).unwrap();
        assert_eq!(reliability.n_items, 4);
        let [low, high] = &reliability.bins[..] else { panic!("two bins were asked for") };
        assert_eq!((low.lower, low.upper, low.count), (0.0, 0.5, 0));
        assert_eq!((low.mean_confidence, low.accuracy), (None, None));
        assert_eq!((low.accuracy_low, low.accuracy_high), (None, None));
        assert_eq!((high.lower, high.upper, high.count), (0.5, 1.0, 4));
        assert_eq!(high.accuracy, Some(0.75));
        // Four rounded terms below 1.
        assert!((high.mean_confidence.unwrap() - 0.75).abs() < 1e-15);
        assert!(high.accuracy_low.unwrap() < 0.75 && high.accuracy_high.unwrap() > 0.75);
        assert!(reliability.ece < 1e-15);
    }

    #[test]
    fn its_ece_is_the_ece() {
        let p = arr2(&[[0.9, 0.1], [0.7, 0.3], [0.8, 0.2], [0.4, 0.6], [0.55, 0.45]]);
        let labels = [0, 1, 1, 0, 0];
        for n_bins in [1, 4, 15] {
            let reliability = Reliability::new(p.view(), &labels, n_bins).unwrap();
            // The same sum with counts instead of weights.
            assert!((reliability.ece - ece(p.view(), &labels, n_bins).unwrap()).abs() < 1e-15);
            let total: usize = reliability.bins.iter().map(|b| b.count).sum();
            assert_eq!(total, reliability.n_items);
        }
    }

    #[test]
    fn zero_bins_and_bad_labels_are_refused() {
        let p = arr2(&[[0.9, 0.1]]);
        assert!(Reliability::new(p.view(), &[0], 0).is_err());
        assert!(Reliability::new(p.view(), &[2], 15).is_err());
    }
}
