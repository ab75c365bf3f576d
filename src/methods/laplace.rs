//! Laplace: a Gaussian around the trained adapter from the curvature there, in any structure.

use super::belief::{LinearizedBelief, SampledBelief};
use super::method::{FitContext, Fitted, Method, NoiseSharing, Requirements, Spent};
use crate::curvature::{AdapterSubset, CurvatureConfig, CurvatureStructure, estimate_cost};
use crate::draws::{self, Purpose};
use crate::error::{Error, Result};
use crate::identity::Identity;
use crate::likelihood::{Likelihood, TargetSpace};
use crate::models::{Classifier, Dataset};
use crate::number::significant;
use crate::posterior::{HeldOut, Laplace, LaplaceConfig, log_likelihood_gradient, repetitions_in};
use crate::predict::Predictive;
use crate::prior::PriorPrecision;
use crate::setters::setters;

/// How the prior precision is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub enum PriorChoice {
    /// As [`LaplaceConfig`] says: the most evidence, or a fixed one. No further data.
    #[default]
    Configured,
    /// The most evidence at the mode of the log joint's quadratic expansion ([`Laplace::with_gradient`]), where weights about which
    /// the data say nothing are back at the prior's centre. Exact structures alone; one more pass over the training items. Refused
    /// where the expansion makes labels more than certain: there it does not hold as far from the adapter as its mode is.
    EvidenceAtMode,
    /// The least negative log-likelihood of the held-out items: their labels are spent. It is that of the linearised predictive, also
    /// where predictions are sampled.
    HeldOut,
}

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
    /// How the prior precision is found.
    pub prior: PriorChoice,
    /// Linearised or sampled.
    pub predictive: Predictive,
}

