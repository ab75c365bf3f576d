//! Splits the uncertainty of a belief into what data cannot remove and what they could.

use super::{LinkApprox, LogitBelief, softmax::softmax};
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
        match self {
            Self::Point { logits } => Ok(softmax(logits.view())),
            Self::Samples { .. } => Ok(self.map_items(|draws, w| w.dot(&draws), self.n_classes())),
            Self::Gaussian { mean, covariance, gauge } => {
                gauge.check_serves(link)?;
                let mut out = Array2::zeros(mean.dim());
                for (i, mut row) in out.axis_iter_mut(Axis(0)).enumerate() {
                    row.assign(&link.probabilities(mean.row(i), covariance.index_axis(Axis(0), i))?);
                }
                Ok(out)
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
                self.map_items(|draws, w| Array1::from_vec(entropies(draws.view(), w.view()).into()), 2)
            }
            Self::Gaussian { mean, covariance, .. } => {
                let mut out = Array2::zeros((mean.nrows(), 2));
                for i in 0..mean.nrows() {
                    let (draws, w) = link.draws(mean.row(i), covariance.index_axis(Axis(0), i))?;
                    let [total, expected] = entropies(draws.view(), w.view());
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

    /// Applies `f` to the probability draws `[n_samples, n_classes]` and weights of every item of a sample belief.
    fn map_items(&self, f: impl Fn(Array2<f64>, Array1<f64>) -> Array1<f64>, width: usize) -> Array2<f64> {
        let mut out = Array2::zeros((self.n_items(), width));
        if let Self::Samples { logits, log_weights } = self {
            let weights = softmax(log_weights.view().insert_axis(Axis(0))).row(0).to_owned();
            for i in 0..self.n_items() {
                let draws = softmax(logits.slice(s![.., i, ..]));
                out.row_mut(i).assign(&f(draws, weights.clone()));
            }
        }
        out
    }
}

/// Entropy `−Σ p ln p` in nats.
pub(crate) fn entropy(p: ArrayView1<f64>) -> f64 {
    -p.iter().filter(|&&v| v > 0.0).map(|&v| v * v.ln()).sum::<f64>()
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
    fn equal_samples_have_no_epistemic_part_to_rounding() {
        let belief = LogitBelief::Samples {
            logits: arr3(&[[[0.2, 1.0]], [[0.2, 1.0]], [[0.2, 1.0]]]),
            log_weights: arr1(&[0.0, 1.0, -2.0]),
        };
        assert!(belief.decompose(LinkApprox::default()).unwrap().epistemic[0] < 1e-15);
    }
}
