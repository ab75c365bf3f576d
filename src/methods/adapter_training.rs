//! What the methods share that train an adapter by a rule of their own: its start, its settings, its moves.

use super::method::FitContext;
use crate::error::Result;
use crate::lora::{Adaptable, AdapterWeights, attach, write_adapter};
use crate::models::{Classifier, Dataset};
use crate::train::{Objective, TrainerConfig, TrainingMode, set_trainable};

/// A fresh adapter of the recipe's, drawn from the context's seed.
///
/// # Errors
/// As [`attach`].
pub(super) fn start<M: Classifier, D: Dataset<Input = M::Input>>(context: &FitContext<M, D>) -> Result<M> {
    attach(context.base.clone(), &context.recipe.lora, context.seed)
}

/// The recipe's training with the likelihood alone: a rule that has a prior adds it itself.
pub(super) fn settings<M: Classifier, D: Dataset<Input = M::Input>>(context: &FitContext<M, D>) -> TrainerConfig {
    TrainerConfig { objective: Objective::MaximumLikelihood, ..context.own_run() }
}

/// The model at a step's new weights, still to be trained: new tensors know no gradients, and a checkpoint holds the parameters
/// that have them.
///
/// # Errors
/// If the weights are not those of the model's adapter.
pub(super) fn moved<M: Adaptable>(model: M, weights: &AdapterWeights) -> Result<M> {
    Ok(set_trainable(write_adapter(model.valid(), weights)?, &TrainingMode::Lora)?.train())
}
