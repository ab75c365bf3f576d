//! Differentiates the loss of one step: the sum over its micro-batches.

use super::config::TrainerConfig;
use super::freeze::set_trainable;
use super::layout;
use super::objective::negative_log_likelihood;
use crate::batches::in_order;
use crate::error::Result;
use crate::likelihood::Target;
use crate::lora::AdapterWeights;
use crate::memory::ActivationBudget;
use crate::models::{Classifier, ClassifierInput, Dataset, batch_targets, gradient_within, row_keys};
use crate::progress::Control;
use crate::tape::Tape;
use burn::optim::{GradientsAccumulator, GradientsParams};

/// What stays the same from step to step.
pub(super) struct Loss<'a, D> {
    pub(super) config: &'a TrainerConfig,
    pub(super) data: &'a D,
    /// Of every item.
    pub(super) targets: &'a [Target],
    /// Units of all items ([`Dataset::units`]).
    pub(super) n_units: usize,
    /// Of the prior.
    pub(super) centre: Option<&'a AdapterWeights>,
    pub(super) budget: ActivationBudget,
}

/// Which epoch a step is of.
#[derive(Clone, Copy)]
pub(super) struct OfEpoch {
    /// 0, 1, …
    pub(super) epoch: u64,
    /// `N/S`, the mean number of units of the epoch's steps.
    pub(super) mean_units: f64,
}

/// The gradient of a step's loss (see [`super::Objective`]).
pub(super) struct StepGradient {
    pub(super) gradients: GradientsParams,
    /// Sum over the step's items, in nats.
    pub(super) nll: f64,
    /// Real tokens.
    pub(super) tokens: usize,
}

impl<D> Loss<'_, D> {
    /// The gradient of a step over `batches`.
    ///
    /// # Errors
    /// If a target is not one that its item can have, or a batch cannot be built.
    pub(super) fn gradient<M: Classifier>(
        &self,
        model: &M,
        batches: &[Vec<usize>],
        OfEpoch { epoch, mean_units }: OfEpoch,
        control: &Control,
    ) -> Result<StepGradient>
    where
        D: Dataset<Input = M::Input>,
    {
        let (config, data) = (self.config, self.data);
        let plain = model.valid();
        // a micro-batch has leaves of its own, so that several can be differentiated at once
        let differentiate = |micro: usize| {
            let model = set_trainable(plain.clone(), &config.mode)?.train();
            let indices = &batches[micro];
            let input = layout::batch(config, &model, data, indices)?;
            let tokens = input.token_mask().iter().filter(|real| **real).count();
            let likelihood = &*config.likelihood_or_default();
            let targets = batch_targets(data, indices, &input, (self.targets, likelihood), model.n_classes())?;
            let rows = row_keys(data, indices, &input);
            let mut tape = Tape::dropout(config.seed_or_default(), epoch, rows);
            let mut sum = 0.0;
            let mut loss = |logits| {
                let nll = negative_log_likelihood(logits, likelihood, &targets, input.class_mask())?;
                sum = nll.nats;
                // by the mean step, not by this one: a unit of a small step weighs as much as any other
                // (a product: burn's gradient of a quotient rounds the divisor to f32)
                let loss = nll.differentiable.mul_scalar(1.0 / mean_units);
                // once a step: the S shares of 1/N are one prior beside the data's sum over N/S
                let penalty = if micro == 0 { config.objective.penalty(&model, self.centre)? } else { None };
                Ok(match penalty {
                    Some(penalty) => loss + penalty.mul_scalar(1.0 / self.n_units as f64),
                    None => loss,
                })
            };
            let gradients = gradient_within(&model, &input, &mut tape, &mut loss, &self.budget)?;
            Ok((tokens, sum, gradients))
        };
        let mut accumulator = GradientsAccumulator::new();
        let (mut tokens, mut nll) = (0, 0.0);
        in_order("train", batches.len(), control.workers(), differentiate, |_, (real, sum, gradients)| {
            tokens += real;
            nll += sum;
            accumulator.accumulate(model, gradients);
            Ok(())
        })?;
        Ok(StepGradient { gradients: accumulator.grads(), nll, tokens })
    }
}
