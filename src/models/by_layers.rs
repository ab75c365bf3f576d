//! Differentiates a decoder layer by layer, so that the graph of one layer exists at a time.
//!
//! A forward pass without a graph keeps each layer's input alone. Backwards, a layer is computed again from its input, now with a graph,
//! and hands the gradient at its input on to the layer below. That is a second forward pass, for the memory of one layer's activations and
//! all inputs in place of everybody's activations: `L·n·d + a` instead of `L·a`. Each operation is the one of the whole graph, so that the
//! gradients are the same bits. A layer's noise is a function of its tokens (`Tape::dropout`), and comes out the same twice.
//!
//! Chen et al. (2016), arXiv 1604.06174.

use super::{causal_lm::CausalLm, layer_values::Memory, token_batch::TokenBatch};
use crate::error::Result;
use crate::tape::Tape;
use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::{GradientsAccumulator, GradientsParams};
use burn::tensor::Tensor;

/// Counts what trains.
#[derive(Default)]
struct Trained(usize);

impl ModuleVisitor for Trained {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.0 += usize::from(param.val().is_require_grad());
    }
}

/// How many parameters of a module train.
pub(super) fn n_trained(module: &impl Module) -> usize {
    let mut trained = Trained::default();
    module.visit(&mut trained);
    trained.0
}

fn trains(module: &impl Module) -> bool {
    n_trained(module) > 0
}

/// A leaf with these values, whose gradient is wanted.
pub(super) fn leaf(values: Tensor<2>) -> Tensor<2> {
    values.autodiff().require_grad()
}

impl CausalLm {
    /// The gradient of a loss of the final hidden states with respect to everything in `model`, of which this is a part, that trains.
    ///
    /// # Shapes
    /// - the loss gets `[rows · tokens, hidden]`
    ///
    /// # Errors
    /// Those of `loss`.
    pub(super) fn gradient_by_layers<M: Module>(
        &self,
        model: &M,
        batch: &TokenBatch,
        tape: &mut Tape,
        loss: impl FnOnce(Tensor<2>, &mut Tape) -> Result<Tensor<1>>,
    ) -> Result<GradientsParams> {
        let plain = self.valid();
        let table_trains = trains(&self.embedding);
        let lowest = if table_trains { Some(0) } else { self.blocks.iter().position(trains) };
        let lowest = lowest.unwrap_or(self.blocks.len());
        self.in_places(batch, false, tape, |places, tape| {
            let contexts = self.contexts(batch, places);
            let mut x = plain.embedded(batch.ids.clone(), places);
            let mut starts = Vec::with_capacity(self.blocks.len() - lowest);
            for (index, block) in plain.blocks.iter().enumerate() {
                if index >= lowest {
                    starts.push(x.clone());
                }
                x = block.forward(x, &contexts.of(index), Memory::Nothing, tape);
            }

            let mut sum = GradientsAccumulator::new();
            // keeps what trains, and gives the gradient at a layer's input
            let mut backward = |objective: Tensor<1>, start: &Tensor<2>| {
                let mut gradients = objective.backward();
                let at_start = start.grad_remove(&mut gradients);
                sum.accumulate(model, GradientsParams::from_grads(gradients, model));
                at_start
            };
            let start = leaf(x);
            let mut above = backward(loss(self.ended(start.clone(), places), tape)?, &start);
            for (index, start) in starts.into_iter().enumerate().rev() {
                let Some(g) = above.take() else { break };
                let (start, block) = (leaf(start), &self.blocks[lowest + index]);
                let end = block.forward(start.clone(), &contexts.of(lowest + index), Memory::Nothing, tape);
                above = backward((end * g).sum(), &start);
            }
            if let Some(g) = above.filter(|_| table_trains) {
                let gradients = (self.embedded(batch.ids.clone(), places) * g).sum().backward();
                sum.accumulate(model, GradientsParams::from_grads(gradients, model));
            }
            Ok(sum.grads())
        })
    }
}
