//! Predicts with the trained adapter alone.

use crate::batches::for_each_batch;
use crate::belief::LogitBelief;
use crate::curvature::host_logits;
use crate::data::{BatchLimits, BatchOrder};
use crate::error::Result;
use crate::models::{Classifier, ClassifierInput, Dataset, batch_for};
use crate::progress::Control;
use crate::tape::Tape;
use ndarray::Array2;

/// Logits of every item at the model's present weights, in the data's order: a [`LogitBelief::Point`].
///
/// # Errors
/// If the data are empty, a logit is not finite, or the caller cancels.
pub fn predict_map<M: Classifier, D: Dataset<Input = M::Input>>(
    model: &M,
    data: &D,
    limits: &BatchLimits,
    control: &Control,
) -> Result<LogitBelief> {
    let model = model.valid();
    let mut logits = Array2::zeros((data.n_items(), model.n_classes()));
    let batches = data.plan(*limits, BatchOrder::ByLength)?;
    let work = |indices: &[usize]| {
        let input = batch_for(&model, data, indices)?;
        host_logits(model.logits(&input, &mut Tape::off()), input.class_mask())
    };
    for_each_batch("predict", &batches, control, work, |indices, values| {
        for (&item, row) in indices.iter().zip(values.outer_iter()) {
            logits.row_mut(item).assign(&row);
        }
        Ok(())
    })?;
    Ok(LogitBelief::Point { logits })
}
