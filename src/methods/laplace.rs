//! Laplace: a Gaussian around the trained adapter from the curvature there, in any structure.

use super::belief::{LinearizedBelief, SampledBelief, TemperedBelief};
use super::method::{FitContext, Fitted, Method, NoiseSharing, Requirements, Spent};
use crate::calibrate::Temperature;
use crate::curvature::{AdapterSubset, CurvatureConfig, CurvatureStructure};
use crate::draws::{self, Purpose};
use crate::error::{Error, Result};
use crate::identity::Identity;
use crate::models::{Classifier, Dataset};
use crate::posterior::{AnswerTemperatures, HeldOut, Laplace, LaplaceConfig, estimate_posterior, repetitions_in};
use crate::predict::Predictive;
use crate::prior::PriorChoice;
use crate::setters::setters;

/// `θ ~ N(θ*, T(H + λI)⁻¹)` with the curvature H of the training data, linearised or sampled.
///
/// Yang et al. (2024), arXiv 2308.13111; Daxberger et al. (2021), arXiv 2106.14806.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct LaplaceMethod {
    /// The curvature: structure, subset, Fisher information, treatment of tokens.
    pub curvature: CurvatureConfig,
    /// The prior and the temperature.
    pub laplace: LaplaceConfig,
    /// Take the prior precision with the least negative log-likelihood of the held-out items, whose labels are spent, in place of the one
    /// that `laplace` says. It is that of the linearised predictive, also where predictions are sampled.
    pub held_out_prior: bool,
    /// Linearised or sampled.
    pub predictive: Predictive,
}

impl LaplaceMethod {
    /// Defaults in a structure: prior by evidence, linearised.
    pub fn new(structure: CurvatureStructure) -> Self {
        Self {
            curvature: CurvatureConfig::new(structure),
            laplace: LaplaceConfig::default(),
            held_out_prior: false,
            predictive: Predictive::default(),
        }
    }

    /// Full curvature of the last adapted layer alone: the cheapest to store.
    pub fn last_layer() -> Self {
        let mut method = Self::new(CurvatureStructure::FunctionSpace);
        method.curvature.subset = AdapterSubset::LastLayer;
        method
    }

    setters! {
        /// Sets the curvature.
        with_curvature(curvature: CurvatureConfig);
        /// Sets the prior and the temperature.
        with_laplace(laplace: LaplaceConfig);
        /// Says whether held-out labels choose the prior precision.
        with_held_out_prior(held_out_prior: bool);
        /// Sets how it predicts: linearised or sampled.
        with_predictive(predictive: Predictive);
    }

    /// Checks every bound.
    ///
    /// # Errors
    /// Names the field, its bound and its value.
    pub fn validate(&self) -> Result<()> {
        self.curvature.validate()?;
        self.laplace.validate()?;
        self.predictive.validate()?;
        if self.predictive == Predictive::Map && !self.laplace.leave_one_out_temperature {
            return Err(Error::config(
                "predictive",
                "linearised or sampled, as its answers have no temperature",
                "Map",
            ));
        }
        if self.held_out_prior && self.laplace.prior.needs_training_items() {
            return Err(Error::config(
                "prior",
                "by evidence or fixed where held-out labels choose",
                self.laplace.prior,
            ));
        }
        Ok(())
    }

    /// The same with its prior precision chosen from the training items in this way.
    pub fn with_prior(mut self, prior: PriorChoice) -> Self {
        self.laplace.prior = prior;
        self
    }

    /// The same with the matched prior, and the temperature of answers that suits the training items when each is left out.
    pub fn with_leave_one_out_temperature(mut self) -> Self {
        (self.laplace.prior, self.laplace.leave_one_out_temperature) = (PriorChoice::Matched, true);
        self
    }
}

impl<M: Classifier, D: Dataset<Input = M::Input>> Method<M, D> for LaplaceMethod {
    fn name(&self) -> String {
        let mut name = format!("Laplace {}", self.curvature.structure);
        match &self.curvature.subset {
            AdapterSubset::All => {}
            AdapterSubset::WithoutHeads => name += ", without heads",
            AdapterSubset::LastLayer => name += ", last layer",
            AdapterSubset::OnlyA => name += ", A",
            AdapterSubset::OnlyB => name += ", B",
            AdapterSubset::Pattern(pattern) => name += &format!(", {pattern}"),
        }
        name += match self.laplace.prior {
            PriorChoice::Evidence | PriorChoice::Fixed(_) => "",
            PriorChoice::EvidenceAtMode => ", evidence at the mode",
            PriorChoice::Matched | PriorChoice::MatchedOrEvidence => ", matched prior",
        };
        if self.held_out_prior {
            name += ", held-out prior";
        }
        if self.laplace.leave_one_out_temperature {
            name += ", leave-one-out temperature";
        }
        match self.predictive {
            Predictive::Sampled { .. } => name += ", sampled",
            Predictive::Map => name = "maximum likelihood, leave-one-out temperature".into(),
            Predictive::Linearized(_) => {}
        }
        name
    }

    fn validate(&self) -> Result<()> {
        LaplaceMethod::validate(self)
    }

