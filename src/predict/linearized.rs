//! Predicts with the network linearised around the trained adapter: `f* ~ N(f_MAP, J Σ Jᵀ)`.

use crate::batches::for_each_batch;
use crate::belief::LogitBelief;
use crate::data::{BatchLimits, BatchOrder};
use crate::error::Result;
use crate::models::{Classifier, Dataset};
use crate::posterior::{Laplace, LogitGauge, LogitJacobians};
use crate::progress::Control;
use ndarray::{Array2, Array3, Axis};

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
    let mut mean = Array2::zeros((n, c));
    let mut covariance = Array3::zeros((n, c, c));
    let batches = data.plan(limits.shared_by(gauge.repetitions(data, c)), BatchOrder::ByLength)?;
    let sites = laplace.sites();
    let work = |indices: &[usize]| {
        let batch = LogitJacobians::new(&model, data, indices, gauge, &sites)?;
        let projections = laplace.project_jacobians(&batch.sites)?;
        let of_classes = batch.to_classes(laplace.covariance(&projections, laplace.prior_precisions())?);
        Ok((batch.logits, of_classes))
    };
    for_each_batch("predict", &batches, control, work, |indices, (logits, of_classes)| {
        for (k, &item) in indices.iter().enumerate() {
            mean.row_mut(item).assign(&logits.row(k));
            covariance.index_axis_mut(Axis(0), item).assign(&of_classes.index_axis(Axis(0), k));
        }
        Ok(())
    })?;
    Ok(LogitBelief::Gaussian { mean, covariance })
}