impl LaplaceMethod {
    /// Defaults in a structure: prior by evidence, linearised.
    pub fn new(structure: CurvatureStructure) -> Self {
        Self {
            curvature: CurvatureConfig::new(structure),
            laplace: LaplaceConfig::default(),
            prior: PriorChoice::default(),
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
        /// Sets how the prior precision is found.
        with_prior(prior: PriorChoice);
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
        if self.predictive == Predictive::Map {
            return Err(Error::config("predictive", "linearised or sampled", "Map"));
        }
        let structure = self.curvature.structure;
        if self.prior == PriorChoice::EvidenceAtMode && !structure.plan().is_exact() {
            return Err(Error::config(
                "structure for the evidence at the mode",
                "exact: full, function or core space",
                structure,
            ));
        }
        Ok(())
    }

    /// The same with its prior precision from held-out labels.
    pub fn with_held_out_prior(mut self) -> Self {
        self.prior = PriorChoice::HeldOut;
        self
    }

    /// The same with its prior precision by the evidence at the mode; of exact structures alone.
    pub fn with_evidence_at_mode(mut self) -> Self {
        self.prior = PriorChoice::EvidenceAtMode;
        self
    }
}

impl<M: Classifier, D: Dataset<Input = M::Input>> Method<M, D> for LaplaceMethod {
    fn name(&self) -> String {
        let mut name = format!("Laplace {}", self.curvature.structure);
        match &self.curvature.subset {
            AdapterSubset::All => {}
            AdapterSubset::LastLayer => name += ", last layer",
            AdapterSubset::OnlyA => name += ", A",
            AdapterSubset::OnlyB => name += ", B",
            AdapterSubset::Pattern(pattern) => name += &format!(", {pattern}"),
        }
        name += match self.prior {
            PriorChoice::Configured => "",
            PriorChoice::EvidenceAtMode => ", evidence at the mode",
            PriorChoice::HeldOut => ", held-out prior",
        };
        if let Predictive::Sampled { .. } = self.predictive {
            name += ", sampled";
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
        let LaplaceConfig { prior_mean, prior_grouping, prior_precision, temperature, without_residual } =
            &self.laplace;
        let precision = match (self.prior, prior_precision) {
            (PriorChoice::HeldOut, _) => "by held-out likelihood".to_string(),
            (PriorChoice::EvidenceAtMode, _) => "by evidence at the mode".into(),
            (PriorChoice::Configured, None) => "by evidence".into(),
            (PriorChoice::Configured, Some(precision)) => format!("{}", precision.value()),
        };
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
        text
    }

    fn identity(&self) -> Result<Identity> {
        let Self { curvature, laplace, prior, predictive } = self;
        let with_curvature = Identity::new().with_part("curvature", curvature.identity());
        Ok(with_curvature
            .with_part("laplace", Identity::of(laplace)?)
            .with("prior", prior)
            .with("predictive", predictive))
    }

    fn requirements(&self) -> Requirements {
        Requirements {
            held_out_labels: self.prior == PriorChoice::HeldOut,
            curvature: Some(self.curvature.clone()),
            ..Requirements::default()
        }
    }

    fn sharing(&self) -> Option<NoiseSharing> {
        matches!(self.predictive, Predictive::Sampled { .. }).then_some(NoiseSharing::Coherent)
    }

    fn fit(&self, context: &FitContext<M, D>) -> Result<Fitted<M, D>> {
        context.check(self)?;
        let at_mode = self.prior == PriorChoice::EvidenceAtMode;
        let n_classes = context.map.n_classes();
        let rows_per_item = if context.train.rows_are_choices() { n_classes } else { 1 };
        let curvature = context.resolve(&self.curvature);
        let rows = estimate_cost(context.map, context.train, &curvature)?.network_rows;
        let passes = rows as usize / rows_per_item;
        let mut spent = Spent { forwards: passes, backwards: passes, ..Spent::default() };
        // the evidence at the mode needs none at the adapter
        let start = if at_mode { Some(PriorPrecision::new(1.0)?) } else { self.laplace.prior_precision };
        let config = LaplaceConfig { prior_precision: start, ..self.laplace };
        let mut laplace = Laplace::new(context.map, context.curvature(&curvature)?, &config)?;
        let (likelihood, limits) = (curvature.likelihood_or_default(), curvature.limits_or_default());
        let more_passes = match self.prior {
            PriorChoice::Configured => 0,
            PriorChoice::EvidenceAtMode => {
                let gradient =
                    log_likelihood_gradient(context.map, context.train, &*likelihood, &limits, context.control)?;
                laplace = laplace.with_gradient(&gradient)?.with_optimal_prior()?;
                context.train.n_items()
            }
            PriorChoice::HeldOut => {
                let data = context.held_out.ok_or_else(|| Error::empty("set of held-out items"))?;
                let held_out = HeldOut::new(context.map, &laplace, data, &context.limits, context.control)?;
                let tuned = held_out.tune(laplace.prior_precisions(), self.predictive.tuning_link())?;
                laplace = laplace.with_tuned_prior(tuned)?;
                spent.labelled = data.n_items();
                data.n_items() * repetitions_in(laplace.gauge(self.predictive.tuning_link()), data, n_classes)
            }
        };
        spent.forwards += more_passes;
        spent.backwards += more_passes;
        let precision = laplace.prior_precisions().of(0).value();
        let (dimension, searches) = (laplace.effective_dimension(), laplace.prior_searches().to_vec());
        let evidence = laplace.log_marginal_likelihood(laplace.prior_precisions().clone());
        let evidence = if at_mode { Some(at_most_certain(evidence?, &*likelihood)?) } else { evidence.ok() };
        let bytes = laplace.blocks().iter().map(|block| block.bytes()).sum();
        let fitted = match self.predictive {
            Predictive::Map => return Err(Error::config("predictive", "linearised or sampled", "Map")),
            Predictive::Sampled { n_samples, seed } => {
                let seed = draws::seed(context.seed, Purpose::MethodDraws, 0, seed);
                Fitted::new(SampledBelief { sampler: laplace, n_samples, seed, bytes })
            }
            Predictive::Linearized(link) => Fitted::new(LinearizedBelief { laplace, link }),
        };
        let fitted = fitted.with_spent(spent).with_found("prior precision", precision);
        let fitted = fitted.with_found("effective dimension", dimension).with_searches(searches);
        Ok(match evidence {
            Some(evidence) => fitted.with_found("log evidence", evidence),
            None => fitted,
        })
    }
}

/// The same evidence, if it can be one: that of labels is a probability, only that of real targets is a density.
fn at_most_certain(log_evidence: f64, likelihood: &dyn Likelihood) -> Result<f64> {
    if log_evidence > 0.0 && likelihood.target_space() != TargetSpace::Continuous {
        return Err(Error::numerical(
            "evidence at the mode",
            format!(
                "it is exp({}), more than certainty: the quadratic expansion does not hold as far from the adapter as \
                 its mode is; take the evidence at the adapter, or held-out items",
                significant(log_evidence)
            ),
        ));
    }
    Ok(log_evidence)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::likelihood::{Categorical, Gaussian};

    #[test]
    fn labels_that_are_more_than_certain_are_refused_and_densities_are_not() {
        let error = at_most_certain(25.67, &Categorical).unwrap_err().to_string();
        assert!(error.contains("exp(25.67)") && error.contains("held-out"), "{error}");
        assert!(at_most_certain(-3.0, &Categorical).is_ok());
        assert!(at_most_certain(25.67, &Gaussian { noise_variance: 1e-6 }).is_ok());
    }
}
