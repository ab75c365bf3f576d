//! From a trained adapter to its posterior, and what to tell of it.

use crate::flags::PosteriorArguments;
use crate::kinds::Data;
use crate::session::Outcome;
use crate::session::Session;
use bayes_lora::bayes_lora::{BayesLoraConfig, FittedBayesLora};
use bayes_lora::curvature::{CurvatureConfig, estimate_cost, fit_curvature};
use bayes_lora::data::BatchLimits;
use bayes_lora::likelihood::{Gaussian, SharedLikelihood, TargetSpace};
use bayes_lora::lora::{Adaptable, LoraConfig, summarize};
use bayes_lora::models::{Classifier, Dataset};
use bayes_lora::number::{bytes_text, significant};
use bayes_lora::outputs::{claim_file, save_or_rescue};
use bayes_lora::posterior::{Laplace, LaplaceConfig, LinearizedModel, PosteriorCost, estimate_linearized};
use bayes_lora::prior::{PriorChoice, PriorPrecision};
use bayes_lora::progress::Control;
use serde::Serialize;
use std::path::{Path, PathBuf};

/// How posteriors are fitted.
pub struct Fitting<'a> {
    pub flags: &'a PosteriorArguments,
    pub limits: BatchLimits,
    pub seed: u64,
    /// The noise variance of a regression, where the user says it.
    pub noise_variance: Option<f64>,
}

impl Fitting<'_> {
    pub fn bayes(&self, lora: LoraConfig, likelihood: &SharedLikelihood) -> BayesLoraConfig {
        BayesLoraConfig::new(lora)
            .with_curvature(self.flags.curvature(likelihood, self.seed))
            .with_laplace(self.flags.laplace())
            .with_likelihood(likelihood.clone())
            .with_limits(self.limits)
            .with_seed(self.seed)
    }

    /// The posterior of `model`, which carries its adapter; says first what it will take, and asks for the room.
    pub fn fit<M: Classifier + 'static, D: Dataset<Input = M::Input>>(
        &self,
        model: M,
        lora: LoraConfig,
        data: &Data<D>,
        file: &Path,
        (session, control): (&Session, &Control),
    ) -> Outcome<FittedBayesLora<M>> {
        let train = &data.splits.train;
        if let Some(cost) = self.noise_cost(&model, data)? {
            session.say(format_args!("noise, which is found first: {cost}"));
        }
        let likelihood = self.likelihood(&model, data, control)?;
        let bayes = self.bayes(lora, &likelihood).init()?;
        let cost = bayes.estimate(&model, train)?;
        session.say(format_args!("{cost}"));
        // a posterior takes about the room of its sums, and some for the header and the prior's centre
        claim_file(file, cost.curvature.bytes + cost.curvature.bytes / 4)?;
        let fitted = bayes.fit_laplace_with(model, train, control)?;
        match &data.splits.held_out {
            None => Ok(fitted),
            Some(held_out) => Ok(fitted.tune_prior(held_out, control)?),
        }
    }

    /// Whether a noise variance is found before the posterior: of numbers, where the user says none.
    fn finds_noise<D>(&self, data: &Data<D>) -> bool {
        let given = &data.likelihood;
        given.target_space() != TargetSpace::Classes && !given.draws_in_model() && self.noise_variance.is_none()
    }

    /// How the passes are run that find the noise.
    fn of_noise<D>(&self, data: &Data<D>) -> (CurvatureConfig, LaplaceConfig) {
        let given = &data.likelihood;
        let curvature = self.flags.curvature(given, self.seed).with_likelihood(given.clone()).with_limits(self.limits);
        (curvature, self.flags.laplace().with_leave_one_out_temperature(false))
    }

    /// What finding the noise will take, before the posterior's own passes.
    pub fn noise_cost<M: Classifier, D: Dataset<Input = M::Input>>(
        &self,
        model: &M,
        data: &Data<D>,
    ) -> Outcome<Option<PosteriorCost>> {
        if !self.finds_noise(data) {
            return Ok(None);
        }
        let (train, (curvature, config)) = (&data.splits.train, self.of_noise(data));
        let linearized = estimate_linearized(model, train, &curvature, &config.linearized.resolved_in(self.limits))?;
        Ok(Some(PosteriorCost { curvature: estimate_cost(model, train, &curvature)?, linearized: Some(linearized) }))
    }

    /// The likelihood of the posterior: of numbers, the noise with the most evidence, where the user says none.
    pub fn likelihood<M: Classifier, D: Dataset<Input = M::Input>>(
        &self,
        model: &M,
        data: &Data<D>,
        control: &Control,
    ) -> Outcome<SharedLikelihood> {
        if !self.finds_noise(data) {
            return Ok(data.likelihood.clone());
        }
        let (train, (curvature, config)) = (&data.splits.train, self.of_noise(data));
        let curvature = fit_curvature(model, train, &curvature, control)?;
        let unit = config.with_prior(PriorChoice::Fixed(PriorPrecision::new(1.0)?));
        let laplace = Laplace::new(model, &curvature, &unit)?;
        let linearized = config.linearized.resolved_in(self.limits);
        let found = LinearizedModel::of(model, &laplace, train, &linearized, control)?.optimal_noise();
        let found = found.map_err(|error| format!("{error}: give `--noise-variance`"))?;
        Ok(Gaussian { noise_variance: found.noise_variance }.into())
    }
}

