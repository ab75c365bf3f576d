//! Leaves pads out of all that is done token by token, which is everything but attention.

use super::indices::indices_on;
use burn::tensor::{Device, IndexingUpdateOp, Int, Tensor};
use ndarray::Array2;

/// Which tokens of a padded batch are real.
#[derive(Debug, Clone)]
pub(super) struct RealTokens {
    /// Their places in `[rows · tokens]`.
    places: Tensor<1, Int>,
    /// For every place, which of the real tokens stands there; at pads the first, which nobody looks at.
    indices: Tensor<1, Int>,
}

impl RealTokens {
    /// Those of a mask `[rows, tokens]`, true at real tokens; `None` where there are no pads.
    pub(super) fn new(mask: &Array2<bool>, device: &Device) -> Option<Self> {
        if mask.iter().all(|real| *real) {
            return None;
        }
        let (mut places, mut indices) = (Vec::new(), Vec::with_capacity(mask.len()));
        for (place, real) in mask.iter().enumerate() {
            indices.push(if *real { places.len() as i64 } else { 0 });
            if *real {
                places.push(place as i64);
            }
        }
        Some(Self { places: indices_on(device, places), indices: indices_on(device, indices) })
    }

    /// Number of them.
    pub(super) fn count(&self) -> usize {
        self.places.dims()[0]
    }

    /// Which of them stand at `places` of `[rows · tokens]`.
    pub(super) fn indices_of(&self, places: Tensor<1, Int>) -> Tensor<1, Int> {
        self.indices.clone().select(0, places)
    }

    /// `[rows · tokens, width]` without pads.
    pub(super) fn pick(&self, x: Tensor<2>) -> Tensor<2> {
        x.select(0, self.places.clone())
    }

    /// Back to `[rows · tokens, width]`, pads being zero: what [`RealTokens::pick`] pulls a cotangent back by.
    pub(super) fn spread_on_zeros(&self, x: Tensor<2>) -> Tensor<2> {
        let zeros = Tensor::zeros([self.indices.dims()[0], x.dims()[1]], (&x.device(), x.dtype()));
        zeros.select_assign(0, self.places.clone(), x, IndexingUpdateOp::Add)
    }

    /// Back to `[rows · tokens, width]`.
    pub(super) fn spread(&self, x: Tensor<2>) -> Tensor<2> {
        x.select(0, self.indices.clone())
    }
}
