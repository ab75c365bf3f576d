//! The trait of every method: what it needs, how it is fitted.

use super::belief::Belief;
use crate::curvature::{Curvature, CurvatureConfig};
use crate::data::BatchLimits;
use crate::error::{Error, Result};
use crate::identity::Identity;
use crate::likelihood::TargetSpace;
use crate::lora::{LoraConfig, attach};
use crate::models::{Classifier, Dataset};
use crate::progress::Control;
use crate::search::Search;
use crate::setters::setters;
use crate::train::{Snapshot, Snapshots, TrainOutcome, Trainer, TrainerConfig, TrainingMode, UpdateRule};
use std::collections::BTreeMap;

/// A way from training data to beliefs about logits. One file a method.
///
/// Settings are the implementor's fields. A method that starts from the trained adapter is *post hoc*; one that trains its own
/// is given the same recipe.
pub trait Method<M: Classifier, D: Dataset<Input = M::Input>> {
    /// A short name, unique within a comparison.
    fn name(&self) -> String;

    /// All settings, in one line of words: for people alone, and free to change.
    fn describe(&self) -> String;

    /// All settings that its answers depend on: a finished cell is taken up only by a method that says the same. Where every field
    /// counts, derive `serde::Serialize` and return [`Identity::of`]`(self)`.
    ///
    /// # Errors
    /// If a setting cannot be told.
    fn identity(&self) -> Result<Identity>;

    /// Checks every bound of the settings; asked before any work.
    ///
    /// # Errors
    /// Names the field, its bound and its value.
    fn validate(&self) -> Result<()> {
        Ok(())
    }

    /// What must be there before [`Method::fit`]; [`Requirements::check`] says what is missing, before hours are spent.
    fn requirements(&self) -> Requirements {
        Requirements::default()
    }

    /// How its noise is shared by tokens, where it has noise.
    fn sharing(&self) -> Option<NoiseSharing> {
        None
    }

    /// Finds what the method needs to answer.
    ///
    /// # Errors
    /// If something that it requires is missing, or its computation fails.
    fn fit(&self, context: &FitContext<M, D>) -> Result<Fitted<M, D>>;
}

/// How noise is shared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub enum NoiseSharing {
    /// One draw of the weights for all tokens of all items: a draw is a network.
    #[default]
    Coherent,
    /// Noise of its own for every token, as published code does: the same variance at each token, no covariance between them.
    PerToken,
}

impl std::fmt::Display for NoiseSharing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Coherent => "coherent",
            Self::PerToken => "per token",
        })
    }
}

/// What a method reads besides the training data.
#[derive(Debug, Clone, PartialEq)]
pub struct Requirements {
    /// The trained adapter, [`FitContext::map`]; a comparison whose methods all train their own trains no other.
    pub map: bool,
    /// Snapshots of the adapter along its training, at least so many.
    pub snapshots: usize,
    /// Held-out items with their labels.
    pub held_out_labels: bool,
    /// An adapter trained with dropout.
    pub dropout: bool,
    /// Logits that are linear in an output layer's rows, one a class ([`Classifier::head_weights`]).
    pub linear_head: bool,
    /// Classes as targets: what it does has no meaning for numbers.
    pub classes: bool,
    /// A recipe that trains A and B alone: what the method keeps of its runs has no place for other weights.
    pub adapter_alone: bool,
    /// Curvature at the trained adapter; methods that ask for it share its passes.
    pub curvature: Option<CurvatureConfig>,
}

impl Default for Requirements {
    /// The trained adapter alone.
    fn default() -> Self {
        Self {
            map: true,
            snapshots: 0,
            held_out_labels: false,
            dropout: false,
            linear_head: false,
            classes: false,
            adapter_alone: false,
            curvature: None,
        }
    }
}

/// How the adapters of a comparison are made.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Recipe {
    /// The adapter.
    pub lora: LoraConfig,
    /// Its training; its seed is replaced by the context's.
    pub trainer: TrainerConfig,
}

impl Recipe {
    /// An adapter with the default training.
    pub fn new(lora: LoraConfig) -> Self {
        Self { lora, trainer: TrainerConfig::default() }
    }

    setters! {
        /// Sets the adapter.
        with_lora(lora: LoraConfig);
        /// Sets how it trains.
        with_trainer(trainer: TrainerConfig);
    }

