//! An encoder: embeddings, layers, and what pools them.

use super::config::{EncoderConfig, EncoderFamily, Pooling};
use super::layer::{Context, Layer, Norm, Pooler};
use super::names::HEAD;
use crate::error::Result;
use crate::lora::{Adaptable, LoraLinear};
use crate::memory::Activations;
use crate::models::language_model::{HeadForm, LanguageModel};
use crate::models::read_tokens::ReadTokens;
use crate::models::rope::{Places, Rotation};
use crate::models::token_batch::TokenBatch;
use crate::tape::Tape;
use burn::module::Module;
use burn::nn::Embedding;
use burn::optim::GradientsParams;
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

/// What the layers need to know of a batch.
pub(super) struct Contexts<'a> {
    /// Of layers whose tokens see everything.
    far: Context<'a>,
    /// Of layers whose tokens see their neighbours only.
    near: Context<'a>,
    /// Which these are; none where the family has no such layers.
    slides: &'a [bool],
    n_layers: usize,
    /// Which tokens are read behind the last layer; all where there are none.
    read: Option<&'a ReadTokens>,
}

impl<'a> Contexts<'a> {
    /// What the layer at `index` needs to know.
    pub(super) fn of(&self, index: usize) -> Context<'a> {
        let of_kind = if self.slides.get(index) == Some(&true) { self.near } else { self.far };
        let read = self.read.filter(|read| read.in_last_layer && index + 1 == self.n_layers);
        Context { read, ..of_kind }
    }

    /// Tokens that are read, where the others are left out behind the layers.
    fn read_behind_layers(&self) -> Option<&'a ReadTokens> {
        self.read.filter(|read| !read.in_last_layer)
    }
}

impl Encoder {
    /// The model's shape.
    pub fn config(&self) -> &EncoderConfig {
        &self.config
    }

    /// Words, positions and kinds of tokens, `[rows · tokens, hidden]`.
    pub(super) fn embedded(&self, batch: &TokenBatch) -> Tensor<2> {
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

    /// What the last layer gives, after the last norm, at every token that is read.
    pub(super) fn ended(&self, x: Tensor<2>, contexts: &Contexts) -> Tensor<2> {
        let x = match contexts.read_behind_layers() {
            Some(read) => read.pick_from_layers(x),
            None => x,
        };
        match &self.final_norm {
            Some(norm) => norm.forward(x),
            None => x,
        }
    }

    /// The tokens that [`Encoder::pool`] reads; all where there are none.
    pub(super) fn pooled_tokens(&self, batch: &TokenBatch, tape: &Tape) -> Option<ReadTokens> {
        let last = self.layers.last().into_iter().flat_map(Layer::linears_behind_attention);
        let places = || (batch.first.clone(), batch.mask.len());
        (!self.averages()).then(|| ReadTokens::new(places(), None, last, tape))
    }

    /// Says what the layers need to know of a batch of which all tokens are read, or some.
    pub(super) fn in_contexts<T>(
        &self,
        batch: &TokenBatch,
        read: Option<&ReadTokens>,
        pass: impl FnOnce(&Contexts) -> T,
    ) -> T {
        let [rows, tokens] = batch.ids.dims();
        let weight = self.words.weight.val();
        let (device, dtype, lengths) = (weight.device().without_autodiff(), weight.dtype(), batch.lengths());
        let mask = batch.padding_mask(dtype, None);
        let plain = Context { rotation: None, mask: &mask, read: None, rows, tokens };
        let n_layers = self.layers.len();
        let EncoderFamily::ModernBert(modern) = &self.config.family else {
            return pass(&Contexts { far: plain, near: plain, slides: &[], n_layers, read });
        };
        let positions = batch.positions.as_ref();
        let device = &device;
        let (first, span, lengths, distinct) = (0, tokens, &lengths, None);
        let places = Places { tokens, first, span, positions, lengths, distinct, read: None, device, dtype };
        let rotations = [&modern.rope, &modern.sliding_rope]
            .map(|(theta, scaling)| Rotation::new(*theta, scaling, self.config.head_dim(), &places));
        // a window as wide as the batch hides nothing
        let near_mask = (modern.reach + 1 < tokens).then(|| batch.padding_mask(dtype, Some(modern.reach)));
        let far = Context { rotation: Some(&rotations[0]), ..plain };
        let near = Context { rotation: Some(&rotations[1]), mask: near_mask.as_ref().unwrap_or(&mask), ..plain };
        pass(&Contexts { far, near, slides: &modern.slides, n_layers, read })
    }

    /// Final hidden states, `[rows · tokens, hidden]` or of tokens that are read.
    fn run(&self, batch: &TokenBatch, read: Option<&ReadTokens>, tape: &mut Tape) -> Tensor<2> {
        self.in_contexts(batch, read, |contexts| {
            let layers = self.layers.iter().enumerate();
            let end =
                layers.fold(self.embedded(batch), |x, (index, layer)| layer.forward(x, &contexts.of(index), tape));
            self.ended(end, contexts)
        })
    }

    /// One vector a row, from the final hidden states that are read for it.
    fn pool(&self, hidden: Tensor<2>, batch: &TokenBatch, tape: &mut Tape) -> Tensor<2> {
        let one = match self.averages() {
            true => {
                let [rows, tokens] = batch.ids.dims();
                let width = self.config.hidden_size;
                let shares = batch.token_shares(hidden.dtype()).reshape([rows, 1, tokens]);
                shares.matmul(hidden.reshape([rows, tokens, width])).reshape([rows, width])
            }
            false => hidden,
        };
        match &self.pooler {
            Some(pooler) => pooler.forward(one, tape),
            None => one,
        }
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
        self.run(batch, None, tape)
    }

    fn pooled(&self, batch: &TokenBatch, tape: &mut Tape) -> Tensor<2> {
        let hidden = self.run(batch, self.pooled_tokens(batch, tape).as_ref(), tape);
        self.pool(hidden, batch, tape)
    }

    fn pooled_gradient<M: Module>(
        &self,
        model: &M,
        batch: &TokenBatch,
        tape: &mut Tape,
        by_layers: bool,
        loss: &mut dyn FnMut(Tensor<2>, &mut Tape) -> Result<Tensor<1>>,
    ) -> Result<Option<GradientsParams>> {
        if !by_layers {
            return Ok(None);
        }
        let loss = |hidden: Tensor<2>, tape: &mut Tape| {
            let pooled = self.pool(hidden, batch, tape);
            loss(pooled, tape)
        };
        self.gradient_by_layers(model, batch, tape, loss).map(Some)
    }

    fn activations(&self, rows: usize, tokens: usize) -> Option<Activations> {
        Some(self.config.activations(rows, tokens, self.words.weight.val().dtype().size()))
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
