//! Lays batches out as the configuration says: a text a row, or several.

use super::config::TrainerConfig;
use crate::data::BatchOrder;
use crate::error::{Error, Result};
use crate::models::{Classifier, Dataset, output_batch_for};

/// Cuts the data into batches.
///
/// # Errors
/// As [`Dataset::plan`]; if rows are to be packed and the data cannot.
pub(super) fn plan<D: Dataset>(config: &TrainerConfig, data: &D, order: BatchOrder) -> Result<Vec<Vec<usize>>> {
    match config.packing {
        None => data.plan(config.limits, order),
        Some(row_tokens) => packable(data.plan_packed(config.limits, order, row_tokens)?),
    }
}

/// Builds the batch of the items at `indices`, for outputs and gradients of their loss.
///
/// # Errors
/// As [`Dataset::batch`] and [`Classifier::check`]; if rows are to be packed and the data cannot.
pub(super) fn batch<M: Classifier, D: Dataset<Input = M::Input>>(
    config: &TrainerConfig,
    model: &M,
    data: &D,
    indices: &[usize],
) -> Result<M::Input> {
    match config.packing {
        None => output_batch_for(model, data, indices),
        Some(row_tokens) => {
            let input = packable(data.packed_batch(indices, row_tokens, &model.device(), model.dtype())?)?;
            model.check(&input)?;
            Ok(input)
        }
    }
}

fn packable<T>(packed: Option<T>) -> Result<T> {
    packed.ok_or_else(|| {
        let reason = "packing: the data give every item rows of its own; several share one only where they are texts";
        Error::Incompatible(reason.into())
    })
}
