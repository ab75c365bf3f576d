//! IVON: a Gaussian over A and B with a diagonal covariance, learned as the curvature of an optimiser.

use super::adapter_training::{moved, settings, start};
use super::belief::SampledBelief;
use super::bounds::{check_not_negative, check_positive, check_some};
use super::gaussian::{GaussianAdapter, bytes_of};
use super::ivon_step::{IvonMoments, IvonStep};
use super::method::{FitContext, Fitted, Method, NoiseSharing, Requirements, Spent};
use super::rule_state::{RuleState, check_fits};
use crate::draws::{Purpose, generator, normals, place};
use crate::error::{Error, Result};
use crate::identity::Identity;
use crate::lora::{Adaptable, AdapterWeights, adapter_gradients, read_adapter, write_adapter};
use crate::models::{Classifier, Dataset};
use crate::setters::setters;
use crate::tape::Site;
use crate::train::{StepPosition, TrainerConfig, UpdateRule};
use burn::optim::GradientsParams;
use ndarray::{Array2, Zip};

/// `q(θ) = N(m, diag v)` over A and B, `v = 1/(ess·(h + δ))`, trained in place of AdamW by the gradient at one draw a step
/// ([`IvonStep`] has the formulas). With `ess = N` and `δ = λ/N` a quadratic loss with a diagonal Hessian gets its exact
/// posterior under the prior `N(0, 1/λ)` (to `O(1 − β₂)`).
///
/// It trains by the recipe, from a start of its own, with these differences: the rate is IVON's; the objective is the likelihood
/// (the prior is δ); and the gradient is **not clipped**, for ĥ is a product with the gradient, so that a scaled gradient scales
/// the curvature and with it the variance.
///
/// Two settings are not Bayes at temperature 1 ([`Ivon::at_temperature_1`]) and cannot well be: published runs set `δ = 0`, so that
/// the prior is improper and a weight whose curvature is near 0 has no bound on its variance, and an ess of 200 to 40,000 times N, a
/// very cold posterior. With ess = N the noise of a weight that the data do not hold is the prior's, and A and B are multiplied:
/// a product of noises drowns what few items say. The default is cold too.
/// The recipe's weight decay is not applied: the prior is here.
///
/// Shen et al. (2024), arXiv 2402.17641, algorithm 1; Cong et al. (2024), arXiv 2411.04421; Cong et al. (2025), arXiv 2506.14280.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
#[non_exhaustive]
pub struct Ivon {
    /// Peak learning rate; warm-up and decay are the recipe's. `None` takes the recipe's rate over ξ: no step of a weight is
    /// longer than the rate times ξ, and with AdamW hardly any is longer than its rate.
    pub learning_rate: Option<f64>,
    /// ess; `None` for the number of training items.
    pub effective_sample_size: Option<f64>,
    /// λ, the precision of the prior `N(0, 1/λ)` on every weight: `δ = λ/ess`.
    pub prior_precision: f64,
    /// h before the first step, in nats per item and squared weight.
    pub initial_hessian: f64,
    /// β₁
    pub beta_1: f64,
    /// β₂
    pub beta_2: f64,
    /// ξ, the largest change of a weight in units of the rate; `None` does not clip.
    pub clip: Option<f64>,
    /// Multiplies the rate by `h₀ + δ`, so that the first steps are as long as plain gradient descent's.
    pub rescale_lr: bool,
    /// Number of draws at prediction.
    pub n_samples: usize,
}

impl Default for Ivon {
    /// The published optimiser at ess 1e6 (deviations of 0.03 at the start), in steps as long as the recipe's: published runs have
    /// 10,000 steps of at most 3e-5, which in a short run lead nowhere.
    fn default() -> Self {
        Self { learning_rate: None, ..Self::published(1e6) }
    }
}

impl Ivon {
    /// The published settings at an ess: 1e7 for WinoGrande-S and BoolQ, 1e8 for WinoGrande-M, 1e6 for ARC and OBQA. δ = 0.
    pub fn published(effective_sample_size: f64) -> Self {
        Self {
            learning_rate: Some(0.03),
            effective_sample_size: Some(effective_sample_size),
            prior_precision: 0.0,
            initial_hessian: 1e-3,
            beta_1: 0.9,
            beta_2: 0.99999,
            clip: Some(1e-3),
            rescale_lr: false,
            n_samples: 10,
        }
    }

