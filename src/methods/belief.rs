//! What a fitted method can do: say what it believes about the logits of any items.

use super::gaussian::bytes_of;
use super::keep::{Keep, Kept};
use crate::belief::{LinkApprox, LogitBelief, LogitGauge};
use crate::calibrate::Temperature;
use crate::data::BatchLimits;
use crate::error::Result;
use crate::lora::{AdapterSampler, AdapterWeights, check_same_shapes, write_adapter};
use crate::models::{Classifier, Dataset};
use crate::posterior::{Laplace, repetitions_in};
use crate::predict::{predict_linearized, predict_map, predict_sampled};
use crate::progress::Control;

/// Beliefs about the logits of items, from a model with an adapter of the shape that the method was fitted at.
pub trait Belief<M, D>: Keep + Send + Sync
where
    M: Classifier,
    D: Dataset<Input = M::Input>,
{
    /// What it believes about every item, in the data's order. `model` holds the adapter that post-hoc methods start from.
    ///
    /// # Errors
    /// If the data are empty, a logit is not finite, or the caller cancels.
    fn believe(&self, model: &M, data: &D, limits: &BatchLimits, control: &Control) -> Result<LogitBelief>;

    /// What an answer about an item of `data` takes, in a task with so many classes.
    fn needs(&self, data: &D, n_classes: usize) -> Needs;

    /// How a Gaussian belief becomes probabilities.
    fn link(&self) -> LinkApprox {
        LinkApprox::default()
    }

    /// The posterior around whose linearisation it predicts: several such beliefs share one pass of Jacobians.
    fn linearized(&self) -> Option<&Laplace> {
        None
    }
}

/// What an answer takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Needs {
    /// Forward passes an item.
    pub forwards: usize,
    /// Backward passes an item.
    pub backwards: usize,
    /// Bytes kept beyond the adapter that post-hoc methods start from.
    pub bytes: usize,
}

/// The network at the trained adapter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PointBelief;

impl<M: Classifier, D: Dataset<Input = M::Input>> Belief<M, D> for PointBelief {
    fn believe(&self, model: &M, data: &D, limits: &BatchLimits, control: &Control) -> Result<LogitBelief> {
        predict_map(model, data, limits, control)
    }

    fn needs(&self, _data: &D, _n_classes: usize) -> Needs {
        Needs { forwards: 1, ..Needs::default() }
    }
}

impl PointBelief {
    pub(super) const KIND: &str = "trained adapter";
}

impl Keep for PointBelief {
    fn keep(&self) -> Option<Kept<'_>> {
        Some(Kept::new(Self::KIND))
    }
}

/// The network at the trained adapter, its logits times an inverse temperature.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TemperedBelief {
    /// The inverse temperature.
    pub temperature: Temperature,
}

impl<M: Classifier, D: Dataset<Input = M::Input>> Belief<M, D> for TemperedBelief {
    fn believe(&self, model: &M, data: &D, limits: &BatchLimits, control: &Control) -> Result<LogitBelief> {
        Ok(predict_map(model, data, limits, control)?.tempered(self.temperature.beta))
    }

    fn needs(&self, _data: &D, _n_classes: usize) -> Needs {
        Needs { forwards: 1, ..Needs::default() }
    }
}

impl TemperedBelief {
    pub(super) const KIND: &str = "trained adapter at a temperature";
    const BETA: &str = "inverse temperature";

    pub(super) fn restore(kept: &mut Kept) -> Result<Self> {
        Ok(Self { temperature: Temperature::new(kept.take_number(Self::BETA)?)? })
    }
}

impl Keep for TemperedBelief {
    fn keep(&self) -> Option<Kept<'_>> {
        Some(Kept::new(Self::KIND).with_number(Self::BETA, self.temperature.beta))
    }
}

/// The network at an adapter of the method's own.
#[derive(Debug, Clone, PartialEq)]
pub struct OwnPointBelief {
    /// The adapter.
    pub adapter: AdapterWeights,
}

impl<M: Classifier, D: Dataset<Input = M::Input>> Belief<M, D> for OwnPointBelief {
    fn believe(&self, model: &M, data: &D, limits: &BatchLimits, control: &Control) -> Result<LogitBelief> {
        predict_map(&write_adapter(model.valid(), &self.adapter)?, data, limits, control)
    }

    fn needs(&self, _data: &D, _n_classes: usize) -> Needs {
        Needs { forwards: 1, backwards: 0, bytes: bytes_of(&self.adapter) }
    }
}

