//! One call for every way of predicting, and one value for what it says.

use super::linearized::predict_linearized;
use super::map::predict_map;
use super::sampled::{check_draws, predict_sampled};
use crate::belief::{Decomposition, LinkApprox, LogitBelief};
use crate::data::BatchLimits;
use crate::error::{Error, Result};
use crate::likelihood::TargetSpace;
use crate::models::{Classifier, Dataset};
use crate::posterior::Laplace;
use crate::progress::Control;
use ndarray::Array2;

/// How to predict.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub enum Predictive {
    /// The trained adapter alone: no posterior.
    Map,
    /// The network at draws of the adapter's weights.
    Sampled {
        /// Number of draws.
        n_samples: usize,
        /// Seed of the draws.
        seed: u64,
    },
    /// The network linearised around the trained adapter.
    Linearized(LinkApprox),
}

impl Default for Predictive {
    /// Linearised, with Monte Carlo averages of probabilities.
    fn default() -> Self {
        Self::Linearized(LinkApprox::default())
    }
}

impl Predictive {
    /// Checks that there is a draw.
    ///
    /// # Errors
    /// Names the field, its bound and its value.
    pub fn validate(&self) -> Result<()> {
        match *self {
            Self::Map => Ok(()),
            Self::Sampled { n_samples, .. } => check_draws(n_samples),
            Self::Linearized(link) => link.validate(),
        }
    }

    /// The link under which a prior is tuned on held-out items: its own, where that reads the centred covariance.
    pub fn tuning_link(&self) -> LinkApprox {
        match *self {
            Self::Linearized(link) if !link.needs_raw_covariance() => link,
            _ => LinkApprox::default(),
        }
    }
}

/// What is predicted for a set of items.
#[derive(Debug, Clone, PartialEq)]
pub struct Prediction {
    /// Logits, with their uncertainty.
    pub belief: LogitBelief,
    /// Class probabilities `[n_items, n_classes]`.
    pub probabilities: Array2<f64>,
    /// Total, expected and epistemic entropy of each item, in nats.
    pub entropy: Decomposition,
}

impl Prediction {
    /// Integrates a belief.
    ///
    /// # Errors
    /// If the link does not suit the belief (see [`LinkApprox`]).
    pub fn new(belief: LogitBelief, link: LinkApprox) -> Result<Self> {
        Ok(Self { probabilities: belief.probabilities(link)?, entropy: belief.decompose(link)?, belief })
    }
}

/// Predicts the classes of all items of `data`, batch by batch in bounded memory.
///
/// # Errors
/// As [`predict_map`], [`predict_sampled`] and [`predict_linearized`]; if the posterior's likelihood is not about classes, whose
/// targets [`super::predict_targets`] predicts; if the posterior is about another adapter than the model's, or the data are known to
/// be asked in another way than those that it was fitted on.
pub fn predict<M: Classifier, D: Dataset<Input = M::Input>>(
    model: &M,
    laplace: &Laplace,
    data: &D,
    how: Predictive,
    limits: &BatchLimits,
    control: &Control,
) -> Result<Prediction> {
    let likelihood = laplace.likelihood();
    if likelihood.target_space() != TargetSpace::Classes {
        return Err(Error::Incompatible(format!(
            "a posterior with the likelihood `{likelihood}` has no class probabilities: predict its targets (`predict_targets`)"
        )));
    }
    let (belief, link) = believe((model, laplace), data, how, limits, control)?;
    Prediction::new(belief, link)
}

/// What the posterior says about the outputs, and the link by which a Gaussian belief is integrated.
pub(super) fn believe<M: Classifier, D: Dataset<Input = M::Input>>(
    (model, laplace): (&M, &Laplace),
    data: &D,
    how: Predictive,
    limits: &BatchLimits,
    control: &Control,
) -> Result<(LogitBelief, LinkApprox)> {
    how.validate()?;
    laplace.check_answers(model, data)?;
    Ok(match how {
        Predictive::Map => (laplace.answered(predict_map(model, data, limits, control)?), LinkApprox::default()),
        Predictive::Sampled { n_samples, seed } => {
            let draw = |index| Ok(laplace.sample(seed, index));
            let belief = predict_sampled(model, data, draw, n_samples, limits, control)?;
            (laplace.answered(belief), LinkApprox::default())
        }
        Predictive::Linearized(link) => {
            (predict_linearized(model, laplace, data, laplace.gauge(link), limits, control)?, link)
        }
    })
}
