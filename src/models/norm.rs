//! Divides by the root of the mean square.

use super::family::NormKind;
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
        let wide = if dtype == DType::F64 { DType::F64 } else { DType::F32 };
        let x = x.cast(wide);
        let rms = (x.clone().square().mean_dim(1) + self.epsilon).sqrt();
        let (unit, gains) = (x / rms, self.gains.val().unsqueeze::<2>());
        match self.kind {
            NormKind::Gain => unit.cast(dtype) * gains,
            NormKind::WideGain => (unit * gains.cast(wide)).cast(dtype),
            NormKind::OnePlusGain => (unit * gains.cast(wide).add_scalar(1.0)).cast(dtype),
        }
    }

    /// Over groups of neighbours as wide as γ: the heads of queries or keys.
    pub(super) fn by_group(&self, x: Tensor<2>) -> Tensor<2> {
        let shape = x.dims();
        let width = self.gains.lazy_shape()[0];
        self.forward(x.reshape([shape[0] * shape[1] / width, width])).reshape(shape)
    }
}
