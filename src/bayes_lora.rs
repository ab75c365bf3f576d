//! The whole path in three calls: configure, fit, predict.

mod trained;

use crate::belief::LinkApprox;
use crate::curvature::{CurvatureConfig, fit_curvature};
use crate::data::BatchLimits;
use crate::error::Result;
use crate::likelihood::SharedLikelihood;
use crate::lora::{LoraConfig, attach, load_peft, save_peft, summarize};
use crate::models::{Classifier, Dataset};
use crate::outputs::{claim_dir, claim_file};
use crate::posterior::{HeldOut, Laplace, LaplaceConfig, POSTERIOR_FILE, PosteriorCost, estimate_posterior};
use crate::predict::{Prediction, Predictive, TargetPrediction, TrainingFit, predict, predict_targets};
use crate::prior::PriorChoice;
use crate::progress::Control;
use crate::search::Search;
use crate::setters::setters;
use crate::train::{TrainOutcome, TrainReport, Trainer, TrainerConfig};
use std::path::Path;
use std::time::Instant;
pub use trained::{FitError, Trained};

/// Everything that [`BayesLora`] needs to know, with the defaults of its parts.
///
/// Seed, likelihood and the size of batches outside training are set here once; a part that sets its own keeps it. The order of
/// the calls does not matter.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct BayesLoraConfig {
    /// The adapter.
    pub lora: LoraConfig,
    /// Its training.
    pub trainer: TrainerConfig,
    /// The curvature at its optimum.
    pub curvature: CurvatureConfig,
    /// The posterior.
    pub laplace: LaplaceConfig,
    /// How [`FittedBayesLora::predict_calibrated`] predicts.
    pub predictive: Predictive,
    /// How targets depend on the model's outputs, for training and curvature alike.
    pub likelihood: SharedLikelihood,
    /// Size of a batch outside training: of the curvature's pass and of predictions.
    pub limits: BatchLimits,
    /// Seed of the adapter's start, of the shuffles and of dropout.
    pub seed: u64,
}

impl BayesLoraConfig {
    /// Defaults for everything but the adapter.
    pub fn new(lora: LoraConfig) -> Self {
        let curvature = CurvatureConfig::default();
        Self {
            lora,
            trainer: TrainerConfig::default(),
            likelihood: curvature.likelihood_or_default(),
            limits: curvature.limits_or_default(),
            curvature,
            laplace: LaplaceConfig::without_labels(),
            predictive: Predictive::default(),
            seed: 0,
        }
    }

    setters! {
        /// Sets the adapter.
        with_lora(lora: LoraConfig);
        /// Sets how the adapter trains.
        with_trainer(trainer: TrainerConfig);
        /// Sets how the curvature is fitted.
        with_curvature(curvature: CurvatureConfig);
        /// Sets the prior.
        with_laplace(laplace: LaplaceConfig);
        /// Sets how predictions are made.
        with_predictive(predictive: Predictive);
        /// Sets how targets depend on the model's outputs, for training and curvature alike.
        with_likelihood(likelihood: impl Into<SharedLikelihood>);
        /// Sets the size of a batch outside training.
        with_limits(limits: BatchLimits);
        /// Sets the seed of the adapter's start, of the shuffles and of dropout.
        with_seed(seed: u64);
    }

    /// The same with this seed, likelihood and size of batches in every part that sets none of its own.
    pub fn resolved(&self) -> Self {
        let mut config = self.clone();
        config.trainer.seed.get_or_insert(self.seed);
        config.trainer.likelihood.get_or_insert_with(|| self.likelihood.clone());
        config.curvature = config.curvature.resolved_in(&self.likelihood, self.limits);
        config
    }

    /// Checks every bound of every part.
    ///
    /// # Errors
    /// Names the field, its bound and its value.
    pub fn validate(&self) -> Result<()> {
        let Self { lora, trainer, curvature, laplace, predictive, likelihood, limits, seed: _ } = self.resolved();
        lora.validate()?;
        trainer.validate()?;
        curvature.validate()?;
        laplace.validate()?;
        predictive.validate()?;
        limits.validate()?;
        likelihood.check()
    }