    /// Checks every bound.
    ///
    /// # Errors
    /// Names the field, its bound and its value.
    pub fn validate(&self) -> Result<()> {
        self.lora.validate()?;
        self.trainer.validate()
    }

    /// The settings of a curvature at an adapter of this recipe: with the likelihood of its training and this size of batches where
    /// they set none of their own.
    pub(crate) fn resolve(&self, curvature: &CurvatureConfig, limits: BatchLimits) -> CurvatureConfig {
        curvature.resolved_in(&self.trainer.likelihood_or_default(), limits)
    }

    /// All settings that an adapter depends on, but for its seed, which is the context's.
    ///
    /// # Errors
    /// If a setting cannot be told.
    pub fn identity(&self) -> Result<Identity> {
        let Self { lora, trainer } = self;
        let trainer = TrainerConfig { seed: None, ..trainer.clone() };
        let identity = Identity::new().with_part("lora", Identity::of(lora)?);
        Ok(identity.with_part("trainer", trainer.identity()).with("weight_decay", trainer.weight_decay))
    }
}

/// All that a method may read.
pub struct FitContext<'a, M, D> {
    /// The pretrained model, without adapter.
    pub base: &'a M,
    /// The model with the trained adapter, the maximum of likelihood or of the posterior density; with an untrained one where
    /// [`Requirements::map`] of the method is false.
    pub map: &'a M,
    /// The adapter along that training, oldest first.
    pub snapshots: &'a [Snapshot],
    /// How it was made.
    pub recipe: &'a Recipe,
    /// Curvature at the trained adapter, one for each configuration that a method asks for ([`FitContext::curvature`]).
    pub curvatures: &'a [(CurvatureConfig, Curvature)],
    /// Training items.
    pub train: &'a D,
    /// Held-out items.
    pub held_out: Option<&'a D>,
    /// Size of a batch.
    pub limits: BatchLimits,
    /// Seed of every draw.
    pub seed: u64,
    /// Progress and cancellation.
    pub control: &'a Control,
}

/// What fitting gives.
pub struct Fitted<M: Classifier, D: Dataset<Input = M::Input>> {
    /// What answers.
    pub belief: Box<dyn Belief<M, D>>,
    /// What it took.
    pub spent: Spent,
    /// Numbers that were found, by name.
    pub found: BTreeMap<String, f64>,
    /// How the searches for those that were sought between bounds ended.
    pub searches: Vec<Search>,
}

/// Passes of one item through the network that fitting took, and items that it read besides the training data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spent {
    /// Forward passes of one item.
    pub forwards: usize,
    /// Backward passes of one item.
    pub backwards: usize,
    /// Held-out items whose labels were read.
    pub labelled: usize,
    /// Held-out items of which only the inputs were read.
    pub unlabelled: usize,
}

impl Spent {
    /// Of a training run.
    pub(super) fn training(items: usize) -> Self {
        Self { forwards: items, backwards: items, ..Self::default() }
    }
}

impl<M: Classifier, D: Dataset<Input = M::Input>> Fitted<M, D> {
    /// A belief that took no pass.
    pub fn new(belief: impl Belief<M, D> + 'static) -> Self {
        let (spent, found, searches) = (Spent::default(), BTreeMap::new(), Vec::new());
        Self { belief: Box::new(belief), spent, found, searches }
    }

    /// Sets what it took.
    pub fn with_spent(mut self, spent: Spent) -> Self {
        self.spent = spent;
        self
    }

    /// Adds a number that was found.
    pub fn with_found(mut self, name: impl Into<String>, value: f64) -> Self {
        self.found.insert(name.into(), value);
        self
    }

    /// Adds how searches ended.
    pub fn with_searches(mut self, searches: impl IntoIterator<Item = Search>) -> Self {
        self.searches.extend(searches);
        self
    }
}

