//! Moves covariances between the gauges of a softmax, which does not see a common shift of the logits.

use super::link::LinkApprox;
use crate::error::{Error, Result};
use ndarray::{Array2, Array3, ArrayView1, ArrayView2, ArrayView3};

/// Which covariance of an item's logits is meant: softmax does not see their common shift.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum LogitGauge {
    /// That of `f − mean_c f_c`, `PΣP` with `P = I − 11ᵀ/C`: C − 1 Jacobians give it, and softmax needs no more.
    Centred,
    /// That of the logits as they are, from all C Jacobians.
    Raw,
}

impl LogitGauge {
    /// The gauge that a link reads.
    pub fn of(link: LinkApprox) -> Self {
        if link.needs_raw_covariance() { Self::Raw } else { Self::Centred }
    }

    /// Checks that a covariance in this gauge serves a link. A raw one serves all.
    ///
    /// # Errors
    /// If the link reads variances of single logits and the covariance is centred.
    pub(super) fn check_serves(self, link: LinkApprox) -> Result<()> {
        match (self, Self::of(link)) {
            (Self::Centred, Self::Raw) => Err(Error::Incompatible(format!(
                "{link:?} reads the variances of single logits, which a covariance in the centred gauge has lost: predict in \
                 the raw gauge"
            ))),
            _ => Ok(()),
        }
    }
}

/// The covariance of `f − mean_c f_c` over the classes present (finite mean), zero elsewhere: `PΣP`, `P = I − 11ᵀ/C`.
pub fn centre_covariance(mean: ArrayView1<f64>, covariance: ArrayView2<f64>) -> Array2<f64> {
    let present: Vec<usize> = (0..mean.len()).filter(|&c| mean[c].is_finite()).collect();
    let n = present.len().max(1) as f64;
    let row_mean = |a: usize| present.iter().map(|&b| covariance[[a, b]]).sum::<f64>() / n;
    let means: Vec<f64> = (0..mean.len()).map(row_mean).collect();
    let total = present.iter().map(|&a| means[a]).sum::<f64>() / n;
    let mut out = Array2::zeros(covariance.dim());
    for &a in &present {
        for &b in &present {
            out[[a, b]] = covariance[[a, b]] - means[a] - means[b] + total;
        }
    }
    out
}

/// Covariance of the logits with the first one held at zero, from that of the differences to it:
/// `[n, C − 1, C − 1]` to `[n, C, C]`.
pub fn contrasts_to_classes(contrasts: ArrayView3<f64>) -> Array3<f64> {
    let (n, k, _) = contrasts.dim();
    Array3::from_shape_fn(
        (n, k + 1, k + 1),
        |(i, a, b)| {
            if a == 0 || b == 0 { 0.0 } else { contrasts[[i, a - 1, b - 1]] }
        },
    )
}

/// Fills up with zeros where a batch's items have fewer choices than there are classes.
pub(crate) fn pad_classes(covariance: Array3<f64>, n_classes: usize) -> Array3<f64> {
    let (n, k, _) = covariance.dim();
    if k == n_classes {
        return covariance;
    }
    Array3::from_shape_fn(
        (n, n_classes, n_classes),
        |(i, a, b)| {
            if a < k && b < k { covariance[[i, a, b]] } else { 0.0 }
        },
    )
}
