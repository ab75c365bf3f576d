//! A trained adapter with its posterior: saved, loaded, asked.

use crate::data::BatchLimits;
use crate::error::Result;
use crate::lora::{LoraConfig, load_peft, save_peft, summarize};
use crate::models::{Classifier, Dataset};
use crate::outputs::{claim_dir, claim_file};
use crate::posterior::{DrawnHeldOut, HeldOut, Laplace, POSTERIOR_FILE};
use crate::predict::{Prediction, Predictive, TargetPrediction, TrainingFit, predict, predict_targets};
use crate::progress::Control;
use crate::search::Search;
use crate::train::TrainReport;
use std::path::Path;

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
    /// whose likelihood decides, also where predictions are configured to be sampled. Of texts it is the next-token distribution averaged over
    /// draws, and several passes ([`DrawnHeldOut`]).
    ///
    /// # Errors
    /// As [`HeldOut::new`] and [`HeldOut::tune`], or as [`DrawnHeldOut::new`] and [`DrawnHeldOut::tune`].
    pub fn tune_prior<D: Dataset<Input = M::Input>>(mut self, held_out: &D, control: &Control) -> Result<Self> {
        let (model, laplace, limits) = (&self.model, &self.laplace, &self.limits);
        let tuned = if laplace.likelihood().draws_in_model() {
            let draws = (DrawnHeldOut::<M, D>::DRAWS, 0);
            DrawnHeldOut::new(model, laplace, held_out, draws, limits, control)?.tune()?
        } else {
            let link = self.predictive.tuning_link();
            HeldOut::new(model, laplace, held_out, limits, control)?.tune(laplace.prior_precisions(), link)?
        };
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
