//! The whole path in three calls: configure, fit, predict.

mod fitted;
mod trained;

use crate::belief::LinkApprox;
use crate::curvature::{Curvature, CurvatureConfig, fit_curvature};
use crate::data::BatchLimits;
use crate::error::Result;
use crate::likelihood::SharedLikelihood;
use crate::lora::{LoraConfig, attach};
use crate::models::{Classifier, Dataset};
use crate::posterior::{Laplace, LaplaceConfig, PosteriorCost, estimate_posterior};
use crate::predict::{Predictive, TrainingFit};
use crate::prior::PriorChoice;
use crate::progress::Control;
use crate::setters::setters;
use crate::train::{TrainOutcome, Trainer, TrainerConfig};
pub use fitted::FittedBayesLora;
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
    /// ([`crate::outputs::claim_dir`]): a directory that refuses is better known before the work.
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
        self.with_posterior(self.untold(model), data, control)
    }

    /// Fits the posterior on curvature that is there, such as that of merged shards ([`crate::curvature::CurvatureShard`]), in place of the
    /// configured one; `data` are the items that it was summed over.
    ///
    /// # Errors
    /// As [`BayesLora::fit_laplace_with`].
    pub fn fit_laplace_on<M: Classifier, D: Dataset<Input = M::Input>>(
        &self,
        model: M,
        curvature: Curvature,
        data: &D,
        control: &Control,
    ) -> FitResult<M> {
        self.with_posterior_on(self.untold(model), Ok(curvature), data, control)
    }

    /// An adapter of whose training nothing is known.
    fn untold<M>(&self, model: M) -> Trained<M> {
        Trained { model, best_validation: None, report: None, lora: self.config.lora.clone() }
    }

    /// The adapter with its posterior, or with the reason why it has none.
    fn with_posterior<M: Classifier, D: Dataset<Input = M::Input>>(
        &self,
        trained: Trained<M>,
        data: &D,
        control: &Control,
    ) -> FitResult<M> {
        let start = Instant::now();
        let curvature = fit_curvature(&trained.model, data, &self.config.curvature, control);
        let mut fitted = self.with_posterior_on(trained, curvature, data, control)?;
        fitted.curvature_seconds = start.elapsed().as_secs_f64() - fitted.training_fit_seconds;
        Ok(fitted)
    }

    fn with_posterior_on<M: Classifier, D: Dataset<Input = M::Input>>(
        &self,
        trained: Trained<M>,
        curvature: Result<Curvature>,
        data: &D,
        control: &Control,
    ) -> FitResult<M> {
        let start = Instant::now();
        let posterior = curvature.and_then(|curvature| {
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
