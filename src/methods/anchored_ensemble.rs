//! Anchored ensemble: several runs, each held by the prior to a draw from the prior.

use super::bounds::check_some;
use super::members::{Members, member_seed};
use super::method::{FitContext, Fitted, Method, Requirements, Spent};
use crate::draws::{Purpose, generator, normals, place};
use crate::error::Result;
use crate::identity::Identity;
use crate::lora::{Adaptable, AdapterWeights, attach, prior_centre, read_adapter, start_at};
use crate::models::{Classifier, Dataset};
use crate::prior::{PriorMean, PriorPrecision};
use crate::setters::setters;
use crate::train::Objective;

/// `p̄ = (1/K) Σ_k softmax f(x; θ_k)` where member k minimises `−Σ log p(y | x, θ) + ½λ‖θ − θ₀ₖ‖²` from its anchor
/// `θ₀ₖ ~ N(μ, λ⁻¹I)`, a draw from the prior: weights of which the data say nothing stay where the prior put them, so that the
/// members differ there as the posterior does.
///
/// In a linear model with Gaussian noise the members are draws from the posterior if the targets are disturbed too, which
/// [`crate::posterior::SampleThenOptimize`] does exactly; labels of classes cannot be, so that directions with much data are
/// narrower than the posterior by `λ/(h + λ)` in variance. The trained adapter of the comparison is no member: it has no anchor.
///
/// Pearce et al. (2020), arXiv 1810.05546; Osband et al. (2018), arXiv 1806.03335.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
#[non_exhaustive]
pub struct AnchoredEnsemble {
    /// K
    pub n_members: usize,
    /// λ
    pub prior_precision: PriorPrecision,
    /// μ; around the random start, each member has a start of its own.
    pub prior_mean: PriorMean,
}

impl AnchoredEnsemble {
    /// Three members around their random starts.
    pub fn new(prior_precision: PriorPrecision) -> Self {
        Self { n_members: 3, prior_precision, prior_mean: PriorMean::Initial }
    }

    setters! {
        /// Sets K.
        with_n_members(n_members: usize);
        /// Sets λ.
        with_prior_precision(prior_precision: PriorPrecision);
        /// Sets μ.
        with_prior_mean(prior_mean: PriorMean);
    }

    /// Checks every bound.
    ///
    /// # Errors
    /// Names the field, its bound and its value.
    pub fn validate(&self) -> Result<()> {
        check_some("n_members", self.n_members)
    }

    /// θ₀ of a member whose fresh adapter `start` carries, drawn from `seed`.
    ///
    /// # Errors
    /// As [`prior_centre`].
    pub fn anchor<M: Adaptable>(&self, start: &M, seed: u64) -> Result<AdapterWeights> {
        let sd = self.prior_precision.value().sqrt().recip();
        let mut anchor = prior_centre(start, self.prior_mean)?;
        for (site, w) in &mut anchor {
            let noise = normals(&mut generator(seed, Purpose::Anchor, place(site), 0), w.dim());
            w.scaled_add(sd, &noise);
        }
        Ok(anchor)
    }
}

impl<M: Classifier, D: Dataset<Input = M::Input>> Method<M, D> for AnchoredEnsemble {
    fn name(&self) -> String {
        "anchored ensemble".into()
    }

    fn identity(&self) -> Result<Identity> {
        Identity::of(self)
    }

    fn validate(&self) -> Result<()> {
        AnchoredEnsemble::validate(self)
    }

    fn describe(&self) -> String {
        let Self { n_members, prior_precision, prior_mean } = self;
        format!(
            "{n_members} runs around draws from the prior, precision {}, mean {prior_mean:?}, probabilities averaged",
            prior_precision.value()
        )
    }

    fn requirements(&self) -> Requirements {
        Requirements { map: false, adapter_alone: true, ..Requirements::default() }
    }

    fn fit(&self, context: &FitContext<M, D>) -> Result<Fitted<M, D>> {
        context.check(self)?;
        let objective = Objective::MaximumAPosteriori { precision: self.prior_precision, mean: PriorMean::Initial };
        let mut members = Vec::new();
        let mut items = 0;
        for member in 0..self.n_members as u64 {
            let seed = member_seed(context.seed, member);
            let fresh = attach(context.base.clone(), &context.recipe.lora, seed)?;
            let anchor = self.anchor(&fresh, seed)?;
            // a decay would be a second prior, around zero
            let config = context.own_run().with_seed(seed).with_objective(objective.clone()).with_weight_decay(0.0);
            let outcome = context.train_on(config, start_at(fresh, &anchor)?)?;
            items += outcome.report.items;
            members.push(read_adapter(&outcome.model)?);
        }
        let members = Members::new(members)?;
        let bytes = members.bytes();
        Ok(Fitted::new(members.belief(context.seed, bytes)).with_spent(Spent::training(items)))
    }
}