    /// Bayes at temperature 1 under the prior `N(0, 1/λ)`: ess = N, δ = λ/N.
    pub fn at_temperature_1(prior_precision: f64) -> Self {
        Self { effective_sample_size: None, prior_precision, ..Self::default() }
    }

    setters! {
        /// Sets the peak learning rate; `None` takes the recipe's over ξ.
        with_learning_rate(learning_rate: impl Into<Option<f64>>);
        /// Sets ess; `None` takes the number of training items.
        with_effective_sample_size(effective_sample_size: impl Into<Option<f64>>);
        /// Sets λ.
        with_prior_precision(prior_precision: f64);
        /// Sets h before the first step.
        with_initial_hessian(initial_hessian: f64);
        /// Sets β₁.
        with_beta_1(beta_1: f64);
        /// Sets β₂.
        with_beta_2(beta_2: f64);
        /// Sets ξ; `None` does not clip.
        with_clip(clip: impl Into<Option<f64>>);
        /// Says whether the rate is multiplied by `h₀ + δ`.
        with_rescale_lr(rescale_lr: bool);
        /// Sets the number of draws at prediction.
        with_n_samples(n_samples: usize);
    }

    /// Checks every bound.
    ///
    /// # Errors
    /// Names the field, its bound and its value.
    pub fn validate(&self) -> Result<()> {
        check_some("n_samples", self.n_samples)?;
        self.rate(1.0)?;
        self.check_bounds()
    }

    /// The peak learning rate beside a recipe's.
    fn rate(&self, of_recipe: f64) -> Result<f64> {
        match (self.learning_rate, self.clip) {
            (Some(rate), _) => check_positive("learning_rate", rate).map(|()| rate),
            (None, Some(clip)) => Ok(of_recipe / clip),
            (None, None) => Err(Error::config("learning_rate", "given where steps are not clipped", "none")),
        }
    }

    /// Checks what the rule reads: where it is run by itself, the trainer's rate counts.
    fn check_bounds(&self) -> Result<()> {
        check_not_negative("prior_precision", self.prior_precision)?;
        check_not_negative("initial_hessian", self.initial_hessian)?;
        for (field, beta) in [("beta_1", self.beta_1), ("beta_2", self.beta_2)] {
            if !(0.0..1.0).contains(&beta) {
                return Err(Error::config(field, "in [0, 1)", beta));
            }
        }
        for (field, value) in [("effective_sample_size", self.effective_sample_size), ("clip", self.clip)] {
            value.map_or(Ok(()), |value| check_positive(field, value))?;
        }
        Ok(())
    }

    /// The rule for `n_items` training items, with draws from `seed`.
    ///
    /// # Errors
    /// Names the field that is out of bounds.
    pub fn rule(&self, n_items: usize, seed: u64) -> Result<IvonRule> {
        self.check_bounds()?;
        let ess = self.effective_sample_size.unwrap_or(n_items as f64);
        check_positive("effective_sample_size", ess)?;
        let delta = self.prior_precision / ess;
        check_positive("initial_hessian + prior_precision/ess", self.initial_hessian + delta)?;
        let step = IvonStep { ess, delta, beta_1: self.beta_1, beta_2: self.beta_2, clip: self.clip };
        let factor = if self.rescale_lr { self.initial_hessian + delta } else { 1.0 };
        let (momentum, hessian) = (AdapterWeights::new(), AdapterWeights::new());
        Ok(IvonRule { step, initial_hessian: self.initial_hessian, factor, seed, updates: 0, momentum, hessian })
    }
}

impl<M: Classifier, D: Dataset<Input = M::Input>> Method<M, D> for Ivon {
    fn name(&self) -> String {
        "IVON".into()
    }

    fn identity(&self) -> Result<Identity> {
        Identity::of(self)
    }

    fn validate(&self) -> Result<()> {
        Ivon::validate(self)
    }

