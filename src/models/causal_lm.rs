//! A decoder-only language model: embedding, blocks, final norm, output head.

use super::{
    attention::Context,
    block::{Block, rms_norm},
    config::DecoderConfig,
    language_model::{HeadForm, LanguageModel},
    rope::Rotation,
    token_batch::TokenBatch,
};
use crate::lora::{Adaptable, BasePart, LoraLinear, PartWeight};
use crate::tape::Tape;
use burn::module::{Module, Param};
use burn::nn::{Embedding, RmsNorm};
use burn::tensor::{Int, Tensor};
use std::collections::BTreeSet;

const EMBEDDING: &str = "model.embed_tokens";
const NORM: &str = "model.norm";
const LAYERS: &str = "model.layers.";

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
    /// Paths of the parts that came with an adapter.
    #[module(skip)]
    pub(super) replaced: BTreeSet<String>,
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

    /// Vocabulary logits of hidden states, for the `columns` of the vocabulary only where given: these in f32 at least.
    ///
    /// # Shapes
    /// - hidden: `[n, hidden]`; output `[n, columns or vocab]`
    pub fn head(&self, hidden: Tensor<2>, columns: Option<&Tensor<1, Int>>, tape: &mut Tape) -> Tensor<2> {
        self.head.forward_with(self.head_weight(), hidden, columns, tape)
    }

    /// The head's weights for some of the vocabulary, its adapter included, `[columns, hidden]`.
    pub(super) fn head_rows(&self, columns: &Tensor<1, Int>) -> Tensor<2> {
        let rows = self.head_weight().select(1, columns.clone()).transpose();
        match &self.head.adapter {
            None => rows,
            Some(adapter) => {
                let update = adapter.b.val().select(0, columns.clone()).matmul(adapter.a.val());
                rows.cast(update.dtype()) + update.mul_scalar(adapter.scale)
            }
        }
    }

    fn norm_mut(&mut self, path: &str) -> Option<&mut RmsNorm> {
        if path == NORM {
            return Some(&mut self.norm);
        }
        let (layer, name) = path.strip_prefix(LAYERS)?.split_once('.')?;
        self.blocks.get_mut(layer.parse::<usize>().ok()?)?.norm_mut(name)
    }

    /// `[hidden, vocab]`
    fn head_weight(&self) -> Tensor<2> {
        if self.head.is_tied { self.embedding.weight.val().transpose() } else { self.head.weight.val() }
    }
}

impl LanguageModel for CausalLm {
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
        CausalLm::hidden(self, batch, tape)
    }

    /// The last token's state, which has seen all others.
    fn pooled(&self, batch: &TokenBatch, tape: &mut Tape) -> Tensor<2> {
        CausalLm::hidden(self, batch, tape).select(0, batch.last.clone())
    }

    fn head_form(&self) -> HeadForm {
        HeadForm { path: "score", has_bias: false }
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

    fn parts(&self) -> Vec<BasePart> {
        let of_block = |(layer, block): (usize, &Block)| {
            block.norms().map(|(name, norm)| (format!("{LAYERS}{layer}.{name}"), norm.gamma.val()))
        };
        let norms = self.blocks.iter().enumerate().flat_map(of_block).chain([(NORM.into(), self.norm.gamma.val())]);
        let table = (EMBEDDING.to_string(), PartWeight::Table(self.embedding.weight.val()));
        let all = [table].into_iter().chain(norms.map(|(path, gains)| (path, PartWeight::Vector(gains))));
        all.map(|(path, weight)| BasePart { replaced: self.replaced.contains(&path), path, weight }).collect()
    }

    /// With another number of rows in the embedding, the vocabulary has another size.
    fn set_part(&mut self, part: BasePart) -> bool {
        let BasePart { path, weight, replaced } = part;
        match weight {
            PartWeight::Table(table) if path == EMBEDDING => {
                self.config.vocab_size = table.dims()[0];
                self.embedding.weight = Param::from_tensor(table).set_require_grad(false);
            }
            PartWeight::Vector(gains) => match self.norm_mut(&path) {
                Some(norm) => norm.gamma = Param::from_tensor(gains).set_require_grad(false),
                None => return false,
            },
            PartWeight::Table(_) => return false,
        }
        if replaced {
            self.replaced.insert(path)
        } else {
            self.replaced.remove(&path)
        };
        true
    }
}