    /// Checks every field once, and hands the parts what they share.
    ///
    /// # Errors
    /// As [`BayesLoraConfig::validate`].
    pub fn init(self) -> Result<BayesLora> {
        self.validate()?;
        let config = self.resolved();
        let trainer = Trainer::new(config.trainer.clone())?;
        Ok(BayesLora { config, trainer })
    }
}

/// The result of a fit: an adapter with its posterior, or the reason why there is none, with the adapter if it was trained by then.
pub type FitResult<M> = std::result::Result<FittedBayesLora<M>, FitError<M>>;

/// A checked configuration, ready to fit.
#[derive(Debug, Clone)]
pub struct BayesLora {
    config: BayesLoraConfig,
    trainer: Trainer,
}

impl BayesLora {
    /// Attaches an adapter, trains it, and fits its posterior. Where the result is to be saved, ask for its place first
    /// ([`claim_dir`]): a directory that refuses is better known before the work.
    ///
    /// # Errors
    /// As [`attach`], [`Trainer::fit`] and [`BayesLora::fit_laplace`]; if training and curvature have different likelihoods. Once the
    /// adapter is trained, the error holds it.
    pub fn fit<M: Classifier, D: Dataset<Input = M::Input>>(&self, model: M, data: &D) -> FitResult<M> {
        self.fit_with(model, data, None, &Control::silent())
    }

    /// The same with validation during training, progress and cancellation.
    ///
    /// # Errors
    /// As [`BayesLora::fit`], and if the caller cancels.
    pub fn fit_with<M: Classifier, D: Dataset<Input = M::Input>>(
        &self,
        model: M,
        data: &D,
        validation: Option<&D>,
        control: &Control,
    ) -> FitResult<M> {
        self.config.curvature.check_trained_by(&self.config.trainer.likelihood_or_default())?;
        let model = attach(model, &self.config.lora, self.config.seed)?;
        let TrainOutcome { model, best, report, .. } = self.trainer.fit(model, data, validation, control)?;
        let lora = self.config.lora.clone();
        self.with_posterior(Trained { model, best_validation: best, report: Some(report), lora }, data, control)
    }

    /// Says what curvature and posterior of a model with its adapter will take on `data`, before anything runs.
    ///
    /// # Errors
    /// As [`estimate_posterior`].
    pub fn estimate<M: Classifier, D: Dataset<Input = M::Input>>(&self, model: &M, data: &D) -> Result<PosteriorCost> {
        let BayesLoraConfig { curvature, laplace, limits, .. } = &self.config;
        estimate_posterior(model, data, (curvature, laplace), *limits)
    }

    /// Fits the posterior of an adapter that is already trained (and leaves it as it is).
    ///
    /// # Errors
    /// As [`fit_curvature`] and [`Laplace::fit`]; the error holds the model.
    pub fn fit_laplace<M: Classifier, D: Dataset<Input = M::Input>>(&self, model: M, data: &D) -> FitResult<M> {
        self.fit_laplace_with(model, data, &Control::silent())
    }

    /// The same with progress and cancellation.
    ///
    /// # Errors
    /// As [`BayesLora::fit_laplace`], and if the caller cancels.
    pub fn fit_laplace_with<M: Classifier, D: Dataset<Input = M::Input>>(
        &self,
        model: M,
        data: &D,
        control: &Control,
    ) -> FitResult<M> {
        let lora = self.config.lora.clone();
        self.with_posterior(Trained { model, best_validation: None, report: None, lora }, data, control)
    }

