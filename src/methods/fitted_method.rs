//! Fits any method in one call: trains the adapter that it starts from, sums the curvature that it reads.

use super::belief::Belief;
use super::kinds::BeliefKinds;
use super::method::{FitContext, Fitted, Method, Recipe};
use super::start::Start;
use crate::curvature::fit_curvatures;
use crate::data::BatchLimits;
use crate::error::{Error, Result};
use crate::likelihood::TargetSpace;
use crate::lora::{LoraConfig, load_peft, save_peft, summarize};
use crate::models::{Classifier, Dataset};
use crate::outputs::claim_dir;
use crate::predict::Prediction;
use crate::progress::Control;
use crate::train::TrainReport;
use std::path::Path;

/// Fits a method to labelled data from the pretrained model alone; batches and seed are those of the recipe's trainer.
///
/// ```
/// use bayes_lora::lora::LoraConfig;
/// use bayes_lora::methods::{self, DeepEnsemble, Recipe};
/// use bayes_lora::models::{MlpConfig, Points};
/// use bayes_lora::train::TrainerConfig;
/// # #[cfg(feature = "flex")] {
/// let data = Points::new(ndarray::arr2(&[[0.0, 1.0], [1.0, 0.0]]), vec![0, 1])?;
/// let base = MlpConfig::new([2, 4, 2]).init(&burn::tensor::Device::flex())?;
/// let recipe = Recipe::new(LoraConfig::new(1));
/// let fitted = methods::fit(&DeepEnsemble::default().with_n_members(2), &base, &recipe, &data)?;
/// println!("{:.2}", fitted.predict(&data)?.probabilities);
/// # }
/// # Ok::<(), bayes_lora::error::Error>(())
/// ```
///
/// # Errors
/// As [`MethodFit::fit`].
pub fn fit<M: Classifier, D: Dataset<Input = M::Input>>(
    method: &dyn Method<M, D>,
    base: &M,
    recipe: &Recipe,
    data: &D,
) -> Result<FittedMethod<M, D>> {
    MethodFit::new(base, recipe, data).fit(method)
}

/// All that fitting a method may need besides the method.
pub struct MethodFit<'a, M, D> {
    base: &'a M,
    recipe: &'a Recipe,
    train: &'a D,
    held_out: Option<&'a D>,
    limits: BatchLimits,
    seed: u64,
    control: Control,
}

impl<'a, M: Classifier, D: Dataset<Input = M::Input>> MethodFit<'a, M, D> {
    /// The pretrained model without adapter, how adapters are made, and the training items.
    pub fn new(base: &'a M, recipe: &'a Recipe, train: &'a D) -> Self {
        let (limits, seed) = (recipe.trainer.limits, recipe.trainer.seed_or_default());
        Self { base, recipe, train, held_out: None, limits, seed, control: Control::silent() }
    }

    /// Gives labelled items that training does not see, for methods that ask for such.
    pub fn with_held_out(mut self, held_out: &'a D) -> Self {
        self.held_out = Some(held_out);
        self
    }

    /// Sets the size of a batch outside training: of the curvature's pass, unless the method sets its own, and of predictions.
    pub fn with_limits(mut self, limits: BatchLimits) -> Self {
        self.limits = limits;
        self
    }

    /// Sets the seed of the adapter's start, of its training and of every draw.
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Sets progress, workers, checkpoints and cancellation.
    pub fn with_control(mut self, control: Control) -> Self {
        self.control = control;
        self
    }

