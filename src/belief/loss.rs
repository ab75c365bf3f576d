//! Measures the surprise at a label, in one place for metrics, tuning and diagnosis.
//!
//! The loss of an item is `−log p_y` in nats, taken from the **logarithms** of the averaged probabilities: an answer that is
//! 800 nats off costs 800 nats. Where only probabilities are known ([`item_loss`]) a probability of exactly 0 is read as 2.2e-308,
//! the smallest that a double holds with full precision, and so costs 708.4 nats: it shows plainly in a mean without making it
//! infinite.

use super::{LinkApprox, LogitBelief};
use crate::error::{Error, Result};
use ndarray::ArrayView2;

/// `−log p` in nats of a label's probability; one of 0 is read as 2.2e-308.
pub fn item_loss(probability: f64) -> f64 {
    // not −ln: that of 1 would be −0
    0.0 - probability.max(f64::MIN_POSITIVE).ln()
}

/// `−log p_y` in nats of each item, from log-probabilities.
///
/// # Shapes
/// - log_probabilities: `[n_items, n_classes]`; labels: `[n_items]`, each a class that its item has.
pub fn item_losses(log_probabilities: ArrayView2<f64>, labels: &[usize]) -> Vec<f64> {
    log_probabilities.rows().into_iter().zip(labels).map(|(row, &label)| 0.0 - row[label]).collect()
}

impl LogitBelief {
    /// `−log E[softmax f]_y` in nats of each item.
    ///
    /// # Errors
    /// If labels and items differ in number, a label is no class of its item, or as [`LogitBelief::probabilities`].
    pub fn losses(&self, labels: &[usize], link: LinkApprox) -> Result<Vec<f64>> {
        if labels.len() != self.n_items() {
            return Err(Error::Count { what: "labels".into(), expected: self.n_items(), found: labels.len() });
        }
        let wrong = |item: usize, label, n_classes| Error::LabelOutOfRange { item: item.to_string(), label, n_classes };
        let all = self.n_classes();
        if let Some((item, &label)) = labels.iter().enumerate().find(|(_, label)| **label >= all) {
            return Err(wrong(item, label, all));
        }
        let log_p = self.log_probabilities_of(labels, link)?;
        match log_p.iter().position(|log| *log == f64::NEG_INFINITY) {
            Some(item) => {
                let own = self.select(&[item]).log_probabilities(link)?;
                Err(wrong(item, labels[item], own.iter().filter(|v| v.is_finite()).count()))
            }
            // not −log: that of certainty would be −0
            None => Ok(log_p.into_iter().map(|log| 0.0 - log).collect()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::belief::LogitGauge;
    use ndarray::{Array3, arr1, arr2, arr3};

    #[test]
    fn an_answer_800_nats_off_costs_800_nats_in_every_kind_of_belief() {
        let mean = arr2(&[[800.0, 0.0]]);
        let samples =
            LogitBelief::Samples { logits: arr3(&[[[800.0, 0.0]], [[800.0, 0.0]]]), log_weights: arr1(&[0.0, 1.0]) };
        let gaussian =
            LogitBelief::Gaussian { mean: mean.clone(), covariance: Array3::zeros((1, 2, 2)), gauge: LogitGauge::Raw };
        for belief in [LogitBelief::Point { logits: mean }, samples, gaussian] {
            for link in [LinkApprox::default(), LinkApprox::GaussHermite { points: 16 }, LinkApprox::PairwiseProbit] {
                let loss = belief.losses(&[1], link).unwrap()[0];
                // a rounding of 800
                assert!((loss - 800.0).abs() < 1e-11, "{loss}");
                assert_eq!(belief.probabilities(link).unwrap()[[0, 1]], 0.0);
            }
        }
    }

    #[test]
    fn a_probability_of_zero_costs_708_nats_and_certainty_nothing() {
        // ln(2^-1022) = −1022 ln 2
        assert!((item_loss(0.0) - 1022.0 * std::f64::consts::LN_2).abs() < 1e-10);
        assert!(item_loss(1.0) == 0.0 && item_loss(1.0).is_sign_positive());
    }

    #[test]
    fn losses_are_the_bits_of_the_labels_among_all_log_probabilities() {
        let mean = arr2(&[[0.3, -1.0, 2.0], [0.0, f64::NEG_INFINITY, 1.0], [5.0, 0.0, 0.1]]);
        let covariance = Array3::from_shape_fn((3, 3, 3), |(i, a, b)| {
            if i == 1 && (a == 1 || b == 1) { 0.0 } else { 0.3 + f64::from(u8::from(a == b)) * (1.0 + i as f64) }
        });
        let belief = LogitBelief::Gaussian { mean, covariance, gauge: LogitGauge::Raw };
        for link in [LinkApprox::default(), LinkApprox::PairwiseProbit, LinkApprox::LaplaceBridge] {
            // of the bridge absent classes have no variance
            let (belief, labels) = match link {
                LinkApprox::LaplaceBridge => (belief.select(&[0, 2]), vec![1, 2]),
                _ => (belief.clone(), vec![2, 0, 1]),
            };
            let all = item_losses(belief.log_probabilities(link).unwrap().view(), &labels);
            assert_eq!(belief.losses(&labels, link).unwrap(), all, "{link:?}");
        }
    }

    #[test]
    fn labels_that_are_no_class_of_their_item_are_refused() {
        let belief = LogitBelief::Point { logits: arr2(&[[0.0, 1.0, f64::NEG_INFINITY]]) };
        let refusal = |labels: &[usize]| belief.losses(labels, LinkApprox::default()).unwrap_err().to_string();
        assert_eq!(refusal(&[2]), "item `0`: label 2 is out of range for 2 classes");
        assert_eq!(refusal(&[3]), "item `0`: label 3 is out of range for 3 classes");
        assert_eq!(refusal(&[]), "labels: expected 1, found 0");
    }
}
