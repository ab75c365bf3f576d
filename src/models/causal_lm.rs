//! A decoder-only language model: embedding, blocks, final norm, output head.

use super::{
    activation::soft_cap,
    block::Block,
    config::DecoderConfig,
    distinct_tokens::DistinctTokens,
    language_model::{HeadForm, LanguageModel},
    layer_contexts::LayerContexts,
    layer_values::PassMemory,
    names::{EMBEDDING, SCORE, root},
    norm::Norm,
    read_tokens::ReadTokens,
    rope::Places,
    rope_scaling::RopeScaling,
    seen_prefix::SeenPrefix,
    token_batch::TokenBatch,
};
use crate::error::Result;
use crate::lora::{Adaptable, BasePart, LoraLinear, PartWeight, at_least_f32};
use crate::memory::Activations;
use crate::tape::Tape;
use burn::module::{Module, Param};
use burn::nn::Embedding;
use burn::optim::GradientsParams;
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
        self.hidden_of(batch, None, tape)
    }

    /// Final hidden states of the tokens at some places of `[rows · tokens]`. The last layer computes no others where it need not.
    ///
    /// # Shapes
    /// - read: `[n]`, output `[n, hidden]`
    pub(super) fn hidden_at(&self, batch: &TokenBatch, read: &Tensor<1, Int>, tape: &mut Tape) -> Tensor<2> {
        self.hidden_of(batch, Some(read), tape)
    }

    fn hidden_of(&self, batch: &TokenBatch, read: Option<&Tensor<1, Int>>, tape: &mut Tape) -> Tensor<2> {
        self.in_places(batch, read, tape, |places, tape| {
            let memory = batch.seen().map_or(PassMemory::Nothing, PassMemory::Seen);
            self.run(batch.ids.clone(), places, &self.contexts(batch, places), memory, tape)
        })
    }

    /// Says where the tokens of a batch are: in its own layout where values are read token by token, else without pads and what is repeated;
    /// and which of them are read.
    pub(super) fn in_places<T>(
        &self,
        batch: &TokenBatch,
        read: Option<&Tensor<1, Int>>,
        tape: &mut Tape,
        pass: impl FnOnce(&Places, &mut Tape) -> T,
    ) -> T {
        let tokens = batch.ids.dims()[1];
        let table = self.embedding.weight.val();
        let (device, dtype, lengths) = (table.device().without_autodiff(), table.dtype(), batch.lengths());
        let positions = batch.positions.as_ref();
        let distinct = if tape.reads_tokens() { None } else { batch.distinct_tokens(self.may_coincide(tape)) };
        let distinct = distinct.as_ref();
        let read = read.map(|read| self.read_tokens((read, batch.mask.len()), distinct, tape));
        let read = read.as_ref();
        pass(
            &Places {
                tokens,
                first: batch.n_seen(),
                span: tokens,
                positions,
                lengths: &lengths,
                distinct,
                read,
                device: &device,
                dtype,
            },
            tape,
        )
    }

    /// True if tokens that begin rows alike have the same states: their rotations do not depend on the rows' lengths, and no adapter
    /// disturbs one otherwise than the other.
    fn may_coincide(&self, tape: &Tape) -> bool {
        let mut adapters = self.linears().into_iter().filter_map(|linear| linear.adapter.as_ref());
        !self.rotates_by_length() && adapters.all(|adapter| tape.is_still(adapter.dropout))
    }

    /// Tokens to be read, at some of so many places.
    pub(super) fn read_tokens(
        &self,
        places: (&Tensor<1, Int>, usize),
        distinct: Option<&DistinctTokens>,
        tape: &Tape,
    ) -> ReadTokens {
        let last = self.blocks.last().into_iter().flat_map(Block::linears_behind_attention);
        ReadTokens::new((places.0.clone(), places.1), distinct, last, tape)
    }

    /// What the layers need to know of a batch.
    pub(super) fn contexts<'a>(&'a self, batch: &TokenBatch, places: &'a Places<'a>) -> LayerContexts<'a> {
        let mask = |window| batch.attention_mask(places.dtype, window);
        LayerContexts::new(&self.config, places, batch.ids.dims()[0], mask)
    }

    /// Final hidden states of tokens that may stand behind those of caches: of those that are read, or of all.
    ///
    /// # Shapes
    /// - ids: `[rows, tokens]`; output `[n or rows · tokens, hidden]`
    pub(super) fn run(
        &self,
        ids: Tensor<2, Int>,
        places: &Places,
        contexts: &LayerContexts,
        mut memory: PassMemory,
        tape: &mut Tape,
    ) -> Tensor<2> {
        let mut x = self.embedded(ids, places);
        for (index, block) in self.blocks.iter().enumerate() {
            x = block.forward(x, &contexts.of(index), memory.of(index), tape);
        }
        self.ended(x, places)
    }

    /// What the first layer reads, `[rows · tokens, hidden]` or of distinct tokens.
    pub(super) fn embedded(&self, ids: Tensor<2, Int>, places: &Places) -> Tensor<2> {
        let [rows, tokens] = ids.dims();
        let x = self.embedding.forward(ids).reshape([rows * tokens, self.config.hidden_size]);
        let x = match places.distinct {
            Some(distinct) => distinct.pick(x),
            None => x,
        };
        match self.config.scales.embedding {
            1.0 => x,
            scale => x.mul_scalar(scale),
        }
    }

    /// What is read of what the last layer gives.
    pub(super) fn read(&self, x: Tensor<2>, places: &Places) -> Tensor<2> {
        match places.read_behind_layers() {
            Some(read) => read.pick_from_layers(x),
            None => x,
        }
    }

    /// What the last layer gives, after the last norm, at every token that is read.
    pub(super) fn ended(&self, x: Tensor<2>, places: &Places) -> Tensor<2> {
        let x = self.norm.forward(self.read(x, places));
        match places.distinct.filter(|_| places.read.is_none()) {
            Some(distinct) => distinct.spread(x),
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

    /// Bytes of an element of the activations.
    pub(super) fn element_bytes(&self) -> usize {
        self.embedding.weight.val().dtype().size()
    }

    /// True if a token's rotation depends on the length of its row, so that rows of several texts are not those of each alone.
    pub(super) fn rotates_by_length(&self) -> bool {
        let scalings = [Some(&self.config.rope_scaling), self.config.sliding_rope.as_ref().map(|(_, scaling)| scaling)];
        scalings.into_iter().flatten().any(|scaling| matches!(scaling, RopeScaling::LongRope { .. }))
    }

    fn table_path(&self) -> String {
        format!("{}{EMBEDDING}", root(self.config.inside))
    }

    fn norms(&self) -> impl Iterator<Item = &Norm> {
        self.blocks.iter().flat_map(Block::norms).chain([&self.norm])
    }

    /// True if a graph goes through the head's own weights.
    pub(super) fn head_is_differentiated(&self) -> bool {
        let is_tracked = |matrix: &Param<Tensor<2>>| matrix.val().is_tracked();
        self.head.adapter.as_ref().is_some_and(|adapter| is_tracked(&adapter.a) || is_tracked(&adapter.b))
            || self.head_weight(None).is_tracked()
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
        self.hidden_at(batch, &batch.last, tape)
    }

    fn pooled_gradient<M: Module>(
        &self,
        model: &M,
        batch: &TokenBatch,
        tape: &mut Tape,
        by_layers: bool,
        loss: &mut dyn FnMut(Tensor<2>, &mut Tape) -> Result<Tensor<1>>,
    ) -> Result<Option<GradientsParams>> {
        self.gradient(model, (batch, &batch.last), tape, by_layers, loss)
    }

    fn activations(&self, rows: usize, tokens: usize) -> Option<Activations> {
        let (shape, n_layers, bytes) = (self.config.layer_shape(), self.config.n_layers, self.element_bytes());
        Some(match self.trains_by_own_pass() {
            true => shape.of_pull_back((n_layers, 1), (rows, tokens), bytes),
            false => shape.of_graph(n_layers, (rows, tokens), bytes),
        })
    }

    fn see(&self, prefix: &[u32]) -> Result<Option<SeenPrefix>> {
        self.see_prefix(prefix)
    }

    fn head_form(&self) -> HeadForm {
        HeadForm { path: SCORE, has_bias: false }
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