    /// The adapter with its posterior, or with the reason why it has none.
    fn with_posterior<M: Classifier, D: Dataset<Input = M::Input>>(
        &self,
        trained: Trained<M>,
        data: &D,
        control: &Control,
    ) -> FitResult<M> {
        let start = Instant::now();
        let posterior = fit_curvature(&trained.model, data, &self.config.curvature, control).and_then(|curvature| {
            let BayesLoraConfig { laplace, limits, .. } = &self.config;
            let laplace = Laplace::fit(&trained.model, &curvature, data, laplace, limits, control)?;
            let (curvature_seconds, start) = (start.elapsed().as_secs_f64(), Instant::now());
            let training_fit = self.training_fit(&trained.model, &laplace, data, control)?;
            Ok((laplace, training_fit, curvature_seconds, start.elapsed().as_secs_f64()))
        });
        let trained = Trained { model: trained.model.valid(), ..trained };
        let (laplace, training_fit, curvature_seconds, training_fit_seconds) = match posterior {
            Ok(posterior) => posterior,
            Err(reason) => return Err(FitError { reason, trained: Some(Box::new(trained)) }),
        };
        let Trained { model, best_validation, report, lora } = trained;
        Ok(FittedBayesLora {
            model,
            best_validation,
            training_fit,
            laplace,
            curvature_seconds,
            training_fit_seconds,
            report,
            lora,
            predictive: self.config.predictive,
            limits: self.config.limits,
        })
    }

    /// What the posterior makes of its own training items; asked only where the evidence chose its width, and by the default link,
    /// which suits any number of classes.
    fn training_fit<M: Classifier, D: Dataset<Input = M::Input>>(
        &self,
        model: &M,
        laplace: &Laplace,
        data: &D,
        control: &Control,
    ) -> Result<Option<TrainingFit>> {
        let BayesLoraConfig { laplace: LaplaceConfig { prior, .. }, limits, .. } = &self.config;
        match prior {
            PriorChoice::Matched | PriorChoice::Fixed(_) => Ok(None),
            PriorChoice::Evidence | PriorChoice::EvidenceAtMode | PriorChoice::MatchedOrEvidence => {
                TrainingFit::measure(model, laplace, data, LinkApprox::default(), limits, control)
            }
        }
    }
}

/// A trained adapter with its posterior.
#[derive(Debug, Clone)]
pub struct FittedBayesLora<M> {
    /// The model at the trained adapter.
    pub model: M,
    /// The model at the epoch with the best validation NLL, where there was validation; the posterior is not about it.
    pub best_validation: Option<M>,
    /// The posterior over the adapter.
    pub laplace: Laplace,
    /// What the posterior makes of its own training items, where its prior precision is that with the most evidence; `None` for one
    /// that was loaded.
    pub training_fit: Option<TrainingFit>,
    /// Wall-clock seconds that curvature and posterior took; zero for a posterior that was loaded.
    pub curvature_seconds: f64,
    /// Wall-clock seconds that [`FittedBayesLora::training_fit`] took; zero where it was not asked for.
    pub training_fit_seconds: f64,
    /// What happened during training, where there was any.
    pub report: Option<TrainReport>,
    /// The adapter's configuration.
    pub lora: LoraConfig,
    /// How [`FittedBayesLora::predict_calibrated`] predicts.
    pub predictive: Predictive,
    /// Size of a batch of predictions.
    pub limits: BatchLimits,
}

impl<M: Classifier> FittedBayesLora<M> {
    /// Saves the adapter as PEFT does and the posterior beside it, as [`POSTERIOR_FILE`]; each file in one step. `base_model`
    /// is the name under which PEFT finds the base.
    ///
    /// # Errors
    /// As [`save_peft`] and [`Laplace::save`]; nothing is written where `dir` refuses, or lacks the room for both.
    pub fn save(&self, dir: impl AsRef<Path>, base_model: &str) -> Result<()> {
        let dir = dir.as_ref();
        let adapter = 4 * summarize(&self.model).n_adapter as u64;
        claim_dir(dir, adapter + self.posterior_bytes())?;
        save_peft(&self.model, &self.lora, base_model, dir)?;
        self.laplace.save(dir.join(POSTERIOR_FILE), &self.model)
    }

    /// Saves the posterior alone, to a file of any name: for an adapter whose directory belongs to somebody else.
    ///
    /// # Errors
    /// As [`Laplace::save`].
    pub fn save_posterior_to(&self, path: impl AsRef<Path>) -> Result<()> {
        claim_file(&path, self.posterior_bytes())?;
        self.laplace.save(path, &self.model)
    }

