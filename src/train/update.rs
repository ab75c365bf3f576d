//! Moves the weights by the gradient of a step: AdamW, or a rule of the caller's.

use crate::error::{Error, Result};
use crate::identity::Identity;
use burn::module::Module;
use burn::optim::{AdamWConfig, GradientsParams, ModuleOptimizer};
use burn::tensor::Bytes;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Where in a run a step is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepPosition {
    /// 0, 1, …
    pub step: usize,
    /// Steps of the whole run.
    pub total: usize,
    /// The schedule's learning rate.
    pub learning_rate: f64,
}

/// How gradients move the weights. It owns all state that there is beside them, such as momenta or variances.
///
/// A rule may take the gradient elsewhere than at the weights: variational rules take it at a draw around them.
pub trait UpdateRule<M>: Send {
    /// The rule's name and all its settings, none of its state: a checkpoint is taken up only by a rule that says the same.
    ///
    /// # Errors
    /// If a setting cannot be told.
    fn identity(&self) -> Result<Identity>;

    /// The weights at which a step takes its gradient; the weights themselves unless the rule says otherwise.
    ///
    /// # Errors
    /// If they cannot be made.
    fn point(&mut self, model: &M, position: StepPosition) -> Result<M>;

    /// The weights after a step, from the gradient of its loss at [`UpdateRule::point`]. The mean of this loss over the steps of an
    /// epoch is the objective over N items divided by N (see [`super::Objective`]), so that a rule which adds the gradient of a prior
    /// over N at every step counts that prior once.
    ///
    /// # Errors
    /// If the rule's state does not fit the model.
    fn update(&mut self, model: M, gradients: GradientsParams, position: StepPosition) -> Result<M>;

    /// All state, as bytes for a checkpoint.
    ///
    /// # Errors
    /// If a copy from the device fails.
    fn state(&self) -> Result<Vec<u8>>;

    /// Takes up such a state.
    ///
    /// # Errors
    /// If the bytes are no state of this rule.
    fn restore(&mut self, state: Vec<u8>) -> Result<()>;
}

/// burn's AdamW, at the weights themselves.
pub(crate) struct AdamW {
    optimizer: ModuleOptimizer,
    weight_decay: f64,
}

impl AdamW {
    pub(crate) fn new(weight_decay: f64) -> Self {
        // ε = 1e-8 as in PyTorch
        let optimizer = AdamWConfig::new().with_epsilon(1e-8).with_weight_decay(weight_decay as f32).init();
        Self { optimizer, weight_decay }
    }
}

impl<M: Module> UpdateRule<M> for AdamW {
    fn identity(&self) -> Result<Identity> {
        let Self { optimizer: _, weight_decay } = self;
        Ok(Identity::new().with("rule", "AdamW").with("weight_decay", weight_decay))
    }

    fn point(&mut self, model: &M, _position: StepPosition) -> Result<M> {
        Ok(model.clone())
    }

    fn update(&mut self, model: M, gradients: GradientsParams, position: StepPosition) -> Result<M> {
        Ok(self.optimizer.step(position.learning_rate, model, gradients))
    }

    fn state(&self) -> Result<Vec<u8>> {
        let bytes = self.optimizer.into_bytes().map_err(|e| Error::format("optimiser's state", e))?;
        Ok(bytes.to_vec())
    }

    /// burn's reader panics on some states that are malformed.
    fn restore(&mut self, state: Vec<u8>) -> Result<()> {
        let optimizer = self.optimizer.clone();
        let read = catch_unwind(AssertUnwindSafe(|| optimizer.from_bytes(Bytes::from_bytes_vec(state))));
        self.optimizer = match read {
            Ok(read) => read.map_err(|e| Error::format("optimiser's state", e))?,
            Err(_) => return Err(Error::format("optimiser's state", "burn's reader panicked")),
        };
        Ok(())
    }
}
