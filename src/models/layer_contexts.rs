//! What the layers of a decoder need to know of a batch, made once for all of them.

use super::{
    attention::Context,
    config::DecoderConfig,
    rope::{Places, Rotation, query_factors},
};
use burn::tensor::Tensor;

/// The masks, rotations and factors of a pass.
pub(super) struct LayerContexts<'a> {
    config: &'a DecoderConfig,
    places: &'a Places<'a>,
    rows: usize,
    rotation: Rotation,
    /// Where layers with a window rotate otherwise.
    sliding_rotation: Option<Rotation>,
    mask: Tensor<4>,
    /// Where the window is shorter than the rows.
    sliding_mask: Option<Tensor<4>>,
    query_factors: Option<Tensor<4>>,
}

impl<'a> LayerContexts<'a> {
    /// `mask` says what the tokens of `rows` may look at, within a window where one is given.
    pub(super) fn new(
        config: &'a DecoderConfig,
        places: &'a Places<'a>,
        rows: usize,
        mask: impl Fn(Option<usize>) -> Tensor<4>,
    ) -> Self {
        // a window as wide as all positions hides nothing
        let window = config.window.filter(|window| *window < places.first + places.span);
        let rotation = |theta, scaling| Rotation::new(theta, scaling, config.rotary_dim, places);
        let own = config.sliding_rope.as_ref().filter(|_| config.layers.iter().any(|layer| layer.slides));
        Self {
            config,
            places,
            rows,
            rotation: rotation(config.rope_theta, &config.rope_scaling),
            sliding_rotation: own.map(|(theta, scaling)| rotation(*theta, scaling)),
            mask: mask(None),
            sliding_mask: window.map(|window| mask(Some(window))),
            query_factors: config.scales.positions.as_ref().and_then(|scale| query_factors(scale, places)),
        }
    }

    /// What the layer at `index` needs to know.
    pub(super) fn of(&self, index: usize) -> Context<'_> {
        let layer = self.config.layers[index];
        let rotation = self.sliding_rotation.as_ref().filter(|_| layer.slides).unwrap_or(&self.rotation);
        Context {
            rotation: layer.rotates.then_some(rotation),
            mask: self.sliding_mask.as_ref().filter(|_| layer.slides).unwrap_or(&self.mask),
            query_factors: self.query_factors.as_ref(),
            rows: self.rows,
            tokens: self.places.tokens,
            distinct: self.places.distinct,
            read: self.places.read.filter(|read| read.in_last_layer && index + 1 == self.config.n_layers),
        }
    }
}
