//! Leaves all tokens but those whose final states are read out of the last layer, behind its attention.

use super::distinct_tokens::DistinctTokens;
use crate::lora::LoraLinear;
use crate::tape::Tape;
use burn::tensor::{IndexingUpdateOp, Int, Tensor};

/// Tokens whose final states are read; one may be read several times.
#[derive(Debug, Clone)]
pub(super) struct ReadTokens {
    /// Of all places of the batch.
    in_batch: Index,
    /// Of the tokens that go through the layers.
    in_layers: Index,
    /// The others are left out within the last layer, and else behind it.
    pub(super) in_last_layer: bool,
}

/// Some of `of` rows.
#[derive(Debug, Clone)]
struct Index {
    rows: Tensor<1, Int>,
    of: usize,
}

impl ReadTokens {
    /// Those at `places`, of as many as a batch has; `distinct` where not all of them go through the layers.
    ///
    /// The others are left out within the last layer, unless somebody looks at them in its linears `behind_attention`: what linears with
    /// adapters see is recorded, or disturbed token by token.
    pub(super) fn new<'a>(
        (places, n_places): (Tensor<1, Int>, usize),
        distinct: Option<&DistinctTokens>,
        behind_attention: impl Iterator<Item = &'a LoraLinear>,
        tape: &Tape,
    ) -> Self {
        let in_batch = Index { rows: places, of: n_places };
        let in_layers = match distinct {
            Some(distinct) => Index { rows: distinct.indices_of(in_batch.rows.clone()), of: distinct.count() },
            None => in_batch.clone(),
        };
        let mut adapters = behind_attention.filter_map(|linear| linear.adapter.as_ref());
        let in_last_layer =
            in_layers.rows.dims()[0] < in_layers.of && adapters.all(|adapter| tape.is_still(adapter.dropout));
        Self { in_batch, in_layers, in_last_layer }
    }

    /// From `[rows · tokens, width]`.
    pub(super) fn pick_from_batch(&self, x: Tensor<2>) -> Tensor<2> {
        self.in_batch.pick(x)
    }

    /// From the tokens that go through the layers.
    pub(super) fn pick_from_layers(&self, x: Tensor<2>) -> Tensor<2> {
        self.in_layers.pick(x)
    }

    /// What [`ReadTokens::pick_from_batch`] pulls K cotangents back by.
    pub(super) fn spread_in_batch(&self, g: Tensor<2>, copies: usize) -> Tensor<2> {
        self.in_batch.spread(g, copies)
    }

    /// What [`ReadTokens::pick_from_layers`] pulls K cotangents back by.
    pub(super) fn spread_in_layers(&self, g: Tensor<2>, copies: usize) -> Tensor<2> {
        self.in_layers.spread(g, copies)
    }
}

impl Index {
    fn pick(&self, x: Tensor<2>) -> Tensor<2> {
        x.select(0, self.rows.clone())
    }

    /// # Shapes
    /// - g: `[K · rows, width]`, output `[K · of, width]`
    fn spread(&self, g: Tensor<2>, copies: usize) -> Tensor<2> {
        let rows = (0..copies).map(|copy| self.rows.clone().add_scalar((copy * self.of) as i64)).collect();
        let zeros = Tensor::zeros([copies * self.of, g.dims()[1]], (&g.device(), g.dtype()));
        zeros.select_assign(0, Tensor::cat(rows, 0), g, IndexingUpdateOp::Add)
    }
}
