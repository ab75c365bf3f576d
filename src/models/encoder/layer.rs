//! One layer of an encoder: attention in both directions and a feed-forward network, each with a norm and a residual connection.

use crate::lora::{LoraLinear, at_least_f32};
use crate::models::activation::{GateActivation, softmax};
use crate::models::projections::Projections;
use crate::models::read_tokens::ReadTokens;
use crate::models::rope::Rotation;
use crate::tape::Tape;
use burn::module::{Module, Param};
use burn::tensor::Tensor;

/// `(x − mean x) / √(var x + ε) · γ + β` over the last dimension, in f32 at least.
#[derive(Module, Debug)]
pub(super) struct Norm {
    pub(super) gamma: Param<Tensor<1>>,
    pub(super) beta: Option<Param<Tensor<1>>>,
    #[module(skip)]
    pub(super) eps: f64,
}

impl Norm {
    pub(super) fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let dtype = x.dtype();
        let wide = at_least_f32(dtype);
        let x = x.cast(wide);
        let centred = x.clone() - x.mean_dim(1);
        let deviation = (centred.clone().square().mean_dim(1) + self.eps).sqrt();
        let scaled = centred / deviation * self.gamma.val().cast(wide).unsqueeze();
        match &self.beta {
            Some(beta) => (scaled + beta.val().cast(wide).unsqueeze()).cast(dtype),
            None => scaled.cast(dtype),
        }
    }
}

/// Where the norms of a layer are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NormPlace {
    /// On the sum of input and output.
    OnSums,
    /// On the input.
    Before,
}

/// A layer. Linears that the family has fused are one linear.
#[derive(Module, Debug)]
pub(super) struct Layer {
    /// Query, key and value.
    pub(super) inputs: Projections,
    pub(super) attention_output: LoraLinear,
    /// What is activated, and where the network is gated what that is multiplied by.
    pub(super) inner: Projections,
    pub(super) output: LoraLinear,
    /// Of attention and of the feed-forward network.
    pub(super) norms: [Option<Norm>; 2],
    #[module(skip)]
    pub(super) norm_place: NormPlace,
    #[module(skip)]
    pub(super) activation: GateActivation,
    #[module(skip)]
    pub(super) gated: bool,
    #[module(skip)]
    pub(super) head_dim: usize,
}

/// What a layer needs to know of a batch.
#[derive(Clone, Copy)]
pub(super) struct Context<'a> {
    /// Of queries and keys; `None` where a table tells the positions.
    pub(super) rotation: Option<&'a Rotation>,
    /// `[rows, 1, 1 or tokens, tokens]`: 0 where a token may look, a large negative number elsewhere.
    pub(super) mask: &'a Tensor<4>,
    /// Where all but these are left out behind attention.
    pub(super) read: Option<&'a ReadTokens>,
    pub(super) rows: usize,
    pub(super) tokens: usize,
}

impl Context<'_> {
    /// What goes on behind attention, of `[rows · tokens, width]`.
    fn read_from(&self, x: Tensor<2>) -> Tensor<2> {
        match self.read {
            Some(read) => read.pick_from_layers(x),
            None => x,
        }
    }
}

impl Layer {
    /// # Shapes
    /// - x: `[rows · tokens, hidden]`, output the same, or tokens that are read.
    pub(super) fn forward(&self, x: Tensor<2>, context: &Context, tape: &mut Tape) -> Tensor<2> {
        let [of_attention, of_mlp] = &self.norms;
        match self.norm_place {
            NormPlace::OnSums => {
                let attended = self.attend(x.clone(), context, tape);
                let x = normed(of_attention, context.read_from(x) + attended);
                normed(of_mlp, x.clone() + self.feed_forward(x, tape))
            }
            NormPlace::Before => {
                let attended = self.attend(normed(of_attention, x.clone()), context, tape);
                let x = context.read_from(x) + attended;
                x.clone() + self.feed_forward(normed(of_mlp, x), tape)
            }
        }
    }

    fn attend(&self, x: Tensor<2>, context: &Context, tape: &mut Tape) -> Tensor<2> {
        let (rows, tokens, dim) = (context.rows, context.tokens, self.head_dim);
        let width = x.dims()[1];
        let heads = |y: Tensor<2>| y.reshape([rows, tokens, width / dim, dim]).swap_dims(1, 2);
        let turned = |y: Tensor<2>| match context.rotation {
            Some(rotation) => rotation.apply(heads(y)),
            None => heads(y),
        };
        let [query, key, value] = self.inputs.forward(x, tape);
        let query = turned(query).mul_scalar(1.0 / (dim as f64).sqrt());
        let weights = softmax(query.matmul(turned(key).swap_dims(2, 3)) + context.mask.clone());
        let mixed = weights.matmul(heads(value)).swap_dims(1, 2).reshape([rows * tokens, width]);
        self.attention_output.forward(context.read_from(mixed), tape)
    }

    fn feed_forward(&self, x: Tensor<2>, tape: &mut Tape) -> Tensor<2> {
        let inner = match self.gated {
            true => {
                let [activated, gate] = self.inner.forward(x, tape);
                self.activation.of(activated) * gate
            }
            false => {
                let [activated] = self.inner.forward(x, tape);
                self.activation.of(activated)
            }
        };
        self.output.forward(inner, tape)
    }

    pub(super) fn linears(&self) -> impl Iterator<Item = &LoraLinear> {
        self.inputs.linears.iter().chain(self.linears_behind_attention())
    }

    /// The linears behind attention, of which each token's output is its own.
    pub(super) fn linears_behind_attention(&self) -> impl Iterator<Item = &LoraLinear> {
        [&self.attention_output].into_iter().chain(&self.inner.linears).chain([&self.output])
    }

    pub(super) fn linears_mut(&mut self) -> impl Iterator<Item = &mut LoraLinear> {
        let attention = self.inputs.linears.iter_mut().chain([&mut self.attention_output]);
        attention.chain(&mut self.inner.linears).chain([&mut self.output])
    }
}

fn normed(norm: &Option<Norm>, x: Tensor<2>) -> Tensor<2> {
    match norm {
        Some(norm) => norm.forward(x),
        None => x,
    }
}

/// The layer between what stands for a row and its classifier.
#[derive(Module, Debug)]
pub(super) struct Pooler {
    pub(super) dense: LoraLinear,
    /// `None` is tanh.
    #[module(skip)]
    pub(super) activation: Option<GateActivation>,
    pub(super) norm: Option<Norm>,
}

impl Pooler {
    /// # Shapes
    /// - x: `[rows, hidden]`, output the same.
    pub(super) fn forward(&self, x: Tensor<2>, tape: &mut Tape) -> Tensor<2> {
        let y = self.dense.forward(x, tape);
        let y = match self.activation {
            Some(activation) => activation.of(y),
            None => y.tanh(),
        };
        normed(&self.norm, y)
    }
}
