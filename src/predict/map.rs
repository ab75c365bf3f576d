//! Predicts with the trained adapter alone.

use super::rows::rows;
use crate::belief::LogitBelief;
use crate::curvature::host_logits;
use crate::data::{BatchLimits, BatchOrder};
use crate::error::Result;
use crate::models::{Classifier, ClassifierInput, Dataset, OutputBatches};
use crate::progress::Control;
use crate::tape::Tape;

/// Among the kinds of rows.
const POINT: u64 = 0;

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
    let batches = data.plan(*limits, BatchOrder::ByLength)?;
    let inputs = OutputBatches::new(&model, data)?;
    let work = |indices: &[usize]| {
        let input = inputs.of(indices)?;
        host_logits(model.logits(&input, &mut Tape::off()), input.class_mask())
    };
    let logits = rows((&model, data), (model.n_classes(), || Ok(POINT)), &batches, control, work)?;
    Ok(LogitBelief::Point { logits })
}
