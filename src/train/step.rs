//! Differentiates the loss of one step: the sum over its micro-batches.

use super::config::TrainerConfig;
use super::freeze::set_trainable;
use super::objective::nll_sum;
use crate::batches::in_order;
use crate::error::Result;
use crate::lora::AdapterWeights;
use crate::models::{Classifier, ClassifierInput, Dataset, batch_for, batch_labels};
use crate::progress::Control;
use crate::tape::Tape;
use burn::optim::{GradientsAccumulator, GradientsParams};

/// What stays the same from step to step.
pub(super) struct Loss<'a, D> {
    pub(super) config: &'a TrainerConfig,
    pub(super) data: &'a D,
    /// Of every item.
    pub(super) labels: &'a [usize],
    /// Of the prior.
    pub(super) centre: Option<&'a AdapterWeights>,
}

/// The gradient of a step's mean loss.
pub(super) struct StepGradient {
    pub(super) gradients: GradientsParams,
    /// Sum over the step's items, in nats.
    pub(super) nll: f64,
    /// Real tokens.
    pub(super) tokens: usize,
}

impl<D> Loss<'_, D> {
    /// The gradient of step `step` (0, 1, …) over `batches`.
    ///
    /// # Errors
    /// If a label is missing or out of range, or a batch cannot be built.
    pub(super) fn gradient<M: Classifier>(
        &self,
        model: &M,
        batches: &[Vec<usize>],
        step: usize,
        control: &Control,
    ) -> Result<StepGradient>
    where
        D: Dataset<Input = M::Input>,
    {
        let (config, data) = (self.config, self.data);
        let n_items: usize = batches.iter().map(Vec::len).sum();
        let plain = model.valid();
        // a micro-batch has leaves of its own, so that several can be differentiated at once
        let differentiate = |micro: usize| {
            let model = set_trainable(plain.clone(), &config.mode)?.train();
            let indices = &batches[micro];
            let input = batch_for(&model, data, indices)?;
            let tokens = input.token_mask().iter().filter(|real| **real).count();
            let labels = batch_labels(data, indices, &input, self.labels, model.n_classes())?;
            // one dropout stream a micro-batch
            let draw = config.seed ^ ((step as u64) << 20 | (micro as u64) << 8 | 1);
            let logits = model.logits(&input, &mut Tape::dropout(draw));
            let nll = nll_sum(logits, &labels, input.class_mask());
            let sum = nll.clone().without_autodiff().into_scalar::<f64>();
            let mut loss = nll.div_scalar(n_items as f64);
            // the prior counts once a step, at its share of the whole data
            if let Some(penalty) = config.objective.penalty(&model, self.centre).filter(|_| micro == 0) {
                loss = loss + penalty.div_scalar(data.n_items() as f64);
            }
            Ok((tokens, sum, GradientsParams::from_grads(loss.backward(), &model)))
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