impl OwnPointBelief {
    pub(super) const KIND: &str = "own adapter";

    pub(super) fn restore(kept: &mut Kept, map: &AdapterWeights) -> Result<Self> {
        let adapter = kept.take_adapter("adapter")?;
        check_same_shapes("the belief's own adapter", &adapter, map)?;
        Ok(Self { adapter })
    }
}

impl Keep for OwnPointBelief {
    fn keep(&self) -> Option<Kept<'_>> {
        Some(Kept::new(Self::KIND).with_adapter("adapter", &self.adapter))
    }
}

/// The network at draws of its adapter: what every [`AdapterSampler`] believes.
#[derive(Debug, Clone)]
pub struct SampledBelief<S> {
    /// Where the adapters come from.
    pub sampler: S,
    /// Number of draws; the members, where there are finitely many.
    pub n_samples: usize,
    /// Seed of the draws.
    pub seed: u64,
    /// Bytes that the sampler keeps.
    pub bytes: usize,
}

impl<M: Classifier, D: Dataset<Input = M::Input>, S: AdapterSampler + Keep> Belief<M, D> for SampledBelief<S> {
    fn believe(&self, model: &M, data: &D, limits: &BatchLimits, control: &Control) -> Result<LogitBelief> {
        let kept = self.sampler.keep();
        let laplace = kept.as_ref().and_then(Kept::posterior);
        laplace.map_or(Ok(()), |laplace| laplace.check_answers(model, data))?;
        let draw = |index| self.sampler.draw(self.seed, index);
        let belief = predict_sampled(model, data, draw, self.n_draws(), limits, control)?;
        Ok(match laplace {
            Some(laplace) => laplace.answered(belief),
            None => belief,
        })
    }

    fn needs(&self, _data: &D, _n_classes: usize) -> Needs {
        Needs { forwards: self.n_draws(), backwards: 0, bytes: self.bytes }
    }
}

impl<S: AdapterSampler> SampledBelief<S> {
    fn n_draws(&self) -> usize {
        self.sampler.n_members().unwrap_or(self.n_samples)
    }

    pub(super) fn restore(sampler: S, kept: &mut Kept) -> Result<Self> {
        let (n_samples, seed, bytes) = kept.take_draws()?;
        Ok(Self { sampler, n_samples, seed, bytes })
    }
}

/// What a sampled belief is, `of` its sampler's kind.
pub(super) const SAMPLED: &str = "draws";

impl<S: Keep> Keep for SampledBelief<S> {
    fn keep(&self) -> Option<Kept<'_>> {
        Some(self.sampler.keep()?.within(SAMPLED).with_draws(self.n_samples, self.seed, self.bytes))
    }
}

/// The network linearised around the trained adapter, under a Laplace posterior.
#[derive(Debug, Clone)]
pub struct LinearizedBelief {
    /// The posterior.
    pub laplace: Laplace,
    /// How its Gaussians become probabilities.
    pub link: LinkApprox,
}

impl LinearizedBelief {
    pub(super) const KIND: &str = "linearised Laplace posterior";

    pub(super) fn restore(kept: &mut Kept) -> Result<Self> {
        Ok(Self { laplace: kept.take_posterior()?, link: kept.take_setting("link")? })
    }
}

impl Keep for LinearizedBelief {
    fn keep(&self) -> Option<Kept<'_>> {
        Some(Kept::new(Self::KIND).with_posterior(&self.laplace).with_setting("link", self.link))
    }
}

impl<M: Classifier, D: Dataset<Input = M::Input>> Belief<M, D> for LinearizedBelief {
    fn believe(&self, model: &M, data: &D, limits: &BatchLimits, control: &Control) -> Result<LogitBelief> {
        predict_linearized(model, &self.laplace, data, self.laplace.gauge(self.link), limits, control)
    }

    /// An item goes through the network once for each of its Jacobians, or once where rows are choices.
    fn needs(&self, data: &D, n_classes: usize) -> Needs {
        let passes = repetitions_in(self.laplace.gauge(self.link), data, n_classes);
        let bytes = self.laplace.blocks().iter().map(|block| block.bytes()).sum();
        Needs { forwards: passes, backwards: passes, bytes }
    }

    fn link(&self) -> LinkApprox {
        self.link
    }

    fn linearized(&self) -> Option<&Laplace> {
        (self.laplace.gauge(self.link) == LogitGauge::Centred).then_some(&self.laplace)
    }
}
