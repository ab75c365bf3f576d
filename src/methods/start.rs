//! Makes the adapter that methods start from.

use super::method::Recipe;
use crate::error::Result;
use crate::lora::attach;
use crate::models::{Classifier, Dataset};
use crate::progress::Control;
use crate::train::{Snapshot, TrainReport, Trainer};

/// The adapter that post-hoc methods start from; an untrained one for methods that train their own.
pub struct Start<M> {
    /// The model with the adapter.
    pub model: M,
    /// The adapter along its training, oldest first.
    pub snapshots: Vec<Snapshot>,
    /// What happened during training, where there was any.
    pub report: Option<TrainReport>,
}

impl<M: Classifier> Start<M> {
    /// Trains an adapter by the recipe, from the start and in the order of `seed`; taken up from the control's checkpoints.
    ///
    /// # Errors
    /// As [`attach`] and [`Trainer::fit`].
    pub fn trained<D: Dataset<Input = M::Input>>(
        base: &M,
        recipe: &Recipe,
        train: &D,
        seed: u64,
        control: &Control,
    ) -> Result<Self> {
        let trainer = Trainer::new(recipe.trainer.clone().with_seed(seed))?;
        let start = attach(base.clone(), &recipe.lora, seed)?;
        let outcome = trainer.fit(start, train, None, control)?;
        Ok(Self { model: outcome.model, snapshots: outcome.snapshots, report: Some(outcome.report) })
    }

    /// An adapter as it is before training.
    ///
    /// # Errors
    /// As [`attach`].
    pub fn untrained(base: &M, recipe: &Recipe, seed: u64) -> Result<Self> {
        let model = attach(base.clone(), &recipe.lora, seed)?;
        Ok(Self { model, snapshots: Vec::new(), report: None })
    }
}
