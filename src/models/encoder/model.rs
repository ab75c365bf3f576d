//! An encoder of the BERT family: embeddings, layers, and what pools them.

use super::config::{EncoderConfig, Pooling};
use super::layer::{Context, Layer, Norm};
use crate::lora::{Adaptable, LoraLinear};
use crate::models::language_model::{HeadForm, LanguageModel};
use crate::models::token_batch::TokenBatch;
use crate::tape::Tape;
use burn::module::Module;
use burn::nn::Embedding;
use burn::tensor::Tensor;

/// A pretrained encoder.
#[derive(Module, Debug)]
pub struct Encoder {
    pub(super) words: Embedding,
    pub(super) positions: Embedding,
    pub(super) token_types: Embedding,
    pub(super) norm: Norm,
    pub(super) layers: Vec<Layer>,
    /// `tanh(Wh + b)` of the first token, where that is how rows are pooled.
    pub(super) pooler: Option<LoraLinear>,
    #[module(skip)]
    pub(super) config: EncoderConfig,
}

impl Encoder {
    /// The model's shape.
    pub fn config(&self) -> &EncoderConfig {
        &self.config
    }
}

impl LanguageModel for Encoder {
    fn width(&self) -> usize {
        self.config.hidden_size
    }

    fn vocab_size(&self) -> usize {
        self.config.vocab_size
    }

    fn max_positions(&self) -> usize {
        self.config.max_positions
    }

    fn hidden(&self, batch: &TokenBatch, tape: &mut Tape) -> Tensor<2> {
        let [rows, tokens] = batch.ids.dims();
        let places = batch.places().reshape([rows, tokens]);
        let first_type = self.token_types.weight.val().narrow(0, 0, 1).unsqueeze_dim::<3>(0);
        let x = self.words.forward(batch.ids.clone()) + self.positions.forward(places) + first_type;
        let mut x = self.norm.forward(x.reshape([rows * tokens, self.config.hidden_size]));
        let context = Context { mask: batch.padding_mask(x.dtype(), None), rows, tokens };
        for layer in &self.layers {
            x = layer.forward(x, &context, tape);
        }
        x
    }

    fn pooled(&self, batch: &TokenBatch, tape: &mut Tape) -> Tensor<2> {
        let hidden = self.hidden(batch, tape);
        match (self.config.pooling, &self.pooler) {
            (Pooling::Mean, _) => {
                let [rows, tokens] = batch.ids.dims();
                let width = self.config.hidden_size;
                let shares = batch.token_shares(hidden.dtype()).reshape([rows, 1, tokens]);
                shares.matmul(hidden.reshape([rows, tokens, width])).reshape([rows, width])
            }
            (Pooling::Pooler, Some(pooler)) => pooler.forward(hidden.select(0, batch.first.clone()), tape).tanh(),
            (Pooling::FirstToken | Pooling::Pooler, _) => hidden.select(0, batch.first.clone()),
        }
    }

    fn head_form(&self) -> HeadForm {
        HeadForm { path: "classifier", has_bias: true }
    }
}

impl Adaptable for Encoder {
    fn linears(&self) -> Vec<&LoraLinear> {
        self.layers.iter().flat_map(Layer::linears).chain(&self.pooler).collect()
    }

    fn linears_mut(&mut self) -> Vec<&mut LoraLinear> {
        self.layers.iter_mut().flat_map(Layer::linears_mut).chain(&mut self.pooler).collect()
    }
}
