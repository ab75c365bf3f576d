//! Predicts with noise inside the forward pass, drawn anew for every token.

use super::rows::rows;
use super::sampled::stacked;
use crate::belief::LogitBelief;
use crate::curvature::host_logits;
use crate::data::{BatchLimits, BatchOrder};
use crate::error::Result;
use crate::hash::{fnv1a, fnv1a_words};
use crate::models::{Classifier, ClassifierInput, Dataset, output_batch_for, row_keys};
use crate::progress::Control;
use crate::tape::{RowKeys, SiteNoise, Tape};

/// Logits of every item in `n_samples` passes with noise.
///
/// `noise` makes the noise of a pass (0, 1, …) over the rows of a batch; `name` says all that it depends on.
///
/// # Errors
/// If `n_samples` is 0, or as [`super::predict_map`].
pub fn predict_noisy<M: Classifier, D: Dataset<Input = M::Input>>(
    model: &M,
    data: &D,
    (name, noise): (&str, impl Fn(u64, RowKeys) -> Box<dyn SiteNoise> + Sync),
    n_samples: usize,
    limits: &BatchLimits,
    control: &Control,
) -> Result<LogitBelief> {
    let model = model.valid();
    let n_classes = model.n_classes();
    let batches = data.plan(*limits, BatchOrder::ByLength)?;
    stacked(n_samples, (data.n_items(), n_classes), |index| {
        let work = |indices: &[usize]| {
            let input = output_batch_for(&model, data, indices)?;
            let noise = noise(index, row_keys(data, indices, &input));
            host_logits(model.logits(&input, &mut Tape::noise(noise)), input.class_mask())
        };
        let kind = || Ok(fnv1a_words([fnv1a(name.bytes()), index]));
        rows((&model, data), (n_classes, kind), &batches, control, work)
    })
}
