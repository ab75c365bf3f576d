//! Reads what the output layer reads: the features of every item, with the logits of the same pass.

use super::rows::rows;
use crate::curvature::host_logits;
use crate::data::{BatchLimits, BatchOrder};
use crate::error::{Error, Result, check_finite};
use crate::lora::to_array;
use crate::models::{Classifier, ClassifierInput, Dataset, OutputBatches};
use crate::progress::Control;
use ndarray::{Array2, Axis, concatenate, s};

/// Among the kinds of rows.
const HEAD: u64 = 3;

/// What an output layer reads of every item and makes of it, and its weights.
#[derive(Debug, Clone, PartialEq)]
pub struct HeadRows {
    /// `h: [n_items, d]`
    pub features: Array2<f64>,
    /// `f: [n_items, n_classes]`
    pub logits: Array2<f64>,
    /// `w: [n_classes, d]`
    pub weights: Array2<f64>,
}

/// One forward pass over the items, in the data's order.
///
/// # Errors
/// If the model's logits are not linear in an output layer's rows, the data are empty, a value is not finite, or the caller cancels.
pub fn predict_head<M: Classifier, D: Dataset<Input = M::Input>>(
    model: &M,
    data: &D,
    limits: &BatchLimits,
    control: &Control,
) -> Result<HeadRows> {
    let model = model.valid();
    let not_linear = || {
        Error::Incompatible(
            "the logits of this model and task are not linear in an output layer's rows, one a class".into(),
        )
    };
    let weights = to_array(model.head_weights().ok_or_else(not_linear)?)?;
    let width = weights.ncols();
    let batches = data.plan(*limits, BatchOrder::ByLength)?;
    let inputs = OutputBatches::new(&model, data)?;
    let work = |indices: &[usize]| {
        let input = inputs.of(indices)?;
        let read = model.head_features(&input).ok_or_else(not_linear)?;
        let (features, logits) = (to_array(read.features)?, host_logits(read.logits, input.class_mask())?);
        check_finite("features", features.iter().map(|v| v.is_finite()))?;
        concatenate(Axis(1), &[features.view(), logits.view()]).map_err(|e| Error::numerical("features", e))
    };
    let columns = width + model.n_classes();
    let rows = rows((&model, data), (columns, || Ok(HEAD)), &batches, control, work)?;
    let (features, logits) = (rows.slice(s![.., ..width]).to_owned(), rows.slice(s![.., width..]).to_owned());
    Ok(HeadRows { features, logits, weights })
}
