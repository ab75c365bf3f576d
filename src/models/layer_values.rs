//! What a pass remembers of a decoder's layers beside their output.

use super::{
    distinct_tokens::DistinctTokens, kv_cache::LayerCache, read_tokens::ReadTokens, rope::Rotation,
    seen_prefix::SeenPrefix,
};
use burn::tensor::Tensor;

/// What a pass remembers, or has seen before, of all layers.
#[derive(Debug)]
pub(super) enum PassMemory<'a> {
    Nothing,
    Caches(&'a mut [LayerCache]),
    Seen(&'a SeenPrefix),
}

impl PassMemory<'_> {
    /// The part of the layer at `index`.
    pub(super) fn of(&mut self, index: usize) -> Memory<'_> {
        match self {
            Self::Nothing => Memory::Nothing,
            Self::Caches(layers) => layers.get_mut(index).map_or(Memory::Nothing, Memory::Cache),
            Self::Seen(prefix) => prefix.layers.get(index).map_or(Memory::Nothing, Memory::Seen),
        }
    }
}

/// What a pass remembers, or has seen before, of a layer.
#[derive(Debug)]
pub(super) enum Memory<'a> {
    Nothing,
    /// Keys and values, for tokens that come later.
    Cache(&'a mut LayerCache),
    /// Keys and values that stand before those of every row.
    Seen(&'a LayerCache),
    /// What the layer's backward pass needs.
    Values(&'a mut BlockValues),
}

impl Memory<'_> {
    /// Keeps values where they are kept; what they are is not made elsewhere.
    pub(super) fn keep(&mut self, keep: impl FnOnce(&mut BlockValues)) {
        if let Self::Values(values) = self {
            keep(values);
        }
    }
}

/// What a block's backward pass needs, `[rows · tokens, width]` each: the inputs of norms, and slopes. Behind attention it is of read
/// tokens alone, where there are such.
#[derive(Debug, Default)]
pub(super) struct BlockValues {
    /// The block's input.
    pub(super) start: Option<Tensor<2>>,
    pub(super) attention: AttentionValues,
    /// What attention gives, where a norm is behind it.
    pub(super) attended: Option<Tensor<2>>,
    /// The residual stream between attention and MLP.
    pub(super) middle: Option<Tensor<2>>,
    /// Derivatives of the activated gate times what it is multiplied by, by either.
    pub(super) gated_slopes: Option<[Tensor<2>; 2]>,
    /// What the MLP gives, where a norm is behind it.
    pub(super) down: Option<Tensor<2>>,
}

/// The inputs of what is not linear in attention.
#[derive(Debug, Default)]
pub(super) struct AttentionValues {
    /// Where pads and repeated tokens are left out of what is done token by token.
    pub(super) distinct: Option<DistinctTokens>,
    /// Where all but these are left out behind attention.
    pub(super) read: Option<ReadTokens>,
    pub(super) rotation: Option<Rotation>,
    pub(super) query_factors: Option<Tensor<4>>,
    /// Query and key before their norms, where they have some, `[rows · tokens, width]`.
    pub(super) projected: [Option<Tensor<2>>; 2],
    /// `[rows, key heads, query heads a key head · tokens, head_dim]`, scaled.
    pub(super) queries: Option<Tensor<4>>,
    /// `[rows, key heads, tokens, head_dim]`
    pub(super) keys: Option<Tensor<4>>,
    /// `[rows, key heads, tokens, head_dim]`
    pub(super) values: Option<Tensor<4>>,
    /// Scores after their cap where there is one, `[rows, heads, tokens, tokens]`.
    pub(super) capped: Option<Tensor<4>>,
    /// `[rows, key heads, query heads a key head · tokens, tokens]`
    pub(super) weights: Option<Tensor<4>>,
}
