//! Foretells the memory of training, before anything runs.

use super::config::TrainerConfig;
use super::freeze::set_trainable;
use crate::data::BatchOrder;
use crate::error::Result;
use crate::memory::Activations;
use crate::models::{Classifier, Dataset, output_batch_for};

/// Says how many bytes the activations of a micro-batch of the longest items take, for each worker; `None` where the model does not tell.
///
/// # Errors
/// If the data are empty, or an item cannot be represented.
pub fn estimate_activations<M: Classifier, D: Dataset<Input = M::Input>>(
    model: &M,
    data: &D,
    config: &TrainerConfig,
) -> Result<Option<Activations>> {
    let trained = set_trainable(model.clone(), &config.mode)?.train();
    let batches = data.plan(config.limits, BatchOrder::ByLength)?;
    let mut largest: Option<Activations> = None;
    // short items are many to a batch, long ones few
    for indices in batches.first().into_iter().chain(batches.last()) {
        let found = trained.activations(&output_batch_for(model, data, indices)?, None);
        largest = [largest, found].into_iter().flatten().max_by_key(|activations| activations.whole);
    }
    Ok(largest)
}
