//! Asks a model for its answers to labelled items.

use crate::batches::in_order;
use crate::belief::log_softmax;
use crate::data::{BatchLimits, BatchOrder};
use crate::error::Result;
use crate::lora::to_array;
use crate::models::{Classifier, ClassifierInput, Dataset, batch_for, batch_labels, known_labels, mask_absent};
use crate::progress::Control;
use crate::tape::Tape;

/// Mean NLL in nats and accuracy.
pub(super) fn evaluate<M: Classifier, D: Dataset<Input = M::Input>>(
    model: &M,
    data: &D,
    limits: BatchLimits,
    control: &Control,
) -> Result<(f64, f64)> {
    let model = model.valid();
    let labels = known_labels(data, model.n_classes())?;
    let (mut nll, mut right) = (0.0, 0usize);
    let batches = data.plan(limits, BatchOrder::ByLength)?;
    let work = |index: usize| {
        let input = batch_for(&model, data, &batches[index])?;
        batch_labels(data, &batches[index], &input, &labels, model.n_classes())?;
        Ok(mask_absent(to_array(model.logits(&input, &mut Tape::off()))?, input.class_mask()))
    };
    in_order("validation", batches.len(), control.workers(), work, |index, logits| {
        for (row, &item) in log_softmax(logits.view()).outer_iter().zip(&batches[index]) {
            let label = labels[item];
            nll -= row[label];
            right += usize::from(row.iter().enumerate().all(|(c, v)| c == label || *v < row[label]));
        }
        control.check("validation", index + 1, batches.len())
    })?;
    Ok((nll / labels.len() as f64, right as f64 / labels.len() as f64))
}