    fn describe(&self) -> String {
        let ess = self.effective_sample_size.map_or("N".into(), |ess| ess.to_string());
        format!(
            "{} draws, ess {ess}, prior precision {}, rate {}, h0 {}, betas {} and {}, clip {:?}, rescale_lr {}",
            self.n_samples,
            self.prior_precision,
            self.learning_rate.map_or("the recipe's over clip".into(), |rate| rate.to_string()),
            self.initial_hessian,
            self.beta_1,
            self.beta_2,
            self.clip,
            self.rescale_lr
        )
    }

    fn sharing(&self) -> Option<NoiseSharing> {
        Some(NoiseSharing::Coherent)
    }

    fn requirements(&self) -> Requirements {
        Requirements { map: false, adapter_alone: true, ..Requirements::default() }
    }

    fn fit(&self, context: &FitContext<M, D>) -> Result<Fitted<M, D>> {
        context.check(self)?;
        let mut rule = self.rule(context.train.n_items(), context.seed)?;
        let recipe = settings(context);
        let learning_rate = self.rate(recipe.learning_rate)?;
        let config = TrainerConfig { learning_rate, max_grad_norm: None, ..recipe };
        let outcome = context.train_by(&mut rule, config, start(context)?)?;
        let mean = read_adapter(&outcome.model)?;
        let deviations = rule.deviations(&mean)?;
        let sd = || deviations.values().flatten().copied();
        let (smallest, largest) = (sd().fold(f64::INFINITY, f64::min), sd().fold(0.0, f64::max));
        let (sum, count) = rule.hessian.values().fold((0.0, 0), |(s, n), h| (s + h.sum(), n + h.len()));
        let bytes = bytes_of(&mean) + bytes_of(&deviations);
        let sampler = GaussianAdapter::new(mean, deviations, Vec::new())?;
        let belief = SampledBelief { sampler, n_samples: self.n_samples, seed: context.seed, bytes };
        Ok(Fitted::new(belief)
            .with_spent(Spent::training(outcome.report.items))
            .with_found("mean h", sum / count.max(1) as f64)
            .with_found("smallest sd", smallest)
            .with_found("largest sd", largest))
    }
}

/// IVON as a rule of the trainer: the gradient is taken at `θ = m + √v z`, m is the model's adapter. Nothing but A and B moves.
///
/// z is a function of (seed, site, step), so that a run taken up from a checkpoint draws what the whole run would have drawn.
#[derive(Debug, Clone)]
pub struct IvonRule {
    step: IvonStep,
    initial_hessian: f64,
    /// Of the learning rate.
    factor: f64,
    seed: u64,
    updates: u64,
    momentum: AdapterWeights,
    hessian: AdapterWeights,
}

/// Names of what the state holds.
const MOMENTUM: &str = "momentum";
const HESSIAN: &str = "hessian";

impl IvonRule {
    /// The standard deviations `√v` of an adapter's weights.
    ///
    /// # Errors
    /// If the state is that of another adapter.
    pub fn deviations(&self, adapter: &AdapterWeights) -> Result<AdapterWeights> {
        if self.hessian.is_empty() {
            let sd = self.step.deviation(self.initial_hessian);
            return Ok(adapter.iter().map(|(site, w)| (site.clone(), w.mapv(|_| sd))).collect());
        }
        for kept in [&self.momentum, &self.hessian] {
            check_fits(kept, adapter, |_, w| Some(w.dim()))?;
        }
        Ok(adapter.keys().map(|site| (site.clone(), self.hessian[site].mapv(|h| self.step.deviation(h)))).collect())
    }

    /// z of a step; not the stream of the posterior's draws under the same seed.
    fn noise(&self, site: &Site, shape: (usize, usize), step: usize) -> Array2<f64> {
        normals(&mut generator(self.seed, Purpose::IvonStep, place(site), step as u64), shape)
    }
}

impl<M: Adaptable> UpdateRule<M> for IvonRule {
    fn identity(&self) -> Result<Identity> {
        let Self { step, initial_hessian, factor, seed, updates: _, momentum: _, hessian: _ } = self;
        let identity = Identity::new().with("rule", "IVON").with_part("step", Identity::of(step)?);
        Ok(identity.with("initial_hessian", initial_hessian).with("factor", factor).with("seed", seed))
    }

