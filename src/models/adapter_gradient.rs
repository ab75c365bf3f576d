//! Differentiates a decoder of which the adapters alone train, by its own backward pass ([`PullBack`]) in place of a graph.
//!
//! The loss and the output head are differentiated automatically, from a leaf at the last layer's output down; the layers pull the gradient
//! there back. With the activations of all layers that is a forward and a backward pass. With those of one layer at a time
//! ([`Activations::OneLayer`]) a layer is computed again from its input when its turn comes, by the same operations, so that the gradients
//! are the same bits.

use super::{
    block::Block,
    by_layers::{leaf, n_trained},
    causal_lm::CausalLm,
    classifier::Activations,
    layer_values::{BlockValues, Memory},
    pull_back::PullBack,
    token_batch::TokenBatch,
};
use crate::error::Result;
use crate::lora::trained_matrices;
use crate::tape::{Site, SiteGradient, Tape};
use burn::module::{Module, ParamId};
use burn::optim::{GradientsAccumulator, GradientsParams};
use burn::tensor::Tensor;
use std::collections::BTreeMap;

/// What a layer's backward pass starts from.
enum Start {
    Values(BlockValues),
    Input(Tensor<2>),
}

impl CausalLm {
    /// The gradient of a loss of the final hidden states with respect to everything in `model`, of which this is a part, that trains. `None`
    /// where a graph of all layers is to be differentiated.
    ///
    /// # Shapes
    /// - the loss gets `[rows · tokens, hidden]`
    ///
    /// # Errors
    /// Those of `loss`.
    pub(super) fn gradient<M: Module>(
        &self,
        model: &M,
        batch: &TokenBatch,
        tape: &mut Tape,
        held: Activations,
        loss: impl FnOnce(Tensor<2>, &mut Tape) -> Result<Tensor<1>>,
    ) -> Result<Option<GradientsParams>> {
        let of_adapters = trained_matrices(self).into_iter().filter(|matrix| matrix.param.val().is_require_grad());
        if of_adapters.count() == n_trained(self) && self.adapters_train_whole() {
            return self.adapter_gradient(model, batch, tape, held, loss).map(Some);
        }
        match held {
            Activations::AllLayers => Ok(None),
            Activations::OneLayer => self.gradient_by_layers(model, batch, tape, loss).map(Some),
        }
    }

    /// True if no adapter has one matrix alone that trains: the backward pass gives both.
    fn adapters_train_whole(&self) -> bool {
        let layers = self.blocks.iter().flat_map(Block::linears);
        layers.filter_map(|linear| linear.adapter.as_ref()).all(|adapter| {
            let [a, b] = [&adapter.a, &adapter.b].map(|matrix| matrix.val().is_require_grad());
            a && b
        })
    }

    fn adapter_gradient<M: Module>(
        &self,
        model: &M,
        batch: &TokenBatch,
        tape: &mut Tape,
        held: Activations,
        loss: impl FnOnce(Tensor<2>, &mut Tape) -> Result<Tensor<1>>,
    ) -> Result<GradientsParams> {
        let plain = self.valid();
        let has_adapter = |block: &Block| block.linears().any(|linear| linear.adapter.is_some());
        let lowest = plain.blocks.iter().position(has_adapter).unwrap_or(plain.blocks.len());
        self.in_places(batch, false, tape, |places, tape| {
            let contexts = self.contexts(batch, places);
            let mut x = plain.embedded(batch.ids.clone(), places);
            let mut starts = Vec::with_capacity(plain.blocks.len() - lowest);
            tape.keep_inputs(held == Activations::AllLayers);
            for (index, block) in plain.blocks.iter().enumerate() {
                let (input, mut values) = (x.clone(), BlockValues::default());
                let keeps = index >= lowest && held == Activations::AllLayers;
                let memory = if keeps { Memory::Values(&mut values) } else { Memory::Nothing };
                x = block.forward(x, &contexts.of(index), memory, tape);
                if index >= lowest {
                    starts.push(if keeps { Start::Values(values) } else { Start::Input(input) });
                }
            }
            tape.keep_inputs(false);

            let end = leaf(x);
            let mut gradients = loss(self.ended(end.clone(), places), tape)?.backward();
            let at_end = end.grad_remove(&mut gradients);
            let mut sum = GradientsAccumulator::new();
            sum.accumulate(model, GradientsParams::from_grads(gradients, model));
            let Some(mut g) = at_end else { return Ok(sum.grads()) };

            let ids: BTreeMap<_, _> = trained_matrices(self).into_iter().map(|of| (of.site, of.param.id)).collect();
            let mut of_layers = GradientsParams::new();
            let mut pull = PullBack::new(1, tape);
            for (start, (index, block)) in starts.into_iter().zip(plain.blocks.iter().enumerate().skip(lowest)).rev() {
                let values = match start {
                    Start::Values(values) => values,
                    Start::Input(input) => {
                        let mut values = BlockValues::default();
                        pull.tape().keep_inputs(true);
                        block.forward(input, &contexts.of(index), Memory::Values(&mut values), pull.tape());
                        pull.tape().keep_inputs(false);
                        values
                    }
                };
                g = pull.block(block, values, g)?;
                if has_adapter(block) {
                    pull.sites()?.into_iter().for_each(|site| register(&mut of_layers, &ids, site));
                }
            }
            sum.accumulate(model, of_layers);
            Ok(sum.grads())
        })
    }
}

/// `Gᵀ·X` of a matrix with inputs X and gradients G at its outputs.
fn register(
    gradients: &mut GradientsParams,
    ids: &BTreeMap<Site, ParamId>,
    SiteGradient { site, input, gradient, .. }: SiteGradient,
) {
    if let Some(id) = ids.get(&site) {
        gradients.register(*id, gradient.transpose().matmul(input));
    }
}
