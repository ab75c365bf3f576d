//! Attends causally with grouped query heads.

use super::{activation::softmax, config::DecoderConfig, rope::Rotation};
use crate::lora::LoraLinear;
use crate::tape::Tape;
use burn::module::Module;
use burn::tensor::Tensor;

/// Grouped-query attention: several query heads share one key and value head.
#[derive(Module, Debug)]
pub(super) struct Attention {
    pub(super) q_proj: LoraLinear,
    pub(super) k_proj: LoraLinear,
    pub(super) v_proj: LoraLinear,
    pub(super) o_proj: LoraLinear,
    #[module(skip)]
    n_kv_heads: usize,
    #[module(skip)]
    head_dim: usize,
}

/// What all blocks share for one batch.
#[derive(Debug, Clone)]
pub(super) struct Context {
    pub(super) rotation: Rotation,
    /// `[rows or 1, 1, tokens, tokens]`: 0 where a query may see a key, a large negative number elsewhere.
    pub(super) mask: Tensor<4>,
    pub(super) rows: usize,
    pub(super) tokens: usize,
}

impl Attention {
    pub(super) fn new(config: &DecoderConfig, [q, k, v, o]: [LoraLinear; 4]) -> Self {
        Self { q_proj: q, k_proj: k, v_proj: v, o_proj: o, n_kv_heads: config.n_kv_heads, head_dim: config.head_dim }
    }

    /// # Shapes
    /// - x: `[rows · tokens, hidden]`, output the same.
    pub(super) fn forward(&self, x: Tensor<2>, context: &Context, tape: &mut Tape) -> Tensor<2> {
        let (rows, tokens, dim) = (context.rows, context.tokens, self.head_dim);
        let heads = |y: Tensor<2>| {
            let n = y.dims()[1] / dim;
            y.reshape([rows, tokens, n, dim]).swap_dims(1, 2)
        };
        let q = context.rotation.apply(heads(self.q_proj.forward(x.clone(), tape)));
        let k = context.rotation.apply(heads(self.k_proj.forward(x.clone(), tape)));
        let v = heads(self.v_proj.forward(x, tape));
        let (n_kv, n_heads) = (self.n_kv_heads, q.dims()[1]);
        // the query heads of a group lie next to each other: stack them along the tokens of their key head
        let grouped = [rows, n_kv, n_heads / n_kv * tokens, dim];
        let q = q.mul_scalar(1.0 / (dim as f64).sqrt()).reshape(grouped);
        let scores = q.matmul(k.swap_dims(2, 3)).reshape([rows, n_heads, tokens, tokens]);
        let weights = softmax(scores + context.mask.clone());
        let weights = weights.reshape([rows, n_kv, n_heads / n_kv * tokens, tokens]);
        let mixed = weights.matmul(v).reshape([rows, n_heads, tokens, dim]);
        let mixed = mixed.swap_dims(1, 2).reshape([rows * tokens, n_heads * dim]);
        self.o_proj.forward(mixed, tape)
    }
}
