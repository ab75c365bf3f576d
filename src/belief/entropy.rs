//! Splits the uncertainty of a belief into what data cannot remove and what they could.

use super::link::Integral;
use super::softmax::{log_mean, log_softmax, softmax};
use super::{LinkApprox, LogitBelief};
use crate::error::Result;
use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis, s};

/// Entropies of the class distribution of each item, in nats.
#[derive(Debug, Clone, PartialEq)]
pub struct Decomposition {
    /// `H[p̄]`, the entropy of the averaged probabilities. `[n_items]`
    pub total: Array1<f64>,
    /// `E[H[p]]`, the expected entropy (aleatoric part). `[n_items]`
    pub expected: Array1<f64>,
    /// `H[p̄] − E[H[p]] ≥ 0`, the mutual information of answer and weights (epistemic part). `[n_items]`
    pub epistemic: Array1<f64>,
}

impl LogitBelief {
    /// Class probabilities `E[softmax f]`, averaged over the belief (never the softmax of averaged logits).
    ///
    /// `link` is used by Gaussian beliefs only. Output `[n_items, n_classes]`.
    ///
    /// # Errors
    /// If the covariance is not positive semi-definite, Gauss–Hermite is asked of more than two classes, or a link that reads
    /// raw variances of a covariance in the centred gauge.
    pub fn probabilities(&self, link: LinkApprox) -> Result<Array2<f64>> {
        Ok(self.log_probabilities(link)?.mapv_into(f64::exp))
    }

    /// `log E[softmax f]`, without a step through probabilities, which underflow where an answer is hundreds of nats off; −∞ only for a
    /// class that an item lacks.
    ///
    /// # Errors
    /// As [`LogitBelief::probabilities`].
    pub fn log_probabilities(&self, link: LinkApprox) -> Result<Array2<f64>> {
        match self {
            Self::Point { logits } => Ok(log_softmax(logits.view())),
            Self::Samples { .. } => Ok(self.map_items(|logs, w| log_mean(logs.view(), w.view()), self.n_classes())),
            Self::Gaussian { mean, covariance, gauge } => {
                gauge.check_serves(link)?;
                let (mut out, mut integral) = (Array2::zeros(mean.dim()), Integral::new(link));
                for (i, mut row) in out.axis_iter_mut(Axis(0)).enumerate() {
                    row.assign(&integral.log_probabilities(mean.row(i), covariance.index_axis(Axis(0), i))?);
                }
                Ok(out)
            }
        }
    }

    /// The same for one class of each item, which takes a third of the time where a Gaussian is averaged over draws.
    pub(super) fn log_probabilities_of(&self, classes: &[usize], link: LinkApprox) -> Result<Vec<f64>> {
        let items = classes.iter().enumerate();
        match self {
            Self::Gaussian { mean, covariance, gauge } => {
                gauge.check_serves(link)?;
                let mut integral = Integral::new(link);
                let mut of = |i, class| integral.log_probability(class, mean.row(i), covariance.index_axis(Axis(0), i));
                items.map(|(i, &class)| of(i, class)).collect()
            }
            _ => {
                let logs = self.log_probabilities(link)?;
                Ok(items.map(|(i, &class)| logs[[i, class]]).collect())
            }
        }
    }

    /// Total, expected and epistemic entropy of each item, in nats.
    ///
    /// A Gaussian belief is integrated on the draws or nodes of `link` (analytic links use 2,000 draws), all three
    /// entropies on the same ones, so that the epistemic part is never negative.
    ///
    /// # Errors
    /// As [`LogitBelief::probabilities`].
    pub fn decompose(&self, link: LinkApprox) -> Result<Decomposition> {
        let pairs: Array2<f64> = match self {
            Self::Point { logits } => {
                let p = softmax(logits.view());
                let mut out = Array2::zeros((p.nrows(), 2));
                for (i, row) in p.axis_iter(Axis(0)).enumerate() {
                    out.row_mut(i).fill(entropy(row));
                }
                out
            }
            Self::Samples { .. } => {
                self.map_items(|logs, w| Array1::from_vec(entropies(logs.mapv(f64::exp).view(), w.view()).into()), 2)
            }
            Self::Gaussian { mean, covariance, .. } => {
                let (mut out, mut integral) = (Array2::zeros((mean.nrows(), 2)), Integral::new(link));
                for i in 0..mean.nrows() {
                    let (logs, w) = integral.log_draws(mean.row(i), covariance.index_axis(Axis(0), i))?;
                    let [total, expected] = entropies(logs.mapv_into(f64::exp).view(), w);
                    out[[i, 0]] = total;
                    out[[i, 1]] = expected;
                }
                out
            }
        };
        let (total, expected) = (pairs.column(0).to_owned(), pairs.column(1).to_owned());
        // Jensen makes the difference non-negative; rounding may leave −1e-17.
        let epistemic = (&total - &expected).mapv_into(|v| v.max(0.0));
        Ok(Decomposition { total, expected, epistemic })
    }

