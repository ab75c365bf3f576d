//! What the methods share that train an adapter by a rule of their own: its start, its settings, its moves.

use super::method::FitContext;
use crate::error::{Error, Result};
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
///
/// # Errors
/// If the recipe trains anything but A and B: the rules here know no other parameters.
pub(super) fn settings<M: Classifier, D: Dataset<Input = M::Input>>(
    method: &str,
    context: &FitContext<M, D>,
) -> Result<TrainerConfig> {
    let mode = &context.recipe.trainer.mode;
    if *mode != TrainingMode::Lora {
        return Err(Error::Incompatible(format!("{method} trains A and B alone, the recipe trains {mode:?}")));
    }
    Ok(TrainerConfig { objective: Objective::MaximumLikelihood, ..context.own_run() })
}

/// The model at a step's new weights, still to be trained: new tensors know no gradients, and a checkpoint holds the parameters
/// that have them.
///
/// # Errors
/// If the weights are not those of the model's adapter.
pub(super) fn moved<M: Adaptable>(model: M, weights: &AdapterWeights) -> Result<M> {
    Ok(set_trainable(write_adapter(model.valid(), weights)?, &TrainingMode::Lora)?.train())
}

/// Checks that a setting is positive and finite.
///
/// # Errors
/// Names the setting and its value.
pub(super) fn check_positive(field: &str, value: f64) -> Result<()> {
    if value > 0.0 && value.is_finite() { Ok(()) } else { Err(Error::config(field, "positive and finite", value)) }
}

/// Checks that a setting is at least 0 and finite.
///
/// # Errors
/// Names the setting and its value.
pub(super) fn check_not_negative(field: &str, value: f64) -> Result<()> {
    if value >= 0.0 && value.is_finite() { Ok(()) } else { Err(Error::config(field, "at least 0 and finite", value)) }
}
