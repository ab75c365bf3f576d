//! Takes the posterior of one task as the prior of the next.

use super::laplace::Laplace;
use super::precision::Precision;
use crate::error::{Error, Result};
use crate::identity::Identity;
use crate::lora::{Adaptable, AdapterWeights, adapter_scales, check_same_scales, check_same_shapes};
use crate::train::AdapterPrior;
use std::collections::BTreeMap;

/// The posterior `N(θ₁, P₁⁻¹)` of one task, `P₁ = (H₁ + Λ)/T`, as the prior of the next one, which trains with the penalty
///
/// `½ (θ − θ₁)ᵀ w P₁ (θ − θ₁)`
///
/// in the place of an isotropic one ([`Objective::under`](crate::train::Objective::under)): weights that the first task needs stay,
/// others are free. The weight w of the earlier task is 1 by Bayes' rule; a larger one keeps more of what was learnt.
///
/// Every structure over the weights themselves gives the product: full, site block, diagonal, Kronecker, EKFAC, function space. Cores
/// and sketches are other coordinates, and are refused. Directions in which the posterior has no curvature keep Λ.
///
/// A third task continues by [`PosteriorPrior::then`]. What it is around must be the start of the next training, or at least come from
/// it: A and B have a gauge freedom (`BS`, `S⁻¹A` is the same network), and a penalty on weights knows one gauge.
///
/// Ritter et al. (2018), arXiv 1805.07810; Huszár (2018), arXiv 1712.03847; Kirkpatrick et al. (2017), arXiv 1612.00796, is the diagonal.
///
/// ```
/// use bayes_lora::curvature::{CurvatureConfig, CurvatureStructure, fit_curvature};
/// use bayes_lora::lora::{LoraConfig, attach, read_adapter};
/// use bayes_lora::models::{MlpConfig, Points};
/// use bayes_lora::posterior::{Laplace, LaplaceConfig, PosteriorPrior};
/// use bayes_lora::prior::PriorPrecision;
/// use bayes_lora::progress::Control;
/// use bayes_lora::train::{AdapterPrior, Objective, Trainer, TrainerConfig};
/// use ndarray::arr2;
///
/// let control = Control::silent();
/// let first = Points::new(arr2(&[[-1.0, 0.0], [1.0, 0.0]]), vec![0, 1])?;
/// let second = Points::new(arr2(&[[0.0, -1.0], [0.0, 1.0]]), vec![0, 1])?;
/// let base = MlpConfig::new([2, 4, 2]).init(&burn::tensor::Device::flex())?;
/// let model = attach(base, &LoraConfig::new(2), 0)?;
/// let config = TrainerConfig::default().with_learning_rate(0.01);
/// let model = Trainer::new(config.clone())?.fit(model, &first, None, &control)?.model;
///
/// let structure = CurvatureConfig::new(CurvatureStructure::Kronecker);
/// let curvature = fit_curvature(&model, &first, &structure, &control)?;
/// let fixed = LaplaceConfig::default().with_prior_precision(PriorPrecision::new(1.0)?);
/// let prior = PosteriorPrior::new(&model, Laplace::new(&model, &curvature, &fixed)?)?;
///
/// let config = config.with_objective(Objective::under(prior.clone()));
/// let next = Trainer::new(config)?.fit(model, &second, None, &control)?.model;
/// assert!(prior.penalty(&read_adapter(&next)?)? > 0.0); // nats
/// # Ok::<(), bayes_lora::error::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct PosteriorPrior {
    /// Of the first task with its Λ, then of those that came on top.
    parts: Vec<Part>,
    scales: BTreeMap<String, f64>,
}

#[derive(Debug, Clone)]
struct Part {
    laplace: Laplace,
    fingerprint: u64,
    weight: f64,
}

impl Part {
    fn new<M: Adaptable>(model: &M, laplace: Laplace) -> Result<Self> {
        laplace.check_is_about(model)?;
        Precision::of(&laplace)?;
        Ok(Self { fingerprint: laplace.fingerprint()?, laplace, weight: 1.0 })
    }
}

