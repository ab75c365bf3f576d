//! Predicts by running the network at draws of the adapter.

use super::map::predict_map;
use crate::belief::LogitBelief;
use crate::data::BatchLimits;
use crate::error::{Error, Result};
use crate::lora::{AdapterWeights, write_adapter};
use crate::models::{Classifier, Dataset};
use crate::progress::Control;
use ndarray::{Array1, Array2, Array3};

/// Logits of every item at `n_samples` draws of the adapter, each draw shared by all items and tokens.
///
/// `draw` gives the weights of draw 0, 1, …
///
/// # Errors
/// If `n_samples` is 0, a draw does not fit the model, or as [`predict_map`].
pub fn predict_sampled<M: Classifier, D: Dataset<Input = M::Input>>(
    model: &M,
    data: &D,
    draw: impl Fn(u64) -> Result<AdapterWeights>,
    n_samples: usize,
    limits: &BatchLimits,
    control: &Control,
) -> Result<LogitBelief> {
    let model = model.valid();
    stacked(n_samples, (data.n_items(), model.n_classes()), |index| {
        let sample = write_adapter(model.clone(), &draw(index)?)?;
        Ok(match predict_map(&sample, data, limits, control)? {
            LogitBelief::Point { logits } => logits,
            belief => belief.moments().0,
        })
    })
}

/// Checks that there is a draw.
///
/// # Errors
/// Names the field, its bound and its value.
pub(super) fn check_draws(n_samples: usize) -> Result<()> {
    if n_samples == 0 { Err(Error::config("n_samples", "at least 1", 0)) } else { Ok(()) }
}

/// The belief of `n_samples` passes of equal weight; `pass` gives the logits of pass 0, 1, …
///
/// # Errors
/// If `n_samples` is 0, or as `pass`.
pub(super) fn stacked(
    n_samples: usize,
    (n_items, n_classes): (usize, usize),
    mut pass: impl FnMut(u64) -> Result<Array2<f64>>,
) -> Result<LogitBelief> {
    check_draws(n_samples)?;
    let mut logits = Array3::zeros((n_samples, n_items, n_classes));
    for (index, mut draw) in logits.outer_iter_mut().enumerate() {
        draw.assign(&pass(index as u64)?);
    }
    Ok(LogitBelief::Samples { logits, log_weights: Array1::zeros(n_samples) })
}
