//! A decoder-only language model: embedding, blocks, final norm, output head.

use super::{
    activation::soft_cap,
    attention::Context,
    block::Block,
    config::DecoderConfig,
    language_model::{HeadForm, LanguageModel},
    layer_values::PassMemory,
    names::{EMBEDDING, root},
    norm::Norm,
    rope::{Places, Rotation, query_factors},
    token_batch::TokenBatch,
};
use crate::lora::{Adaptable, BasePart, LoraLinear, PartWeight, at_least_f32};
use crate::tape::Tape;
use burn::module::{Module, Param};
use burn::nn::Embedding;
use burn::tensor::{Int, Tensor};
use std::collections::BTreeSet;

/// A pretrained decoder-only transformer of one of the [families](super::Family).
#[derive(Module, Debug)]
pub struct CausalLm {
    pub(super) embedding: Embedding,
    pub(super) blocks: Vec<Block>,
    pub(super) norm: Norm,
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
        self.remembering(batch, PassMemory::Nothing, tape)
    }

    /// The same, with what is to be remembered.
    pub(super) fn remembering(&self, batch: &TokenBatch, memory: PassMemory, tape: &mut Tape) -> Tensor<2> {
        let tokens = batch.ids.dims()[1];
        let table = self.embedding.weight.val();
        let (device, dtype, lengths) = (table.device().without_autodiff(), table.dtype(), batch.lengths());
        let positions = batch.positions.as_ref();
        // what is read token by token is read in the batch's own layout
        let is_read = !matches!(memory, PassMemory::Nothing) || tape.reads_tokens();
        let real = if is_read { None } else { batch.real_tokens() };
        let real = real.as_ref();
        let places =
            Places { tokens, first: 0, span: tokens, positions, lengths: &lengths, real, device: &device, dtype };
        self.run(batch.ids.clone(), &places, |window| batch.attention_mask(dtype, window), memory, tape)
    }

    /// The same of tokens that may stand behind those of caches. `mask` says what they may look at, within a window where one is given.
    ///
    /// # Shapes
    /// - ids: `[rows, tokens]`; output `[rows · tokens, hidden]`
    pub(super) fn run(
        &self,
        ids: Tensor<2, Int>,
        places: &Places,
        mask: impl Fn(Option<usize>) -> Tensor<4>,
        mut memory: PassMemory,
        tape: &mut Tape,
    ) -> Tensor<2> {
        let [rows, tokens] = ids.dims();
        let config = &self.config;
        let x = self.embedding.forward(ids);
        let mut x = x.reshape([rows * tokens, config.hidden_size]);
        if let Some(real) = places.real {
            x = real.pick(x);
        }
        if config.scales.embedding != 1.0 {
            x = x.mul_scalar(config.scales.embedding);
        }
        let rotation = Rotation::new(config.rope_theta, &config.rope_scaling, config.rotary_dim, places);
        // a window as wide as all positions hides nothing
        let window = config.window.filter(|window| *window < places.first + places.span);
        let (mask, sliding_mask) = (mask(None), window.map(|window| mask(Some(window))));
        let own = config.sliding_rope.as_ref().filter(|_| config.layers.iter().any(|layer| layer.slides));
        let sliding_rotation = own.map(|(theta, scaling)| Rotation::new(*theta, scaling, config.rotary_dim, places));
        let factors = config.scales.positions.as_ref().and_then(|scale| query_factors(scale, places));
        for (index, (block, layer)) in self.blocks.iter().zip(&config.layers).enumerate() {
            let rotation = sliding_rotation.as_ref().filter(|_| layer.slides).unwrap_or(&rotation);
            let context = Context {
                rotation: layer.rotates.then_some(rotation),
                mask: sliding_mask.as_ref().filter(|_| layer.slides).unwrap_or(&mask),
                query_factors: factors.as_ref(),
                rows,
                tokens,
                real: places.real,
            };
            x = block.forward(x, &context, memory.of(index), tape);
        }
        memory.keep_end(&x);
        let x = self.norm.forward(x);
        match places.real {
            Some(real) => real.spread(x),
            None => x,
        }
    }

    /// Vocabulary logits of hidden states, for the `columns` of the vocabulary only where given: these in f32 at least.
    ///
    /// # Shapes
    /// - hidden: `[n, hidden]`; output `[n, columns or vocab]`
    pub fn head(&self, hidden: Tensor<2>, columns: Option<&Tensor<1, Int>>, tape: &mut Tape) -> Tensor<2> {
        let logits = self.head.forward_with(self.head_weight(columns), hidden, columns, tape);
        let divisor = self.config.scales.logit_divisor;
        let logits = if divisor == 1.0 { logits } else { logits.div_scalar(divisor) };
        match self.config.scales.logit_cap {
            Some(cap) => soft_cap(logits, cap),
            None => logits,
        }
    }

    /// The weights with which some of the vocabulary's logits are linear in the hidden state, the head's adapter included,
    /// `[columns, hidden]`; `None` where logits are capped.
    pub(super) fn head_rows(&self, columns: &Tensor<1, Int>) -> Option<Tensor<2>> {
        if self.config.scales.logit_cap.is_some() {
            return None;
        }
        let rows = self.head_weight(Some(columns)).transpose();
        let rows = match &self.head.adapter {
            None => rows,
            Some(adapter) => {
                let update = adapter.b.val().select(0, columns.clone()).matmul(adapter.a.val());
                rows.cast(update.dtype()) + update.mul_scalar(adapter.scale)
            }
        };
        let divisor = self.config.scales.logit_divisor;
        let wide = at_least_f32(rows.dtype());
        Some(if divisor == 1.0 { rows } else { rows.cast(wide).div_scalar(divisor) })
    }

    fn table_path(&self) -> String {
        format!("{}{EMBEDDING}", root(self.config.inside))
    }

    fn norms(&self) -> impl Iterator<Item = &Norm> {
        self.blocks.iter().flat_map(Block::norms).chain([&self.norm])
    }

    /// True if a graph goes through the head's own weights.
    pub(super) fn head_is_differentiated(&self) -> bool {
        self.head.adapter.is_some() || self.head_weight(None).is_tracked()
    }

    /// `[hidden, columns or vocab]`. Columns are taken from the tensor as it lies: to take them from a transposed one copies all of it.
    pub(super) fn head_weight(&self, columns: Option<&Tensor<1, Int>>) -> Tensor<2> {
        match (self.head.is_tied, columns) {
            (true, None) => self.embedding.weight.val().transpose(),
            (true, Some(index)) => self.embedding.weight.val().select(0, index.clone()).transpose(),
            (false, None) => self.head.weight.val(),
            (false, Some(index)) => self.head.weight.val().select(1, index.clone()),
        }
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
        let norms = self.norms().map(|norm| (norm.path.clone(), PartWeight::Vector(norm.gains.val())));
        let table = (self.table_path(), PartWeight::Table(self.embedding.weight.val()));
        let all = [table].into_iter().chain(norms);
        all.map(|(path, weight)| BasePart { replaced: self.replaced.contains(&path), path, weight }).collect()
    }

    /// With another number of rows in the embedding, the vocabulary has another size.
    fn set_part(&mut self, part: BasePart) -> bool {
        let BasePart { path, weight, replaced } = part;
        match weight {
            PartWeight::Table(table) if path == self.table_path() => {
                self.config.vocab_size = table.dims()[0];
                self.embedding.weight = Param::from_tensor(table).set_require_grad(false);
            }
            PartWeight::Vector(gains) => {
                let mut norms = self.blocks.iter_mut().flat_map(Block::norms_mut).chain([&mut self.norm]);
                match norms.find(|norm| norm.path == path) {
                    Some(norm) => norm.gains = Param::from_tensor(gains).set_require_grad(false),
                    None => return false,
                }
            }
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
