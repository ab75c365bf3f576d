//! BLoB: a mean-field Gaussian over A, trained by the evidence lower bound.

use super::adapter_training::{settings, start};
use super::belief::SampledBelief;
use super::blob_rule::BlobRule;
use super::blob_settings::{Blob, BlobObjective};
use super::bounds::{check_positive, check_some};
use super::gaussian::{GaussianAdapter, bytes_of};
use super::method::{FitContext, Fitted, Method, NoiseSharing, Requirements, Spent};
use super::token_noise::{Flipout, NoiseOfA, NoisyBelief};
use crate::error::Result;
use crate::identity::Identity;
use crate::lora::read_adapter;
use crate::models::{Classifier, Dataset};
use crate::train::TrainerConfig;
use std::sync::Arc;

impl Blob {
    /// The rule for `n_items` training items in steps of `batch` items, with draws from `seed`; `peak` is the peak rate of the
    /// schedule that it will run under.
    ///
    /// # Errors
    /// Names the field that is out of bounds.
    pub fn rule(&self, n_items: usize, batch: usize, peak: f64, seed: u64) -> Result<BlobRule> {
        self.validate()?;
        check_positive("peak", peak)?;
        check_some("n_items", n_items)?;
        check_some("batch", batch)?;
        Ok(BlobRule::new(*self, (n_items, batch), peak, seed))
    }
}

impl<M: Classifier, D: Dataset<Input = M::Input>> Method<M, D> for Blob {
    fn name(&self) -> String {
        let published =
            if matches!(self.objective, BlobObjective::Published { .. }) { ", published schedule" } else { "" };
        let sharing = if self.sharing == NoiseSharing::PerToken { " per token" } else { "" };
        format!("BLoB{sharing}{published}")
    }

    fn identity(&self) -> Result<Identity> {
        Identity::of(self)
    }

    fn validate(&self) -> Result<()> {
        Blob::validate(self)
    }

    fn describe(&self) -> String {
        let Self { objective, prior_sd, initial_root, n_samples, sharing } = self;
        format!("{n_samples} passes, {sharing} noise, {objective:?}, prior sd {prior_sd}, G below {initial_root}")
    }

    fn sharing(&self) -> Option<NoiseSharing> {
        Some(self.sharing)
    }

    fn requirements(&self) -> Requirements {
        Requirements { map: false, adapter_alone: true, ..Requirements::default() }
    }

    fn fit(&self, context: &FitContext<M, D>) -> Result<Fitted<M, D>> {
        context.check(self)?;
        let config = TrainerConfig { max_grad_norm: None, ..settings(context) };
        let batch = config.limits.max_items * config.accumulation;
        let mut rule = self.rule(context.train.n_items(), batch, config.learning_rate, context.seed)?;
        let outcome = context.train_by(&mut rule, config, start(context)?)?;
        let adapter = read_adapter(&outcome.model)?;
        let deviations = rule.deviations(&adapter)?;
        let kl = rule.divergence(&adapter)?;
        let sd = || deviations.values().flatten().copied();
        let (smallest, largest) = (sd().fold(f64::INFINITY, f64::min), sd().fold(0.0, f64::max));
        let (n_samples, seed) = (self.n_samples, context.seed);
        let bytes = bytes_of(&adapter) + bytes_of(&deviations);
        let fitted = match self.sharing {
            NoiseSharing::Coherent => {
                let sampler = GaussianAdapter::new(adapter, deviations, Vec::new())?;
                Fitted::new(SampledBelief { sampler, n_samples, seed, bytes })
            }
            NoiseSharing::PerToken => {
                let of_a = |(site, deviations)| (module(site), NoiseOfA { frame: None, deviations });
                let noise = Flipout(Arc::new(deviations.into_iter().map(of_a).collect()));
                Fitted::new(NoisyBelief { adapter: Some(adapter), noise, n_samples, seed, bytes })
            }
        };
        Ok(fitted
            .with_spent(Spent::training(outcome.report.items))
            .with_found("KL", kl)
            .with_found("smallest sd", smallest)
            .with_found("largest sd", largest))
    }
}

fn module(site: crate::tape::Site) -> String {
    site.module
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_out_of_bounds_are_refused_by_name() {
        let refused = |blob: Blob, part: &str| {
            let error = blob.rule(10, 4, 1e-4, 0).unwrap_err().to_string();
            assert!(error.contains(part), "{error} lacks {part}");
        };
        refused(Blob { prior_sd: 0.0, ..Blob::default() }, "prior_sd");
        refused(Blob { initial_root: f64::INFINITY, ..Blob::default() }, "initial_root");
        refused(Blob { objective: BlobObjective::Elbo { kl_weight: -1.0 }, ..Blob::default() }, "kl_weight");
        let published = |kl_learning_rate, gamma| BlobObjective::Published { kl_learning_rate, gamma };
        refused(Blob { objective: published(-0.1, 8.0), ..Blob::default() }, "kl_learning_rate");
        refused(Blob { objective: published(0.1, 0.0), ..Blob::default() }, "gamma");
    }
}
