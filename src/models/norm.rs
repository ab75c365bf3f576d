//! Divides by the root of the mean square.

use super::family::NormKind;
use crate::lora::at_least_f32;
use burn::module::{Module, Param};
use burn::tensor::{DType, Tensor};

/// `x / √(mean x² + ε) · γ`, or with `1 + γ`.
#[derive(Module, Debug)]
pub(super) struct Norm {
    /// `γ: [width]`
    pub(super) gains: Param<Tensor<1>>,
    /// Path in the model, such as `model.norm`.
    #[module(skip)]
    pub(super) path: String,
    #[module(skip)]
    epsilon: f64,
    #[module(skip)]
    kind: NormKind,
}

impl Norm {
    pub(super) fn new(path: String, gains: Tensor<1>, epsilon: f64, kind: NormKind) -> Self {
        Self { gains: Param::from_tensor(gains).set_require_grad(false), path, epsilon, kind }
    }

    /// Over the last dimension; in f32 for half precision until it is rounded where transformers rounds it.
    ///
    /// Burn's own forward averages in f32 always, which leaves an f64 model exact to 1e-8 only.
    pub(super) fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let dtype = x.dtype();
        let (unit, _) = self.unit(x);
        match self.kind {
            NormKind::Gain => unit.cast(dtype) * self.factors(dtype),
            NormKind::WideGain | NormKind::OnePlusGain => {
                let factors = self.factors(unit.dtype());
                (unit * factors).cast(dtype)
            }
        }
    }

    /// `x / √(mean x² + ε)` and that root, in f32 at least.
    ///
    /// # Shapes
    /// - x: `[n, width]`; outputs `[n, width]`, `[n, 1]`
    pub(super) fn unit(&self, x: Tensor<2>) -> (Tensor<2>, Tensor<2>) {
        let wide = at_least_f32(x.dtype());
        let x = x.cast(wide);
        let rms = (x.clone().square().mean_dim(1) + self.epsilon).sqrt();
        (x / rms.clone(), rms)
    }

    /// What the unit is multiplied by, `[1, width]`.
    pub(super) fn factors(&self, dtype: DType) -> Tensor<2> {
        let gains = self.gains.val().unsqueeze::<2>().cast(dtype);
        match self.kind {
            NormKind::Gain | NormKind::WideGain => gains,
            NormKind::OnePlusGain => gains.add_scalar(1.0),
        }
    }

    /// Over groups of neighbours as wide as γ: the heads of queries or keys.
    pub(super) fn by_group(&self, x: Tensor<2>) -> Tensor<2> {
        let shape = x.dims();
        let width = self.gains.lazy_shape()[0];
        self.forward(x.reshape([shape[0] * shape[1] / width, width])).reshape(shape)
    }
}