impl Requirements {
    /// Says what is missing.
    ///
    /// # Errors
    /// Names the method and each thing that it lacks; if the curvature that it asks for is out of bounds or of another likelihood than
    /// the training.
    pub fn check<M: Classifier, D: Dataset>(
        &self,
        method: &str,
        base: &M,
        recipe: &Recipe,
        held_out: Option<&D>,
    ) -> Result<()> {
        let mut missing = Vec::new();
        let kept = recipe.trainer.snapshots.count;
        if kept < self.snapshots {
            missing.push(format!(
                "{} snapshots of the training (`snapshots.count` of the trainer is {kept})",
                self.snapshots
            ));
        }
        if self.dropout && recipe.lora.dropout == 0.0 {
            missing.push("an adapter trained with dropout (`dropout` of the adapter is 0)".into());
        }
        if self.linear_head && base.head_weights().is_none() {
            missing
                .push("logits that are linear in an output layer's rows, one a class (class tokens have such)".into());
        }
        if self.adapter_alone && recipe.trainer.mode != TrainingMode::Lora {
            missing.push(format!(
                "a recipe that trains A and B alone (`mode` of the trainer is {:?})",
                recipe.trainer.mode
            ));
        }
        if self.held_out_labels && held_out.is_none_or(|data| data.target(0).is_none()) {
            missing.push("held-out items with labels".into());
        }
        let trained = recipe.trainer.likelihood_or_default();
        if self.classes && trained.target_space() != TargetSpace::Classes {
            missing.push(format!("classes, which the likelihood `{trained}` has not"));
        }
        if let Some(curvature) = &self.curvature {
            // as at the recipe's own training: the size of batches that a whole sets is checked there
            let curvature = recipe.resolve(curvature, recipe.trainer.limits);
            curvature.validate()?;
            curvature.check_trained_by(&trained)?;
        }
        if missing.is_empty() {
            return Ok(());
        }
        Err(Error::Incompatible(format!("{method} needs {}", missing.join(" and "))))
    }
}

impl<M: Classifier, D: Dataset<Input = M::Input>> FitContext<'_, M, D> {
    /// Checks once more what a comparison has checked before: a method may be fitted without one.
    pub(super) fn check(&self, method: &dyn Method<M, D>) -> Result<()> {
        method.validate()?;
        method.requirements().check(&method.name(), self.base, self.recipe, self.held_out)
    }

    /// Trains an adapter of its own by the recipe, from the start and in the order of `seed`.
    ///
    /// # Errors
    /// As [`attach`] and [`Trainer::fit`].
    pub fn train_adapter(&self, seed: u64) -> Result<TrainOutcome<M>> {
        let start = attach(self.base.clone(), &self.recipe.lora, seed)?;
        self.train_on(self.own_run().with_seed(seed), start)
    }

    /// The recipe's training as a method's own run: the log and the snapshots are those of the comparison's adapter.
    pub(super) fn own_run(&self) -> TrainerConfig {
        TrainerConfig { snapshots: Snapshots::default(), log: None, ..self.recipe.trainer.clone() }
    }

    /// Trains an adapter that is there.
    ///
    /// # Errors
    /// As [`Trainer::fit`].
    pub fn train_on(&self, config: TrainerConfig, start: M) -> Result<TrainOutcome<M>> {
        Trainer::new(config)?.fit(start, self.train, None, &self.for_training())
    }

    /// Trains an adapter of its own by another rule, from a start of its own.
    ///
    /// # Errors
    /// As [`Trainer::fit_by`].
    pub fn train_by(&self, rule: &mut dyn UpdateRule<M>, config: TrainerConfig, start: M) -> Result<TrainOutcome<M>> {
        Trainer::new(config.with_seed(self.seed))?.fit_by(rule, start, self.train, None, &self.for_training())
    }

    /// A method's runs are taken up whole or not at all: their checkpoints would meet those of another.
    fn for_training(&self) -> Control {
        self.control.clone().without_checkpoints()
    }

    /// The settings of a curvature as it was fitted: with the likelihood of the recipe and the size of batches here, where they set
    /// none of their own.
    pub fn resolve(&self, config: &CurvatureConfig) -> CurvatureConfig {
        self.recipe.resolve(config, self.limits)
    }

    /// The curvature of these settings, [resolved](FitContext::resolve).
    ///
    /// # Errors
    /// If it was not asked for by [`Requirements::curvature`].
    pub fn curvature(&self, config: &CurvatureConfig) -> Result<&Curvature> {
        let config = self.resolve(config);
        let is_asked = |(asked, _): &&(CurvatureConfig, Curvature)| self.resolve(asked) == config;
        let found = self.curvatures.iter().find(is_asked).map(|(_, curvature)| curvature);
        found.ok_or_else(|| Error::Incompatible(format!("no {} curvature was fitted", config.structure)))
    }
}
