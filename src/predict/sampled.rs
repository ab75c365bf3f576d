//! Predicts by running the network at draws of the adapter.

use super::map::predict_map;
use crate::belief::LogitBelief;
use crate::data::BatchLimits;
use crate::error::{Error, Result};
use crate::lora::{AdapterWeights, write_adapter};
use crate::models::{Classifier, Dataset};
use crate::progress::Control;
use ndarray::{Array1, Array3, s};

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
    if n_samples == 0 {
        return Err(Error::config("n_samples", "at least 1", 0));
    }
    let mut logits = Array3::zeros((n_samples, data.n_items(), model.n_classes()));
    let model = model.valid();
    for k in 0..n_samples {
        let sample = write_adapter(model.clone(), &draw(k as u64)?)?;
        if let LogitBelief::Point { logits: point } = predict_map(&sample, data, limits, control)? {
            logits.slice_mut(s![k, .., ..]).assign(&point);
        }
    }
    Ok(LogitBelief::Samples { logits, log_weights: Array1::zeros(n_samples) })
}
