//! The layers of an encoder, one by one.

use super::model::{Contexts, Encoder};
use crate::error::Result;
use crate::models::by_layers::{Layers, gradient_by_layers, has_adapter, trains};
use crate::models::token_batch::TokenBatch;
use crate::tape::Tape;
use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::Tensor;

struct EncoderLayers<'a> {
    encoder: &'a Encoder,
    batch: &'a TokenBatch,
    contexts: &'a Contexts<'a>,
}

impl Layers for EncoderLayers<'_> {
    fn count(&self) -> usize {
        self.encoder.layers.len()
    }

    fn start_trains(&self) -> bool {
        let encoder = self.encoder;
        let tables = [Some(&encoder.words), encoder.positions.as_ref(), encoder.token_types.as_ref()];
        tables.into_iter().flatten().any(trains) || trains(&encoder.norm)
    }

    fn layer_trains(&self, index: usize) -> bool {
        trains(&self.encoder.layers[index])
    }

    fn is_adapted(&self, index: usize) -> bool {
        has_adapter(self.encoder.layers[index].linears())
    }

    fn start(&self) -> Tensor<2> {
        self.encoder.embedded(self.batch)
    }

    fn layer(&self, index: usize, x: Tensor<2>, tape: &mut Tape) -> Tensor<2> {
        self.encoder.layers[index].forward(x, &self.contexts.of(index), tape)
    }

    fn ended(&self, x: Tensor<2>) -> Tensor<2> {
        self.encoder.ended(x, self.contexts)
    }
}

impl Encoder {
    /// As [`gradient_by_layers`]; the loss gets the final hidden states that are pooled.
    ///
    /// # Errors
    /// Those of `loss`.
    pub(super) fn gradient_by_layers<M: Module>(
        &self,
        model: &M,
        batch: &TokenBatch,
        tape: &mut Tape,
        loss: impl FnOnce(Tensor<2>, &mut Tape) -> Result<Tensor<1>>,
    ) -> Result<GradientsParams> {
        let plain = self.valid();
        let read = self.pooled_tokens(batch, tape);
        self.in_contexts(batch, read.as_ref(), |contexts| {
            let of = |encoder| EncoderLayers { encoder, batch, contexts };
            gradient_by_layers(model, (&of(self), &of(&plain)), tape, loss)
        })
    }
}
