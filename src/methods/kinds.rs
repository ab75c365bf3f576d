//! Lists the kinds of beliefs that a file can hold, and how each is rebuilt.

use super::belief::{Belief, LinearizedBelief, OwnPointBelief, PointBelief, SAMPLED, SampledBelief, TemperedBelief};
use super::calibrated::{CALIBRATED, CalibratedBelief, take_calibrator};
use super::gaussian::GaussianAdapter;
use super::head_laplace::HeadBelief;
use super::keep::{Keep, Kept, LAPLACE, within};
use super::mc_dropout::{DropoutSampler, TokenDropout};
use super::members::Members;
use super::tfb::ColumnSpaceNoise;
use super::token_noise::{Flipout, NOISY, NoisyBelief, TokenNoise};
use crate::error::{Error, Result};
use crate::lora::{AdapterSampler, AdapterWeights};
use crate::models::{Classifier, Dataset};
use std::collections::BTreeMap;

/// Rebuilds a belief from what it kept and the model's adapter.
type Restore<M, D> = Box<dyn Fn(&mut Kept, AdapterWeights) -> Result<Box<dyn Belief<M, D>>> + Send + Sync>;

/// The kinds of beliefs that [`Fitted::load_with`](super::Fitted::load_with) rebuilds, by the name under which they are
/// [kept](Keep): this crate's, and the caller's own.
pub struct BeliefKinds<M, D>(BTreeMap<String, Restore<M, D>>);

impl<M: Classifier + 'static, D: Dataset<Input = M::Input> + 'static> Default for BeliefKinds<M, D> {
    /// This crate's.
    fn default() -> Self {
        let mut kinds = Self(BTreeMap::new());
        kinds.add(PointBelief::KIND, |_, _| Ok(Box::new(PointBelief)));
        kinds.add(OwnPointBelief::KIND, |kept, map| Ok(Box::new(OwnPointBelief::restore(kept, &map)?)));
        kinds.add(TemperedBelief::KIND, |kept, _| Ok(Box::new(TemperedBelief::restore(kept)?)));
        kinds.add(LinearizedBelief::KIND, |kept, _| Ok(Box::new(LinearizedBelief::restore(kept)?)));
        kinds.add(HeadBelief::KIND, |kept, _| Ok(Box::new(HeadBelief::restore(kept)?)));
        kinds.add_draws(Members::KIND, |kept, map| Members::restore(kept, &map));
        kinds.add_draws(GaussianAdapter::KIND, |kept, map| GaussianAdapter::restore(kept, &map));
        kinds.add_draws(DropoutSampler::KIND, DropoutSampler::restore);
        kinds.add_draws(ColumnSpaceNoise::KIND, ColumnSpaceNoise::restore);
        kinds.add_draws(LAPLACE, |kept, _| kept.take_posterior());
        kinds.add_noise(TokenDropout::KIND, |_, _| Ok(TokenDropout));
        kinds.add_noise(Flipout::KIND, Flipout::restore);
        kinds
    }
}

impl<M: Classifier + 'static, D: Dataset<Input = M::Input> + 'static> BeliefKinds<M, D> {
    /// Adds a kind of the caller's: `restore` takes out of what was kept, by the names under which it was put there, all that
    /// there is.
    ///
    /// # Errors
    /// If there is a kind of this name.
    pub fn with(
        mut self,
        kind: &str,
        restore: impl Fn(&mut Kept, AdapterWeights) -> Result<Box<dyn Belief<M, D>>> + Send + Sync + 'static,
    ) -> Result<Self> {
        self.check_new(kind)?;
        self.add(kind, restore);
        Ok(self)
    }

    /// Adds the caller's way of drawing adapters: beliefs of the kind `draws of KIND`.
    ///
    /// # Errors
    /// As [`BeliefKinds::with`].
    pub fn with_draws<S: AdapterSampler + Keep + 'static>(
        mut self,
        kind: &str,
        restore: impl Fn(&mut Kept, AdapterWeights) -> Result<S> + Send + Sync + 'static,
    ) -> Result<Self> {
        self.check_new(&within(SAMPLED, kind))?;
        self.add_draws(kind, restore);
        Ok(self)
    }

    fn check_new(&self, kind: &str) -> Result<()> {
        if self.0.contains_key(kind) || kind.starts_with(CALIBRATED) {
            return Err(Error::config("kinds of beliefs", "names that differ", format!("`{kind}` twice")));
        }
        Ok(())
    }

    fn add(
        &mut self,
        kind: &str,
        restore: impl Fn(&mut Kept, AdapterWeights) -> Result<Box<dyn Belief<M, D>>> + Send + Sync + 'static,
    ) {
        self.0.insert(kind.into(), Box::new(restore));
    }

    fn add_draws<S: AdapterSampler + Keep + 'static>(
        &mut self,
        kind: &str,
        restore: impl Fn(&mut Kept, AdapterWeights) -> Result<S> + Send + Sync + 'static,
    ) {
        self.add(&within(SAMPLED, kind), move |kept, map| {
            let sampler = restore(kept, map)?;
            Ok(Box::new(SampledBelief::restore(sampler, kept)?))
        });
    }

    fn add_noise<N: TokenNoise + 'static>(
        &mut self,
        kind: &str,
        restore: impl Fn(&mut Kept, &AdapterWeights) -> Result<N> + Send + Sync + 'static,
    ) {
        self.add(&within(NOISY, kind), move |kept, map| {
            let noise = restore(kept, &map)?;
            Ok(Box::new(NoisyBelief::restore(noise, kept, &map)?))
        });
    }

    /// Rebuilds a belief; `map` is the model's adapter.
    pub(super) fn restore(&self, kept: &mut Kept, map: AdapterWeights) -> Result<Box<dyn Belief<M, D>>> {
        let kind = kept.kind.to_string();
        // once at most: a file does not say how deep this goes
        if let Some(inner) = kind.strip_prefix(&within(CALIBRATED, "")).filter(|inner| !inner.starts_with(CALIBRATED)) {
            let calibrator = take_calibrator(kept)?;
            kept.kind = inner.to_string().into();
            return Ok(Box::new(CalibratedBelief { belief: self.restore(kept, map)?, calibrator }));
        }
        let restore = self.0.get(&kind).ok_or_else(|| Error::Unsupported {
            what: "kind of belief".into(),
            found: kind,
            supported: self.0.keys().map(|kind| format!("`{kind}`")).collect::<Vec<_>>().join(", "),
        })?;
        restore(kept, map)
    }
}