    fn describe(&self) -> String {
        // the structure is in the name; sizes of batches change an answer within its approximation, bounds on memory none
        let CurvatureConfig { subset, fisher, treatment, dense_limit, low_rank, projection, .. } = &self.curvature;
        let likelihood = self.curvature.likelihood_or_default();
        let LaplaceConfig {
            prior_mean,
            prior_grouping,
            prior,
            leave_one_out_temperature,
            temperature,
            without_residual,
            linearized,
        } = &self.laplace;
        let precision = if self.held_out_prior { "by held-out likelihood".into() } else { prior.to_string() };
        let mut text = format!(
            "{fisher:?} Fisher, {treatment:?}, prior precision {precision} ({prior_grouping:?}, mean {prior_mean:?}), temperature \
             {temperature}, {:?}",
            self.predictive
        );
        let usual = CurvatureConfig::default();
        let mut unusual = |is: bool, what: String| {
            if is {
                text += &format!(", {what}");
            }
        };
        unusual(matches!(subset, AdapterSubset::Pattern(_)), format!("{subset:?}"));
        unusual(likelihood != usual.likelihood_or_default(), format!("{likelihood} likelihood"));
        unusual(*low_rank != usual.low_rank, format!("low rank {low_rank}"));
        unusual(dense_limit.is_some(), format!("dense up to {}", dense_limit.unwrap_or_default()));
        unusual(projection.is_some(), format!("{projection:?}"));
        unusual(*without_residual, "without residual".into());
        unusual(*linearized != LaplaceConfig::default().linearized, format!("{linearized:?}"));
        unusual(*leave_one_out_temperature, "answers at the leave-one-out temperature".into());
        text
    }

    fn identity(&self) -> Result<Identity> {
        let Self { curvature, laplace, held_out_prior, predictive } = self;
        let with_curvature = Identity::new().with_part("curvature", curvature.identity());
        Ok(with_curvature
            .with_part("laplace", Identity::of(laplace)?)
            .with("held_out_prior", held_out_prior)
            .with("predictive", predictive))
    }

    fn requirements(&self) -> Requirements {
        Requirements {
            held_out_labels: self.held_out_prior,
            classes: self.laplace.leave_one_out_temperature,
            curvature: Some(self.curvature.clone()),
            ..Requirements::default()
        }
    }

    fn sharing(&self) -> Option<NoiseSharing> {
        matches!(self.predictive, Predictive::Sampled { .. }).then_some(NoiseSharing::Coherent)
    }

    fn fit(&self, context: &FitContext<M, D>) -> Result<Fitted<M, D>> {
        context.check(self)?;
        let n_classes = context.map.n_classes();
        let rows_per_item = if context.train.rows_are_choices() { n_classes } else { 1 };
        let curvature = context.resolve(&self.curvature);
        let settings = (&curvature, &self.laplace);
        let cost = estimate_posterior(context.map, context.train, settings, context.limits)?;
        let passes = cost.network_rows() as usize / rows_per_item;
        let mut spent = Spent { forwards: passes, backwards: passes, ..Spent::default() };
        let curvature = context.curvature(&curvature)?;
        let (limits, control) = (&context.limits, context.control);
        let mut laplace = Laplace::fit(context.map, curvature, context.train, &self.laplace, limits, control)?;
        if self.held_out_prior {
            let (data, link) = (context.held_out, self.predictive.tuning_link());
            let data = data.ok_or_else(|| Error::empty("set of held-out items"))?;
            let held_out = HeldOut::new(context.map, &laplace, data, limits, control)?;
            let tuned = held_out.tune(laplace.prior_precisions(), link)?;
            laplace = laplace.with_tuned_prior(tuned)?;
            spent.labelled = data.n_items();
            let more_passes = data.n_items() * repetitions_in(laplace.gauge(link), data, n_classes);
            spent.forwards += more_passes;
            spent.backwards += more_passes;
        }
        let precision = laplace.prior_precisions().of(0).value();
        let (dimension, searches) = (laplace.effective_dimension(), laplace.prior_searches().to_vec());
        let evidence = laplace.log_marginal_likelihood(laplace.prior_precisions().clone()).ok();
        let answers = laplace.answer_temperatures().cloned();
        let bytes = laplace.blocks().iter().map(|block| block.bytes()).sum();
        let fitted = match self.predictive {
            Predictive::Map => {
                let beta = answers.as_ref().map_or(1.0, |answers| answers.network.value);
                Fitted::new(TemperedBelief { temperature: Temperature::new(beta)? })
            }
            Predictive::Sampled { n_samples, seed } => {
                let seed = draws::seed(context.seed, Purpose::MethodDraws, 0, seed);
                Fitted::new(SampledBelief { sampler: laplace, n_samples, seed, bytes })
            }
            Predictive::Linearized(link) => Fitted::new(LinearizedBelief { laplace, link }),
        };
        let fitted = fitted.with_spent(spent).with_found("prior precision", precision);
        let fitted = fitted.with_found("effective dimension", dimension).with_searches(searches);
        let fitted = match answers {
            Some(AnswerTemperatures { network, posterior }) => {
                let fitted = fitted.with_found("inverse temperature, network", network.value);
                fitted.with_found("inverse temperature, posterior", posterior.value)
            }
            None => fitted,
        };
        Ok(match evidence {
            Some(evidence) => fitted.with_found("log evidence", evidence),
            None => fitted,
        })
    }
}
