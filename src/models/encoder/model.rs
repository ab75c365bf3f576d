//! An encoder: embeddings, layers, and what pools them.

use super::config::{EncoderConfig, EncoderFamily, Pooling};
use super::layer::{Context, Layer, Norm, Pooler};
use super::names::HEAD;
use crate::lora::{Adaptable, LoraLinear};
use crate::models::language_model::{HeadForm, LanguageModel};
use crate::models::rope::{Places, Rotation};
use crate::models::token_batch::TokenBatch;
use crate::tape::Tape;
use burn::module::Module;
use burn::nn::Embedding;
use burn::tensor::Tensor;

/// A pretrained encoder of one of the [families](EncoderFamily).
#[derive(Module, Debug)]
pub struct Encoder {
    pub(super) words: Embedding,
    pub(super) positions: Option<Embedding>,
    pub(super) token_types: Option<Embedding>,
    pub(super) norm: Norm,
    pub(super) layers: Vec<Layer>,
    pub(super) final_norm: Option<Norm>,
    /// Where a row is pooled as the family's classifier does.
    pub(super) pooler: Option<Pooler>,
    #[module(skip)]
    pub(super) config: EncoderConfig,
}

impl Encoder {
    /// The model's shape.
    pub fn config(&self) -> &EncoderConfig {
        &self.config
    }

    /// Words, positions and kinds of tokens, `[rows · tokens, hidden]`.
    fn embedded(&self, batch: &TokenBatch) -> Tensor<2> {
        let [rows, tokens] = batch.ids.dims();
        let mut x = self.words.forward(batch.ids.clone());
        if let Some(positions) = &self.positions {
            x = x + positions.forward(batch.places().reshape([rows, tokens]));
        }
        if let Some(table) = &self.token_types {
            x = match &batch.types {
                Some(types) => x + table.forward(types.clone()),
                None => x + table.weight.val().narrow(0, 0, 1).unsqueeze_dim::<3>(0),
            };
        }
        self.norm.forward(x.reshape([rows * tokens, self.config.hidden_size]))
    }

    /// Whether what stands for a row is the mean over its tokens.
    fn averages(&self) -> bool {
        match (self.config.pooling, &self.config.family) {
            (Pooling::Mean, _) => true,
            (Pooling::Pooler, EncoderFamily::ModernBert(modern)) => modern.classifier_mean,
            _ => false,
        }
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

    fn n_token_types(&self) -> Option<usize> {
        self.token_types.as_ref().map(|_| self.config.n_token_types)
    }

    fn hidden(&self, batch: &TokenBatch, tape: &mut Tape) -> Tensor<2> {
        let [rows, tokens] = batch.ids.dims();
        let mut x = self.embedded(batch);
        let (device, dtype, lengths) = (x.device().without_autodiff(), x.dtype(), batch.lengths());
        let mask = batch.padding_mask(dtype, None);
        let plain = Context { rotation: None, mask: &mask, rows, tokens };
        match &self.config.family {
            EncoderFamily::Bert => {
                for layer in &self.layers {
                    x = layer.forward(x, &plain, tape);
                }
            }
            EncoderFamily::ModernBert(modern) => {
                let positions = batch.positions.as_ref();
                let places = Places {
                    tokens,
                    first: 0,
                    span: tokens,
                    positions,
                    lengths: &lengths,
                    real: None,
                    device: &device,
                    dtype,
                };
                let rotations = [&modern.rope, &modern.sliding_rope]
                    .map(|(theta, scaling)| Rotation::new(*theta, scaling, self.config.head_dim(), &places));
                // a window as wide as the batch hides nothing
                let near = (modern.reach + 1 < tokens).then(|| batch.padding_mask(dtype, Some(modern.reach)));
                let far = Context { rotation: Some(&rotations[0]), ..plain };
                let near =
                    Context { rotation: Some(&rotations[1]), mask: near.as_ref().unwrap_or(&mask), rows, tokens };
                for (layer, slides) in self.layers.iter().zip(&modern.slides) {
                    x = layer.forward(x, if *slides { &near } else { &far }, tape);
                }
            }
        }
        match &self.final_norm {
            Some(norm) => norm.forward(x),
            None => x,
        }
    }

    fn pooled(&self, batch: &TokenBatch, tape: &mut Tape) -> Tensor<2> {
        let hidden = self.hidden(batch, tape);
        let one = match self.averages() {
            true => {
                let [rows, tokens] = batch.ids.dims();
                let width = self.config.hidden_size;
                let shares = batch.token_shares(hidden.dtype()).reshape([rows, 1, tokens]);
                shares.matmul(hidden.reshape([rows, tokens, width])).reshape([rows, width])
            }
            false => hidden.select(0, batch.first.clone()),
        };
        match &self.pooler {
            Some(pooler) => pooler.forward(one, tape),
            None => one,
        }
    }

    fn head_form(&self) -> HeadForm {
        HeadForm { path: HEAD, has_bias: true }
    }
}

impl Adaptable for Encoder {
    fn linears(&self) -> Vec<&LoraLinear> {
        let pooler = self.pooler.iter().map(|pooler| &pooler.dense);
        self.layers.iter().flat_map(Layer::linears).chain(pooler).collect()
    }

    fn linears_mut(&mut self) -> Vec<&mut LoraLinear> {
        let pooler = self.pooler.iter_mut().map(|pooler| &mut pooler.dense);
        self.layers.iter_mut().flat_map(Layer::linears_mut).chain(pooler).collect()
    }
}