/// What to tell of a posterior.
#[derive(Serialize)]
pub struct PosteriorReport {
    pub posterior: PathBuf,
    pub bytes: u64,
    pub structure: String,
    pub likelihood: String,
    /// Training items.
    pub items: usize,
    pub prior_precisions: Vec<f64>,
    pub prior_found_by: &'static str,
    pub effective_dimension: f64,
    pub weights: usize,
    /// In nats, over the training items; unknown where one has no label.
    pub log_evidence: Option<f64>,
    /// Of answers, where one was found.
    pub temperature: Option<f64>,
    pub remarks: Vec<String>,
}

impl PosteriorReport {
    /// Saves the posterior, and says what it is.
    pub fn save<M: Adaptable>(
        model: &M,
        laplace: &Laplace,
        file: &Path,
        (found_by, mut remarks): (&'static str, Vec<String>),
    ) -> Outcome<Self> {
        remarks.extend(laplace.answer_temperatures().and_then(|answers| answers.posterior.remark()));
        save_or_rescue(file, |path| laplace.save(path, model))?;
        let evidence = laplace.log_likelihood().map(|_| laplace.log_marginal_likelihood(laplace.prior_precisions()));
        Ok(Self {
            posterior: file.to_path_buf(),
            bytes: std::fs::metadata(file)?.len(),
            structure: laplace.structure().to_string(),
            likelihood: laplace.likelihood().to_string(),
            items: laplace.fitted_on().n_items,
            prior_precisions: laplace.prior_precisions().values().iter().map(|precision| precision.value()).collect(),
            prior_found_by: found_by,
            effective_dimension: laplace.effective_dimension(),
            weights: summarize(model).n_adapter,
            log_evidence: evidence.transpose()?,
            temperature: laplace.answer_temperatures().map(|answers| 1.0 / answers.posterior.value),
            remarks,
        })
    }
}

/// In words, how a prior precision was found.
pub fn found_by(flags: &PosteriorArguments, tuned: bool) -> &'static str {
    match flags.prior.0 {
        _ if tuned => "held-out items",
        PriorChoice::Fixed(_) => "the command line",
        PriorChoice::Evidence => "evidence",
        PriorChoice::EvidenceAtMode => "evidence at the mode",
        PriorChoice::Matched | PriorChoice::MatchedOrEvidence => "the training items, or evidence where none matches",
    }
}

impl std::fmt::Display for PosteriorReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let precisions: Vec<String> = self.prior_precisions.iter().map(|value| significant(*value)).collect();
        writeln!(f, "posterior: {} ({})", self.posterior.display(), bytes_text(self.bytes))?;
        writeln!(f, "structure: {}, over {} items, likelihood {}", self.structure, self.items, self.likelihood)?;
        writeln!(f, "prior precision: {}, by {}", precisions.join(", "), self.prior_found_by)?;
        write!(f, "effective dimension: {} of {} weights", significant(self.effective_dimension), self.weights)?;
        match self.log_evidence {
            Some(evidence) => write!(f, "\nlog evidence: {} nats over the training items", significant(evidence))?,
            None => write!(f, "\nlog evidence: unknown, as a training item has no label")?,
        }
        if let Some(temperature) = self.temperature {
            write!(f, "\ntemperature of answers: {}", significant(temperature))?;
        }
        self.remarks.iter().try_for_each(|remark| write!(f, "\nnote: {remark}"))
    }
}