impl PosteriorPrior {
    /// Takes the posterior around the adapter of `model`.
    ///
    /// # Errors
    /// If the model carries another adapter, or the posterior has no precision of every weight of it.
    pub fn new<M: Adaptable>(model: &M, laplace: Laplace) -> Result<Self> {
        Ok(Self { parts: vec![Part::new(model, laplace)?], scales: adapter_scales(model) })
    }

    /// The same prior, whose precision is multiplied by `weight`: all tasks so far count so many times.
    ///
    /// # Errors
    /// If it is not positive and finite.
    pub fn weighted(mut self, weight: f64) -> Result<Self> {
        if !(weight > 0.0 && weight.is_finite()) {
            return Err(Error::config("weight of the earlier task", "positive and finite", weight));
        }
        self.parts.iter_mut().for_each(|part| part.weight *= weight);
        Ok(self)
    }

    /// The posterior after the next task as the prior of the one after: `N(θ₂, (P₁ + H₂)⁻¹)`, with the curvature H₂ of `laplace` around
    /// the adapter θ₂ that `model` carries, whose own Λ does not count. P₁ stays what it was around θ₁ (online Laplace).
    ///
    /// # Errors
    /// As [`PosteriorPrior::new`], or if the adapter is of another shape or scale.
    pub fn then<M: Adaptable>(mut self, model: &M, laplace: Laplace) -> Result<Self> {
        check_same_scales("the next task's adapter", &adapter_scales(model), &self.scales)?;
        check_same_shapes("the next task's adapter", laplace.map(), self.centre())?;
        self.parts.push(Part::new(model, laplace)?);
        Ok(self)
    }

    /// The precisions that are summed, each with its weight.
    fn precisions(&self) -> Result<Vec<(Precision<'_>, f64)>> {
        let mut precisions = Vec::new();
        for (index, part) in self.parts.iter().enumerate() {
            let whole = Precision::of(&part.laplace)?;
            precisions.push((if index == 0 { whole } else { whole.of_curvature() }, part.weight));
        }
        Ok(precisions)
    }

    /// The precision's diagonal, where it has nothing else.
    pub(super) fn diagonal(&self) -> Result<Option<AdapterWeights>> {
        if !self.precisions()?.iter().all(|(precision, _)| precision.is_diagonal()) {
            return Ok(None);
        }
        let ones = self.centre().iter().map(|(site, w)| (site.clone(), w.mapv(|_| 1.0))).collect();
        self.precision_product(&ones).map(Some)
    }

    /// `P⁻¹ v`
    ///
    /// # Errors
    /// If the precision is a sum over several tasks, whose inverse is not that of its parts.
    pub(super) fn covariance_product(&self, v: &AdapterWeights) -> Result<AdapterWeights> {
        let [(precision, weight)] = self.precisions()?[..] else {
            return Err(Error::Incompatible(format!(
                "the precisions of {} tasks are summed here, whose inverse is only known where they are diagonal",
                self.parts.len()
            )));
        };
        let mut out = precision.solve(v)?;
        out.values_mut().for_each(|w| *w /= weight);
        Ok(out)
    }
}

impl AdapterPrior for PosteriorPrior {
    fn centre(&self) -> &AdapterWeights {
        // `new` gives the first part, and nothing takes one away
        self.parts[self.parts.len() - 1].laplace.map()
    }

    fn precision_product(&self, deviation: &AdapterWeights) -> Result<AdapterWeights> {
        let mut total: AdapterWeights = deviation.iter().map(|(site, w)| (site.clone(), w * 0.0)).collect();
        for (precision, weight) in self.precisions()? {
            for (site, image) in precision.times(deviation)? {
                if let Some(sum) = total.get_mut(&site) {
                    sum.scaled_add(weight, &image);
                }
            }
        }
        Ok(total)
    }

    fn identity(&self) -> Identity {
        let of_part = |part: &Part| format!("{:016x} times {}", part.fingerprint, part.weight);
        Identity::new().with("posterior", self.parts.iter().map(of_part).collect::<Vec<_>>().join(", "))
    }

    fn scales(&self) -> Option<&BTreeMap<String, f64>> {
        Some(&self.scales)
    }
}
