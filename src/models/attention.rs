//! Attends causally with grouped query heads.

use super::{
    activation::{soft_cap, softmax},
    config::DecoderConfig,
    distinct_tokens::DistinctTokens,
    layer_values::Memory,
    norm::Norm,
    projections::Projections,
    read_tokens::ReadTokens,
    rope::Rotation,
};
use crate::lora::LoraLinear;
use crate::tape::Tape;
use burn::module::Module;
use burn::tensor::Tensor;

/// Grouped-query attention: several query heads share one key and value head.
#[derive(Module, Debug)]
pub(super) struct Attention {
    /// Query, key and value.
    pub(super) inputs: Projections,
    pub(super) o_proj: LoraLinear,
    pub(super) query_key_norms: [Option<Norm>; 2],
    #[module(skip)]
    pub(super) n_kv_heads: usize,
    #[module(skip)]
    pub(super) head_dim: usize,
    #[module(skip)]
    pub(super) score_scale: f64,
    #[module(skip)]
    pub(super) score_cap: Option<f64>,
}

/// What a block needs to know of a batch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Context<'a> {
    /// `None` in a layer that does not rotate.
    pub(super) rotation: Option<&'a Rotation>,
    /// `[rows or 1, 1, tokens, keys]`, keys being the tokens and those seen before: 0 where a query may see a key, a large negative number elsewhere.
    pub(super) mask: &'a Tensor<4>,
    /// Factors of the queries by their positions, `[rows or 1, 1, tokens, 1]`.
    pub(super) query_factors: Option<&'a Tensor<4>>,
    pub(super) rows: usize,
    pub(super) tokens: usize,
    /// Where pads and repeated tokens are left out of what is done token by token.
    pub(super) distinct: Option<&'a DistinctTokens>,
    /// Where all but these are left out behind attention.
    pub(super) read: Option<&'a ReadTokens>,
}

impl Attention {
    pub(super) fn new(
        config: &DecoderConfig,
        inputs: Projections,
        o_proj: LoraLinear,
        query_key_norms: [Option<Norm>; 2],
    ) -> Self {
        let (n_kv_heads, head_dim, score_cap) = (config.n_kv_heads, config.head_dim, config.scales.score_cap);
        let score_scale = config.scales.scores.unwrap_or(1.0 / (head_dim as f64).sqrt());
        Self { inputs, o_proj, query_key_norms, n_kv_heads, head_dim, score_scale, score_cap }
    }

    /// Of new tokens where a cache has the keys and values of those before them.
    ///
    /// # Shapes
    /// - x: `[rows · tokens, hidden]`, or of distinct tokens; output the same, or tokens that are read.
    pub(super) fn forward(&self, x: Tensor<2>, context: &Context, memory: &mut Memory, tape: &mut Tape) -> Tensor<2> {
        let (rows, tokens, dim) = (context.rows, context.tokens, self.head_dim);
        let heads = |y: Tensor<2>| {
            let n = y.dims()[1] / dim;
            let y = match context.distinct {
                Some(distinct) => distinct.spread(y),
                None => y,
            };
            y.reshape([rows, tokens, n, dim]).swap_dims(1, 2)
        };
        let turned = |y: Tensor<2>, norm: &Option<Norm>| {
            let y = match norm {
                Some(norm) => norm.by_group(y),
                None => y,
            };
            match context.rotation {
                Some(rotation) => rotation.apply(heads(y)),
                None => heads(y),
            }
        };
        let [q, k, v] = self.inputs.forward(x, tape);
        let [query_norm, key_norm] = &self.query_key_norms;
        memory.keep(|kept| {
            kept.attention.distinct = context.distinct.cloned();
            kept.attention.read = context.read.cloned();
            kept.attention.projected =
                [(query_norm, &q), (key_norm, &k)].map(|(norm, x)| norm.as_ref().map(|_| x.clone()));
            kept.attention.rotation = context.rotation.cloned();
            kept.attention.query_factors = context.query_factors.cloned();
        });
        let (mut q, k, v) = (turned(q, query_norm), turned(k, key_norm), heads(v));
        if let Some(factors) = context.query_factors {
            q = q * factors.clone();
        }
        let [k, v] = match memory {
            Memory::Cache(seen) => seen.extend([k, v]),
            Memory::Seen(seen) => seen.before([k, v]),
            Memory::Nothing | Memory::Values(_) => [k, v],
        };
        let (n_kv, n_heads, keys) = (self.n_kv_heads, q.dims()[1], k.dims()[2]);
        // the query heads of a group lie next to each other: stack them along the tokens of their key head
        let grouped = [rows, n_kv, n_heads / n_kv * tokens, dim];
        let q = q.mul_scalar(self.score_scale).reshape(grouped);
        memory.keep(|kept| {
            kept.attention.queries = Some(q.clone());
            kept.attention.keys = Some(k.clone());
            kept.attention.values = Some(v.clone());
        });
        let mut scores = q.matmul(k.swap_dims(2, 3)).reshape([rows, n_heads, tokens, keys]);
        if let Some(cap) = self.score_cap {
            scores = soft_cap(scores, cap);
            memory.keep(|kept| kept.attention.capped = Some(scores.clone()));
        }
        let weights = softmax(scores + context.mask.clone());
        let weights = weights.reshape([rows, n_kv, n_heads / n_kv * tokens, keys]);
        memory.keep(|kept| kept.attention.weights = Some(weights.clone()));
        let mixed = weights.matmul(v).reshape([rows, n_heads, tokens, dim]);
        let mixed = mixed.swap_dims(1, 2).reshape([rows * tokens, n_heads * dim]);
        let mixed = match (context.read, context.distinct) {
            (Some(read), _) => read.pick_from_batch(mixed),
            (None, Some(distinct)) => distinct.pick(mixed),
            (None, None) => mixed,
        };
        self.o_proj.forward(mixed, tape)
    }
}
