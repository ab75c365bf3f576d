//! A decoder-only language model: embedding, blocks, final norm, output head.

use super::{
    attention::Context,
    block::{Block, rms_norm},
    config::DecoderConfig,
    rope::Rotation,
    token_batch::TokenBatch,
};
use crate::lora::{Adaptable, LoraLinear};
use crate::tape::Tape;
use burn::module::Module;
use burn::nn::{Embedding, RmsNorm};
use burn::tensor::{Int, Tensor};

/// A pretrained decoder-only transformer of the Llama or Qwen2 family.
#[derive(Module, Debug)]
pub struct CausalLm {
    pub(super) embedding: Embedding,
    pub(super) blocks: Vec<Block>,
    pub(super) norm: RmsNorm,
    /// The output head; its weight is not read while it is tied to the embedding.
    pub(super) head: LoraLinear,
    #[module(skip)]
    pub(super) config: DecoderConfig,
}

impl CausalLm {
    /// The model's shape.
    pub fn config(&self) -> &DecoderConfig {
        &self.config
    }

    /// Final hidden states, after the last norm.
    ///
    /// # Shapes
    /// - batch: `[rows, tokens]` token ids; output `[rows · tokens, hidden]`
    pub fn hidden(&self, batch: &TokenBatch, tape: &mut Tape) -> Tensor<2> {
        let [rows, tokens] = batch.ids.dims();
        let x = self.embedding.forward(batch.ids.clone());
        let mut x = x.reshape([rows * tokens, self.config.hidden_size]);
        let device = x.device().without_autodiff();
        let context = Context {
            rotation: Rotation::new(&self.config, tokens, batch.positions.as_ref(), &device, x.dtype()),
            mask: batch.attention_mask(x.dtype()),
            rows,
            tokens,
        };
        for block in &self.blocks {
            x = block.forward(x, &context, tape);
        }
        rms_norm(&self.norm, x)
    }

    /// Vocabulary logits of hidden states, for the `columns` of the vocabulary only where given.
    ///
    /// # Shapes
    /// - hidden: `[n, hidden]`; output `[n, columns or vocab]`
    pub fn head(&self, hidden: Tensor<2>, columns: Option<&Tensor<1, Int>>, tape: &mut Tape) -> Tensor<2> {
        let weight = if self.head.is_tied { self.embedding.weight.val().transpose() } else { self.head.weight.val() };
        self.head.forward_with(weight, hidden, columns, tape)
    }
}

impl Adaptable for CausalLm {
    fn linears(&self) -> Vec<&LoraLinear> {
        let blocks = self.blocks.iter().flat_map(Block::linears);
        blocks.chain([&self.head]).collect()
    }

    fn linears_mut(&mut self) -> Vec<&mut LoraLinear> {
        let blocks = self.blocks.iter_mut().flat_map(Block::linears_mut);
        blocks.chain([&mut self.head]).collect()
    }
}