    fn point(&mut self, model: &M, position: StepPosition) -> Result<M> {
        let mut weights = read_adapter(model)?;
        let deviations = self.deviations(&weights)?;
        for (site, w) in &mut weights {
            let z = self.noise(site, w.dim(), position.step);
            Zip::from(w).and(&deviations[site]).and(&z).for_each(|w, sd, z| *w += sd * z);
        }
        write_adapter(model.clone(), &weights)
    }

    fn update(&mut self, model: M, found: GradientsParams, position: StepPosition) -> Result<M> {
        let mut weights = read_adapter(&model)?;
        let gradients = adapter_gradients(&model, &found)?;
        self.updates += 1;
        let rate = position.learning_rate * self.factor;
        for (site, mean) in &mut weights {
            let z = self.noise(site, mean.dim(), position.step);
            let momentum = self.momentum.entry(site.clone()).or_insert_with(|| Array2::zeros(mean.dim()));
            let initial = self.initial_hessian;
            let hessian = self.hessian.entry(site.clone()).or_insert_with(|| Array2::from_elem(mean.dim(), initial));
            let estimate = self.step.estimate(&gradients[site], &z, hessian);
            let moments = IvonMoments { mean, momentum, hessian };
            self.step.update(moments, (&gradients[site], &estimate), self.updates, rate);
        }
        moved(model, &weights)
    }

    fn state(&self) -> Result<Vec<u8>> {
        let parts = [(MOMENTUM, &self.momentum), (HESSIAN, &self.hessian)];
        let parts = parts.into_iter().map(|(name, weights)| (name.to_string(), weights.clone())).collect();
        RuleState { updates: self.updates, parts, inner: Vec::new() }.to_bytes()
    }

    fn restore(&mut self, state: Vec<u8>) -> Result<()> {
        let mut state = RuleState::from_bytes(&state, &[MOMENTUM, HESSIAN])?;
        self.updates = state.updates;
        self.momentum = state.take(MOMENTUM);
        self.hessian = state.take(HESSIAN);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_out_of_bounds_are_refused_by_name() {
        let refused = |change: fn(&mut Ivon), part: &str| {
            let mut ivon = Ivon::default();
            change(&mut ivon);
            let error = ivon.rule(10, 0).unwrap_err().to_string();
            assert!(error.contains(part), "{error} lacks {part}");
        };
        refused(|i| i.effective_sample_size = Some(0.0), "effective_sample_size");
        refused(|i| i.prior_precision = -1.0, "prior_precision");
        refused(|i| i.initial_hessian = f64::NAN, "initial_hessian");
        refused(|i| i.beta_1 = 1.0, "beta_1");
        refused(|i| i.beta_2 = -0.1, "beta_2");
        refused(|i| i.clip = Some(0.0), "clip");
        // neither curvature nor prior: no variance
        refused(|i| (i.initial_hessian, i.prior_precision) = (0.0, 0.0), "initial_hessian + prior_precision/ess");
        assert!(Ivon::default().rule(10, 0).is_ok() && Ivon::published(1e7).rule(10, 0).is_ok());
    }

    #[test]
    fn settings_are_cold_without_a_prior_or_bayes_at_temperature_1() {
        let bayes = Ivon::at_temperature_1(2500.0).rule(640, 0).unwrap();
        assert_eq!((bayes.step.ess, bayes.step.delta * bayes.step.ess), (640.0, 2500.0));
        let published = Ivon::published(1e7).rule(640, 0).unwrap();
        assert_eq!((published.step.ess, published.step.delta, published.factor), (1e7, 0.0, 1.0));
        let rescaled = Ivon { rescale_lr: true, ..Ivon::published(1e7) }.rule(640, 0).unwrap();
        assert_eq!(rescaled.factor, 1e-3);
        // a clipped step is as long as one of the recipe's
        assert_eq!(Ivon::default().rate(2e-3).unwrap() * 1e-3, 2e-3);
        assert_eq!(Ivon::published(1e7).rate(2e-3).unwrap(), 0.03);
        let error = Ivon { clip: None, ..Ivon::default() }.rate(2e-3).unwrap_err().to_string();
        assert!(error.contains("learning_rate"), "{error}");
    }
}