    /// About the size of the posterior's file.
    fn posterior_bytes(&self) -> u64 {
        self.laplace.blocks().iter().map(|block| block.bytes() as u64).sum()
    }

    /// Loads an adapter and its posterior from `dir` onto a base model. It predicts bit by bit as what was saved, in the default
    /// way and with the given batches; no training data are needed.
    ///
    /// # Errors
    /// As [`load_peft`] and [`Laplace::load`].
    pub fn load(model: M, dir: impl AsRef<Path>, limits: BatchLimits) -> Result<Self> {
        let posterior = dir.as_ref().join(POSTERIOR_FILE);
        Self::load_with_posterior(model, dir, posterior, limits)
    }

    /// The same with the posterior of a file elsewhere; the adapter's directory is only read.
    ///
    /// # Errors
    /// As [`FittedBayesLora::load`].
    pub fn load_with_posterior(
        model: M,
        adapter: impl AsRef<Path>,
        posterior: impl AsRef<Path>,
        limits: BatchLimits,
    ) -> Result<Self> {
        limits.validate()?;
        let (model, lora) = load_peft(model, adapter)?;
        let laplace = Laplace::load(posterior, &model)?;
        Ok(Self {
            model: model.valid(),
            best_validation: None,
            laplace,
            training_fit: None,
            curvature_seconds: 0.0,
            training_fit_seconds: 0.0,
            report: None,
            lora,
            predictive: Predictive::default(),
            limits,
        })
    }

    /// Predicts with the posterior, in the configured way: probabilities, logit covariance, and the split of the
    /// uncertainty.
    ///
    /// # Errors
    /// As [`predict`].
    pub fn predict_calibrated<D: Dataset<Input = M::Input>>(&self, data: &D) -> Result<Prediction> {
        self.predict(data, self.predictive, &Control::silent())
    }

    /// The same with the prior precision that suits labelled held-out items best, in place of the one with the most evidence.
    ///
    /// One pass over the items; nothing is fitted again. Take items that the adapter was not trained on. It is the linearised predictive
    /// whose likelihood decides, also where predictions are configured to be sampled.
    ///
    /// # Errors
    /// As [`HeldOut::new`] and [`HeldOut::tune`].
    pub fn tune_prior<D: Dataset<Input = M::Input>>(mut self, held_out: &D, control: &Control) -> Result<Self> {
        let held_out = HeldOut::new(&self.model, &self.laplace, held_out, &self.limits, control)?;
        let tuned = held_out.tune(self.laplace.prior_precisions(), self.predictive.tuning_link())?;
        self.laplace = self.laplace.with_tuned_prior(tuned)?;
        self.training_fit = None;
        Ok(self)
    }

    /// Predicts targets of any kind, noise included, in the configured way.
    ///
    /// # Errors
    /// As [`predict_targets`].
    pub fn predict_targets<D: Dataset<Input = M::Input>>(&self, data: &D) -> Result<TargetPrediction> {
        predict_targets(&self.model, &self.laplace, data, self.predictive, &self.limits, &Control::silent())
    }

    /// What a user of the posterior must know, in words: searches for prior precisions that ended at a bound, and training items
    /// whose answers the posterior ruins ([`TrainingFit::warning`]). Programs print it.
    pub fn remarks(&self) -> Vec<String> {
        let searches = self.laplace.prior_searches().iter().filter_map(Search::remark);
        searches.chain(self.training_fit.and_then(|fit| fit.warning())).collect()
    }

    /// Predicts in any way, with progress and cancellation.
    ///
    /// # Errors
    /// As [`predict`].
    pub fn predict<D: Dataset<Input = M::Input>>(
        &self,
        data: &D,
        how: Predictive,
        control: &Control,
    ) -> Result<Prediction> {
        predict(&self.model, &self.laplace, data, how, &self.limits, control)
    }
}
