//! One layer of an encoder: attention in both directions and a feed-forward network, each followed by a norm of its sum with its input.

use super::config::EncoderConfig;
use crate::lora::LoraLinear;
use crate::models::activation::softmax;
use crate::tape::Tape;
use burn::module::{Module, Param};
use burn::tensor::{DType, Tensor, activation::gelu};

/// `(x − mean x) / √(var x + ε) · γ + β` over the last dimension, in f32 at least.
#[derive(Module, Debug)]
pub(super) struct Norm {
    pub(super) gamma: Param<Tensor<1>>,
    pub(super) beta: Param<Tensor<1>>,
    #[module(skip)]
    pub(super) eps: f64,
}

impl Norm {
    pub(super) fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let dtype = x.dtype();
        let wide = if dtype == DType::F64 { DType::F64 } else { DType::F32 };
        let x = x.cast(wide);
        let centred = x.clone() - x.mean_dim(1);
        let deviation = (centred.clone().square().mean_dim(1) + self.eps).sqrt();
        let scaled = centred / deviation * self.gamma.val().cast(wide).unsqueeze();
        (scaled + self.beta.val().cast(wide).unsqueeze()).cast(dtype)
    }
}

#[derive(Module, Debug)]
pub(super) struct Layer {
    pub(super) query: LoraLinear,
    pub(super) key: LoraLinear,
    pub(super) value: LoraLinear,
    pub(super) attention_output: LoraLinear,
    pub(super) attention_norm: Norm,
    pub(super) intermediate: LoraLinear,
    pub(super) output: LoraLinear,
    pub(super) output_norm: Norm,
    #[module(skip)]
    pub(super) head_dim: usize,
}

/// What all layers share for one batch.
pub(super) struct Context {
    /// `[rows, 1, 1, tokens]`: 0 at tokens, a large negative number at pads.
    pub(super) mask: Tensor<4>,
    pub(super) rows: usize,
    pub(super) tokens: usize,
}

impl Layer {
    /// # Shapes
    /// - x: `[rows · tokens, hidden]`, output the same.
    pub(super) fn forward(&self, x: Tensor<2>, context: &Context, tape: &mut Tape) -> Tensor<2> {
        let attended = self.attend(x.clone(), context, tape);
        let x = self.attention_norm.forward(x + self.attention_output.forward(attended, tape));
        let inner = gelu(self.intermediate.forward(x.clone(), tape));
        self.output_norm.forward(x + self.output.forward(inner, tape))
    }

    fn attend(&self, x: Tensor<2>, context: &Context, tape: &mut Tape) -> Tensor<2> {
        let Context { mask, rows, tokens } = context;
        let (rows, tokens, dim) = (*rows, *tokens, self.head_dim);
        let width = x.dims()[1];
        let heads = |y: Tensor<2>| y.reshape([rows, tokens, width / dim, dim]).swap_dims(1, 2);
        let query = heads(self.query.forward(x.clone(), tape)).mul_scalar(1.0 / (dim as f64).sqrt());
        let key = heads(self.key.forward(x.clone(), tape));
        let value = heads(self.value.forward(x, tape));
        let weights = softmax(query.matmul(key.swap_dims(2, 3)) + mask.clone());
        weights.matmul(value).swap_dims(1, 2).reshape([rows * tokens, width])
    }

    pub(super) fn linears(&self) -> [&LoraLinear; 6] {
        [&self.query, &self.key, &self.value, &self.attention_output, &self.intermediate, &self.output]
    }

    pub(super) fn linears_mut(&mut self) -> [&mut LoraLinear; 6] {
        [
            &mut self.query,
            &mut self.key,
            &mut self.value,
            &mut self.attention_output,
            &mut self.intermediate,
            &mut self.output,
        ]
    }
}

/// The linears of a layer under their names in Hugging Face's checkpoints, with the widths of input and output.
pub(super) fn linear_names(config: &EncoderConfig) -> [(&'static str, usize, usize); 6] {
    let (hidden, inner) = (config.hidden_size, config.intermediate_size);
    [
        ("attention.self.query", hidden, hidden),
        ("attention.self.key", hidden, hidden),
        ("attention.self.value", hidden, hidden),
        ("attention.output.dense", hidden, hidden),
        ("intermediate.dense", hidden, inner),
        ("output.dense", inner, hidden),
    ]
}
