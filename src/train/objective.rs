//! The quantity that training minimises.

use crate::error::Result;
use crate::float_type::absent;
use crate::lora::{Adaptable, AdapterWeights, prior_centre};
use crate::prior::{PriorMean, PriorPrecision};
use crate::tape::{LoraMatrix, Site};
use burn::tensor::{Tensor, TensorData, activation};
use ndarray::Array2;

/// Maximum likelihood, or maximum a posteriori under a Gaussian prior on the adapter.
///
/// Weight decay of the optimiser is neither: AdamW's decay is not the gradient of any prior.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Objective {
    /// `−Σ log p(y | x, θ)`
    #[default]
    MaximumLikelihood,
    /// `−Σ log p(y | x, θ) + ½ λ‖θ − μ‖²` over A and B.
    MaximumAPosteriori {
        /// λ
        precision: PriorPrecision,
        /// μ
        mean: PriorMean,
    },
}

/// `−Σ_n log p(y_n | x_n)` of a batch in nats, as a sum.
///
/// # Shapes
/// - logits: `[n_items, n_classes]`, labels: `[n_items]`; output `[1]`
pub fn nll_sum(logits: Tensor<2>, labels: &[usize], class_mask: Option<&Array2<bool>>) -> Tensor<1> {
    let one_hot = one_hot(&logits, labels);
    let logits = match class_mask {
        None => logits,
        Some(mask) => {
            let keep = as_factors(mask, &logits);
            // finite where an item lacks a class, so that no gradient is NaN
            let absent = absent(logits.dtype());
            logits * keep.clone() + keep.sub_scalar(1.0).mul_scalar(-absent)
        }
    };
    (activation::log_softmax(logits, 1) * one_hot).sum().neg()
}

/// `Σ_n ‖f(x_n) − e_{y_n}‖²` over the classes that the items have.
///
/// # Shapes
/// As [`nll_sum`].
pub fn squared_error_sum(logits: Tensor<2>, labels: &[usize], class_mask: Option<&Array2<bool>>) -> Tensor<1> {
    let one_hot = one_hot(&logits, labels);
    let keep = class_mask.map(|mask| as_factors(mask, &logits));
    let error = logits - one_hot;
    let error = match keep {
        None => error,
        Some(keep) => error * keep,
    };
    error.powi_scalar(2).sum()
}

/// 1 at each item's label, 0 elsewhere, like `logits`.
fn one_hot(logits: &Tensor<2>, labels: &[usize]) -> Tensor<2> {
    let n_classes = logits.dims()[1];
    as_factors(&Array2::from_shape_fn((labels.len(), n_classes), |(i, k)| labels[i] == k), logits)
}

/// 1 for true and 0 for false, on the device and in the element type of `like`.
fn as_factors(mask: &Array2<bool>, like: &Tensor<2>) -> Tensor<2> {
    let values: Vec<f32> = mask.iter().map(|&m| f32::from(u8::from(m))).collect();
    let options = (&like.device().without_autodiff(), like.dtype());
    Tensor::from_data(TensorData::new(values, [mask.nrows(), mask.ncols()]), options)
}

impl Objective {
    /// The prior's centre as host arrays, where there is a prior.
    ///
    /// # Errors
    /// If it is centred at an unknown start.
    pub(super) fn centre<M: Adaptable>(&self, model: &M) -> Result<Option<AdapterWeights>> {
        match self {
            Self::MaximumLikelihood => Ok(None),
            Self::MaximumAPosteriori { mean, .. } => prior_centre(model, *mean).map(Some),
        }
    }

    /// `½ λ‖θ − μ‖²`, where there is a prior.
    pub(super) fn penalty<M: Adaptable>(&self, model: &M, centre: Option<&AdapterWeights>) -> Option<Tensor<1>> {
        let (Self::MaximumAPosteriori { precision, .. }, Some(centre)) = (self, centre) else {
            return None;
        };
        let mut total: Option<Tensor<1>> = None;
        for linear in model.linears() {
            let Some(adapter) = &linear.adapter else { continue };
            for (matrix, w) in [(LoraMatrix::A, adapter.a.val()), (LoraMatrix::B, adapter.b.val())] {
                let site = Site { module: linear.path.clone(), matrix };
                let Some(mean) = centre.get(&site) else { continue };
                let data = TensorData::new(mean.iter().copied().collect::<Vec<f64>>(), [mean.nrows(), mean.ncols()]);
                let mean = Tensor::<2>::from_data(data, (&w.device().without_autodiff(), w.dtype()));
                let difference = w - mean;
                let square = (difference.clone() * difference).sum();
                total = Some(match total {
                    None => square,
                    Some(t) => t + square,
                });
            }
        }
        total.map(|t| t.mul_scalar(0.5 * precision.value()))
    }
}