    /// Applies `f` to the draws of log-probabilities `[n_samples, n_classes]` and the weights of every item of a sample belief.
    fn map_items(&self, f: impl Fn(Array2<f64>, Array1<f64>) -> Array1<f64>, width: usize) -> Array2<f64> {
        let mut out = Array2::zeros((self.n_items(), width));
        if let Self::Samples { logits, log_weights } = self {
            let weights = softmax(log_weights.view().insert_axis(Axis(0))).row(0).to_owned();
            for i in 0..self.n_items() {
                let logs = log_softmax(logits.slice(s![.., i, ..]));
                out.row_mut(i).assign(&f(logs, weights.clone()));
            }
        }
        out
    }
}

/// Entropy `−Σ p ln p` in nats; 0 where rounding would make it −0 or −1e-16.
pub(crate) fn entropy(p: ArrayView1<f64>) -> f64 {
    let sum: f64 = p.iter().filter(|&&v| v > 0.0).map(|&v| v * v.ln()).sum();
    if sum < 0.0 { -sum } else { 0.0 }
}

/// Entropy of the weighted mean and weighted mean of the entropies.
fn entropies(draws: ArrayView2<f64>, weights: ArrayView1<f64>) -> [f64; 2] {
    let mean = weights.dot(&draws);
    let expected = draws.axis_iter(Axis(0)).zip(weights).map(|(p, w)| w * entropy(p)).sum();
    [entropy(mean.view()), expected]
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::{arr1, arr2, arr3};

    #[test]
    fn opposite_certain_draws_are_all_epistemic() {
        let belief =
            LogitBelief::Samples { logits: arr3(&[[[50.0, 0.0]], [[0.0, 50.0]]]), log_weights: arr1(&[0.0, 0.0]) };
        let d = belief.decompose(LinkApprox::default()).unwrap();
        assert!((d.total[0] - 2f64.ln()).abs() < 1e-12);
        assert!(d.expected[0] < 1e-12);
        let p = belief.probabilities(LinkApprox::default()).unwrap();
        assert!((p[[0, 0]] - 0.5).abs() < 1e-12);
    }

    #[test]
    fn a_point_has_no_epistemic_part() {
        let belief = LogitBelief::Point { logits: arr2(&[[0.2, -1.0, 3.0]]) };
        let d = belief.decompose(LinkApprox::default()).unwrap();
        assert_eq!(d.epistemic[0], 0.0);
        assert!(d.total[0] > 0.0);
    }

    #[test]
    fn certainty_has_the_entropy_zero_without_a_sign() {
        let certain = LogitBelief::Point { logits: arr2(&[[900.0, 0.0], [f64::NEG_INFINITY, 3.0]]) };
        let d = certain.decompose(LinkApprox::default()).unwrap();
        let all = d.total.iter().chain(&d.expected).chain(&d.epistemic);
        assert!(all.copied().all(|v| v == 0.0 && v.is_sign_positive()), "{d:?}");
        // what rounding leaves of a sum above 1
        assert_eq!(entropy(ndarray::arr1(&[1.0 + 1e-15, 0.0]).view()), 0.0);
    }

    #[test]
    fn equal_samples_have_no_epistemic_part_to_rounding() {
        let belief = LogitBelief::Samples {
            logits: arr3(&[[[0.2, 1.0]], [[0.2, 1.0]], [[0.2, 1.0]]]),
            log_weights: arr1(&[0.0, 1.0, -2.0]),
        };
        assert!(belief.decompose(LinkApprox::default()).unwrap().epistemic[0] < 1e-15);
    }
}
