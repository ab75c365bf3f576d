//! Runs the training loop.

use super::config::TrainerConfig;
use super::report::TrainOutcome;
use super::run::run;
use super::update::{AdamW, UpdateRule};
use crate::error::Result;
use crate::models::{Classifier, Dataset};
use crate::progress::Control;

/// Trains with AdamW, or with an [`UpdateRule`].
#[derive(Debug, Clone)]
pub struct Trainer {
    config: TrainerConfig,
}

impl Trainer {
    /// Checks the configuration.
    ///
    /// # Errors
    /// Names the field, its bound and its value.
    pub fn new(config: TrainerConfig) -> Result<Self> {
        config.validate()?;
        Ok(Self { config })
    }

    /// Trains `model` on `data`; with `validation`, evaluates after every epoch and keeps the best.
    ///
    /// With [`Control::with_checkpoints`] the run is saved as it goes, after the last step, and when the caller cancels; the
    /// same call then goes on from the newest checkpoint, to parameters that are the same bits as without the interruption.
    /// A file holds the parameters that train, the optimiser's state, the position, and the best epoch so far; shuffles and
    /// dropout need no state, for their draws depend on (seed, epoch, item) alone. Saves and lines of the log
    /// that fail are counted ([`Control::save_failures`]) and stop nothing.
    ///
    /// A step whose loss or gradient is not finite changes nothing and is counted.
    ///
    /// # Errors
    /// If a target is missing or is none for its item, more steps than allowed are not finite (the step, its items and the last
    /// checkpoint are named), a checkpoint is damaged or of another run, the log cannot be opened, or the caller cancels.
    pub fn fit<M: Classifier, D: Dataset<Input = M::Input>>(
        &self,
        model: M,
        data: &D,
        validation: Option<&D>,
        control: &Control,
    ) -> Result<TrainOutcome<M>> {
        self.fit_by(&mut AdamW::new(self.config.weight_decay), model, data, validation, control)
    }

    /// The same with another rule than AdamW; its state is part of the checkpoints. [`TrainerConfig::weight_decay`] is
    /// AdamW's, and clipping ([`TrainerConfig::max_grad_norm`]) changes what a rule that estimates curvature sees.
    ///
    /// # Errors
    /// As [`Trainer::fit`], and as the rule.
    pub fn fit_by<M: Classifier, D: Dataset<Input = M::Input>>(
        &self,
        rule: &mut dyn UpdateRule<M>,
        model: M,
        data: &D,
        validation: Option<&D>,
        control: &Control,
    ) -> Result<TrainOutcome<M>> {
        run(&self.config, rule, model, (data, validation), control)
    }
}
