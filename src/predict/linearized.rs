//! Predicts with the network linearised around the trained adapter: `f* ~ N(f_MAP, J Σ Jᵀ)`.

use crate::batches::for_each_batch;
use crate::belief::{LogitBelief, centre_covariance};
use crate::curvature::{Cotangents, probe, repetitions};
use crate::data::{BatchLimits, BatchOrder};
use crate::error::Result;
use crate::models::{Classifier, Dataset, RowMeaning, batch_for};
use crate::posterior::Laplace;
use crate::progress::Control;
use ndarray::{Array2, Array3, ArrayView3, Axis};

/// Gaussian belief about every item's logits, in the data's order.
///
/// With `raw` the covariance is that of the raw logits and all C Jacobians are computed; otherwise it is in the centred
/// gauge, and the C − 1 contrasts suffice. `limits` count the repetitions of a batch for its several Jacobians.
///
/// # Errors
/// If the data are empty, a logit is not finite, the posterior belongs to another adapter, or the caller cancels.
pub fn predict_linearized<M: Classifier, D: Dataset<Input = M::Input>>(
    model: &M,
    laplace: &Laplace,
    data: &D,
    raw: bool,
    limits: &BatchLimits,
    control: &Control,
) -> Result<LogitBelief> {
    let model = model.valid();
    let (n, c) = (data.n_items(), model.n_classes());
    let mut mean = Array2::zeros((n, c));
    let mut covariance = Array3::zeros((n, c, c));
    let cotangents = || if raw { Cotangents::Classes } else { Cotangents::Contrasts };
    let copies = repetitions(data, cotangents().count(c));
    let batches = data.plan(limits.shared_by(copies), BatchOrder::ByLength)?;
    let work = |indices: &[usize]| {
        let input = batch_for(&model, data, indices)?;
        let pass = probe(&model, &input, cotangents())?;
        let of_probed = laplace.covariance(&laplace.project(&pass)?, laplace.prior_precisions())?;
        let of_classes = match pass.rows {
            RowMeaning::Item if !raw => contrasts_to_classes(of_probed.view()),
            _ => pad_classes(of_probed, c),
        };
        Ok((pass.logits, of_classes))
    };
    for_each_batch("predict", &batches, control, work, |indices, (logits, of_classes)| {
        for (k, &item) in indices.iter().enumerate() {
            let (logits, sigma) = (logits.row(k), of_classes.index_axis(Axis(0), k));
            mean.row_mut(item).assign(&logits);
            let sigma = if raw { sigma.to_owned() } else { centre_covariance(logits, sigma) };
            covariance.index_axis_mut(Axis(0), item).assign(&sigma);
        }
        Ok(())
    })?;
    Ok(LogitBelief::Gaussian { mean, covariance })
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
fn pad_classes(covariance: Array3<f64>, n_classes: usize) -> Array3<f64> {
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
