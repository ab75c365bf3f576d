//! The layers of a decoder, one by one.

use super::{
    by_layers::{Layers, gradient_by_layers, has_adapter, trains},
    causal_lm::CausalLm,
    layer_contexts::LayerContexts,
    layer_values::Memory,
    rope::Places,
    token_batch::TokenBatch,
};
use crate::error::Result;
use crate::tape::Tape;
use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::{Int, Tensor};

struct DecoderLayers<'a> {
    lm: &'a CausalLm,
    batch: &'a TokenBatch,
    places: &'a Places<'a>,
    contexts: &'a LayerContexts<'a>,
}

impl Layers for DecoderLayers<'_> {
    fn count(&self) -> usize {
        self.lm.blocks.len()
    }

    fn start_trains(&self) -> bool {
        trains(&self.lm.embedding)
    }

    fn layer_trains(&self, index: usize) -> bool {
        trains(&self.lm.blocks[index])
    }

    fn is_adapted(&self, index: usize) -> bool {
        has_adapter(self.lm.blocks[index].linears())
    }

    fn start(&self) -> Tensor<2> {
        self.lm.embedded(self.batch.ids.clone(), self.places)
    }

    fn layer(&self, index: usize, x: Tensor<2>, tape: &mut Tape) -> Tensor<2> {
        self.lm.blocks[index].forward(x, &self.contexts.of(index), Memory::Nothing, tape)
    }

    fn ended(&self, x: Tensor<2>) -> Tensor<2> {
        self.lm.ended(x, self.places)
    }
}

impl CausalLm {
    /// As [`gradient_by_layers`]; the loss gets the final hidden states of the tokens at `read`, `[n, hidden]`.
    ///
    /// # Errors
    /// Those of `loss`.
    pub(super) fn gradient_by_layers<M: Module>(
        &self,
        model: &M,
        (batch, read): (&TokenBatch, &Tensor<1, Int>),
        tape: &mut Tape,
        loss: impl FnOnce(Tensor<2>, &mut Tape) -> Result<Tensor<1>>,
    ) -> Result<GradientsParams> {
        let plain = self.valid();
        self.in_places(batch, Some(read), tape, |places, tape| {
            let contexts = &self.contexts(batch, places);
            let of = |lm| DecoderLayers { lm, batch, places, contexts };
            gradient_by_layers(model, (&of(self), &of(&plain)), tape, loss)
        })
    }
}