    /// Trains the adapter if the method starts from one, sums the curvature if it reads one, and fits it.
    ///
    /// # Errors
    /// If something is missing that the method requires (named before any work), or as training, the curvature pass and
    /// [`Method::fit`].
    pub fn fit(&self, method: &dyn Method<M, D>) -> Result<FittedMethod<M, D>> {
        let Self { base, recipe, train, held_out, limits, seed, ref control } = *self;
        method.validate()?;
        let requirements = method.requirements();
        limits.validate()?;
        recipe.validate()?;
        let likelihood = recipe.trainer.likelihood_or_default();
        if likelihood.target_space() != TargetSpace::Classes {
            let method = method.name();
            return Err(Error::Incompatible(format!(
                "{method} predicts class probabilities here, which the likelihood `{likelihood}` has not: use `BayesLora` or `Comparison`"
            )));
        }
        requirements.check(&method.name(), base, recipe, held_out)?;
        let start = match requirements.map {
            true => Start::trained(base, recipe, train, seed, control)?,
            false => Start::untrained(base, recipe, seed)?,
        };
        let configs: Vec<_> = requirements.curvature.iter().map(|config| recipe.resolve(config, limits)).collect();
        let curvatures = fit_curvatures(&start.model, train, &configs, control)?;
        let curvatures: Vec<_> = configs.into_iter().zip(curvatures).collect();
        let fitted = method.fit(&FitContext {
            base,
            map: &start.model,
            snapshots: &start.snapshots,
            recipe,
            curvatures: &curvatures,
            train,
            held_out,
            limits,
            seed,
            control,
        })?;
        let (model, report) = (start.model.valid(), start.report);
        Ok(FittedMethod { model, fitted, report, lora: recipe.lora.clone(), limits })
    }
}

/// What a method found, with the model that it answers for.
pub struct FittedMethod<M: Classifier, D: Dataset<Input = M::Input>> {
    /// The model with the adapter that the method starts from.
    pub model: M,
    /// What answers, and what it took.
    pub fitted: Fitted<M, D>,
    /// What happened while the adapter trained that the method starts from, where there is one; `None` for one that was loaded.
    pub report: Option<TrainReport>,
    /// The adapter's configuration.
    pub lora: LoraConfig,
    /// Size of a batch of predictions.
    pub limits: BatchLimits,
}

impl<M: Classifier, D: Dataset<Input = M::Input>> FittedMethod<M, D> {
    /// Predicts items.
    ///
    /// # Errors
    /// As [`Belief::believe`].
    pub fn predict(&self, data: &D) -> Result<Prediction> {
        self.predict_with(data, &Control::silent())
    }

    /// The same with progress, workers and cancellation.
    ///
    /// # Errors
    /// As [`FittedMethod::predict`], and if the caller cancels.
    pub fn predict_with(&self, data: &D, control: &Control) -> Result<Prediction> {
        let belief: &dyn Belief<M, D> = &*self.fitted.belief;
        Prediction::new(belief.believe(&self.model, data, &self.limits, control)?, belief.link())
    }

    /// Saves the adapter as PEFT does and what the method found beside it. `base_model` is the name under which PEFT finds the
    /// base.
    ///
    /// # Errors
    /// As [`save_peft`] and [`Fitted::save`]; nothing is written where the belief cannot be saved, or `dir` refuses or lacks the
    /// room for both.
    pub fn save(&self, dir: impl AsRef<Path>, base_model: &str) -> Result<()> {
        let (dir, saved) = (dir.as_ref(), self.fitted.to_saved(&self.model)?);
        claim_dir(dir, 4 * summarize(&self.model).n_adapter as u64 + saved.bytes())?;
        save_peft(&self.model, &self.lora, base_model, dir)?;
        saved.write(dir, &self.model)
    }

    /// Loads what [`FittedMethod::save`] wrote onto a base model: it answers bit by bit as what was saved.
    ///
    /// # Errors
    /// As [`load_peft`] and [`Fitted::load`].
    pub fn load(base: M, dir: impl AsRef<Path>, limits: BatchLimits) -> Result<Self>
    where
        M: 'static,
        D: 'static,
    {
        Self::load_with(base, dir, limits, &BeliefKinds::default())
    }

    /// The same where `kinds` names kinds of the caller's own.
    ///
    /// # Errors
    /// As [`FittedMethod::load`].
    pub fn load_with(base: M, dir: impl AsRef<Path>, limits: BatchLimits, kinds: &BeliefKinds<M, D>) -> Result<Self>
    where
        M: 'static,
        D: 'static,
    {
        limits.validate()?;
        let (model, lora) = load_peft(base, dir.as_ref())?;
        let fitted = Fitted::load_with(dir, &model, kinds)?;
        Ok(Self { model: model.valid(), fitted, report: None, lora, limits })
    }
}
