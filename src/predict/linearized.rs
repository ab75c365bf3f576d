//! Predicts with the network linearised around the trained adapter: `f* ~ N(f_MAP, J Σ Jᵀ)`.

use super::rows::rows;
use crate::belief::LogitBelief;
use crate::data::{BatchLimits, BatchOrder};
use crate::error::Result;
use crate::hash::{fnv1a, fnv1a_words};
use crate::models::{Classifier, Dataset};
use crate::posterior::{Laplace, LogitGauge, LogitJacobians};
use crate::progress::Control;
use ndarray::{Array2, Array3, Axis, s};

/// Gaussian belief about every item's logits, in the data's order and in the wanted gauge.
///
/// `limits` count the repetitions of a batch for its several Jacobians.
///
/// # Errors
/// If the data are empty, a logit is not finite, the posterior belongs to another adapter, or the caller cancels.
pub fn predict_linearized<M: Classifier, D: Dataset<Input = M::Input>>(
    model: &M,
    laplace: &Laplace,
    data: &D,
    gauge: LogitGauge,
    limits: &BatchLimits,
    control: &Control,
) -> Result<LogitBelief> {
    let model = model.valid();
    laplace.check_is_about(&model)?;
    let (n, c) = (data.n_items(), model.n_classes());
    let batches = data.plan(limits.shared_by(gauge.repetitions(data, c)), BatchOrder::ByLength)?;
    let sites = laplace.sites();
    let work = |indices: &[usize]| {
        let batch = LogitJacobians::new(&model, data, indices, gauge, &sites)?;
        let projections = laplace.project_jacobians(&batch.sites)?;
        let of_classes = batch.to_classes(laplace.covariance(&projections, laplace.prior_precisions())?);
        // a row is an item's logits, then their covariance
        let mut rows = Array2::zeros((indices.len(), c + c * c));
        for (item, mut row) in rows.outer_iter_mut().enumerate() {
            let values = batch.logits.row(item).into_iter().chain(of_classes.index_axis(Axis(0), item));
            row.iter_mut().zip(values).for_each(|(place, value)| *place = *value);
        }
        Ok(rows)
    };
    let kind = || Ok(fnv1a_words([fnv1a(format!("{gauge:?}").bytes()), laplace.fingerprint()?]));
    let rows = rows((&model, data), (c + c * c, kind), &batches, control, work)?;
    let covariance = Array3::from_shape_fn((n, c, c), |(item, a, b)| rows[[item, c + a * c + b]]);
    Ok(LogitBelief::Gaussian { mean: rows.slice(s![.., ..c]).to_owned(), covariance })
}
