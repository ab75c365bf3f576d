//! Differentiates a decoder of which the adapters alone train, by its own backward pass ([`PullBack`]) in place of a graph.
//!
//! The loss and the output head are differentiated automatically, down to a leaf at the final hidden states; the layers pull the gradient
//! there back.

use super::{
    block::Block,
    by_layers::{leaf, n_trained},
    causal_lm::CausalLm,
    pull_back::PullBack,
    token_batch::TokenBatch,
};
use crate::error::Result;
use crate::lora::trained_matrices;
use crate::tape::{Site, SiteGradient, Tape};
use burn::module::{Module, Param, ParamId};
use burn::optim::{GradientsAccumulator, GradientsParams};
use burn::tensor::{Int, Tensor};
use std::collections::BTreeMap;

impl CausalLm {
    /// As [`Classifier::gradient`](super::Classifier::gradient), with respect to everything in `model`, of which this is a part; the loss
    /// gets the final hidden states of the tokens at `read`, `[n, hidden]`.
    ///
    /// # Errors
    /// Those of `loss`.
    pub(super) fn gradient<M: Module>(
        &self,
        model: &M,
        (batch, read): (&TokenBatch, &Tensor<1, Int>),
        tape: &mut Tape,
        by_layers: bool,
        loss: impl FnOnce(Tensor<2>, &mut Tape) -> Result<Tensor<1>>,
    ) -> Result<Option<GradientsParams>> {
        if !tape.is_recording() && self.trains_by_own_pass() {
            self.adapter_gradient(model, (batch, read), tape, by_layers, loss).map(Some)
        } else if by_layers {
            self.gradient_by_layers(model, (batch, read), tape, loss).map(Some)
        } else {
            Ok(None)
        }
    }

    /// True if adapters train and nothing else, and of each of the layers' adapters both matrices or none.
    pub(super) fn trains_by_own_pass(&self) -> bool {
        let trains = |matrix: &Param<Tensor<2>>| matrix.val().is_require_grad();
        let of_adapters = trained_matrices(self).into_iter().filter(|matrix| trains(matrix.param)).count();
        let mut adapters = self.blocks.iter().flat_map(Block::linears).filter_map(|linear| linear.adapter.as_ref());
        of_adapters > 0
            && of_adapters == n_trained(self)
            && adapters.all(|adapter| trains(&adapter.a) == trains(&adapter.b))
    }

    fn adapter_gradient<M: Module>(
        &self,
        model: &M,
        (batch, read): (&TokenBatch, &Tensor<1, Int>),
        tape: &mut Tape,
        by_layers: bool,
        loss: impl FnOnce(Tensor<2>, &mut Tape) -> Result<Tensor<1>>,
    ) -> Result<GradientsParams> {
        let mut sum = GradientsAccumulator::new();
        let trained = trained_matrices(self).into_iter().filter(|matrix| matrix.param.val().is_require_grad());
        let ids: BTreeMap<_, _> = trained.map(|of| (of.site, of.param.id)).collect();
        let mut of_layers = GradientsParams::new();
        let top = |hidden: Tensor<2>, tape: &mut Tape| {
            tape.keep_inputs(false);
            let hidden = leaf(hidden);
            let mut gradients = loss(hidden.clone(), tape)?.backward();
            tape.keep_inputs(true);
            let at_hidden = hidden.grad_remove(&mut gradients);
            let at_hidden = at_hidden.unwrap_or_else(|| hidden.without_autodiff().zeros_like());
            sum.accumulate(model, GradientsParams::from_grads(gradients, model));
            Ok((PullBack::new(1), at_hidden))
        };
        let take = |pull: &mut PullBack, tape: &mut Tape| {
            for site in tape.take_sites(pull.take_gradients())? {
                register(&mut of_layers, &ids, site);
            }
            Ok(())
        };
        tape.keep_inputs(true);
        self.valid().pull_back((batch, read), by_layers, tape, top, take)?;
        tape.keep_inputs(false);
        sum.accumulate(model, of_layers);
        Ok(sum.grads())
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
