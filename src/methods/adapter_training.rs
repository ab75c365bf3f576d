//! What the methods share that train an adapter by a rule of their own: its start, its settings, its gradients.

use super::method::FitContext;
use crate::error::{Error, Result};
use crate::lora::{Adaptable, AdapterWeights, attach, to_array, write_adapter};
use crate::models::{Classifier, Dataset};
use crate::tape::{LoraMatrix, Site};
use crate::train::{Objective, Snapshots, TrainerConfig, TrainingMode, set_trainable};
use burn::optim::GradientsParams;
use ndarray::Array2;

/// A fresh adapter of the recipe's, drawn from the context's seed.
///
/// # Errors
/// As [`attach`].
pub(super) fn start<M: Classifier, D: Dataset<Input = M::Input>>(context: &FitContext<M, D>) -> Result<M> {
    attach(context.base.clone(), &context.recipe.lora, context.seed)
}

/// The recipe's training with the likelihood alone: a rule that has a prior adds it itself. The log and the snapshots are the
/// comparison's own run's.
///
/// # Errors
/// If the recipe trains anything but A and B: the rules here know no other parameters.
pub(super) fn settings<M: Classifier, D: Dataset<Input = M::Input>>(
    method: &str,
    context: &FitContext<M, D>,
) -> Result<TrainerConfig> {
    let trainer = &context.recipe.trainer;
    if trainer.mode != TrainingMode::Lora {
        return Err(Error::Incompatible(format!(
            "{method} trains A and B alone, the recipe trains {:?}",
            trainer.mode
        )));
    }
    let objective = Objective::MaximumLikelihood;
    Ok(TrainerConfig { objective, snapshots: Snapshots::default(), log: None, ..trainer.clone() })
}

/// The model at a step's new weights, still to be trained: new tensors know no gradients, and a checkpoint holds the parameters
/// that have them.
///
/// # Errors
/// If the weights are not those of the model's adapter.
pub(super) fn moved<M: Adaptable>(model: M, weights: &AdapterWeights) -> Result<M> {
    Ok(set_trainable(write_adapter(model.valid(), weights)?, &TrainingMode::Lora)?.train())
}

/// The gradients of A and B by site; zero where the loss does not depend on a matrix.
///
/// # Errors
/// If a copy from the device fails.
pub(super) fn gradients<M: Adaptable>(model: &M, gradients: &GradientsParams) -> Result<AdapterWeights> {
    let mut found = AdapterWeights::new();
    for linear in model.linears() {
        let Some(adapter) = &linear.adapter else { continue };
        for (matrix, param) in [(LoraMatrix::A, &adapter.a), (LoraMatrix::B, &adapter.b)] {
            let site = Site { module: linear.path.clone(), matrix };
            let [rows, columns] = param.val().dims();
            let gradient = match gradients.get::<2>(param.id) {
                Some(gradient) => to_array(gradient)?,
                None => Array2::zeros((rows, columns)),
            };
            found.insert(site, gradient);
        }
    }
    Ok(found)
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
