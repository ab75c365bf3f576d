//! Says how curvature is fitted.

use super::fisher::{FisherKind, TokenTreatment};
use super::plan::{CoordinateKind, Plan};
use super::sketch::RandomProjection;
use super::structure::{AdapterSubset, CurvatureStructure};
use crate::data::BatchLimits;
use crate::error::{Error, Result};
use crate::identity::Identity;
use crate::likelihood::{Likelihood, SharedLikelihood};
use crate::setters::setters;

/// How curvature is fitted.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[non_exhaustive]
pub struct CurvatureConfig {
    /// What is kept of it.
    pub structure: CurvatureStructure,
    /// Over which weights.
    pub subset: AdapterSubset,
    /// Where targets come from.
    pub fisher: FisherKind,
    /// How tokens enter the Kronecker factors; the other structures are sums over items.
    pub treatment: TokenTreatment,
    /// How targets depend on outputs; that of the training. `None` is that of the whole ([`crate::BayesLoraConfig`],
    /// [`crate::methods::Recipe`]), else categorical.
    pub likelihood: Option<SharedLikelihood>,
    /// Widest factor kept dense; a wider one is kept at `low_rank`. The narrower of a site's two factors is always dense.
    ///
    /// `None` keeps dense what can be decomposed in a tenth of the time of the pass, by estimate. Shards of the data that are
    /// to be merged may differ in that: set it for them.
    pub dense_limit: Option<usize>,
    /// Rank of factors wider than `dense_limit`.
    pub low_rank: usize,
    /// Random projection of Jacobians that are held as rows, as those of function space; `None` keeps them whole.
    pub projection: Option<RandomProjection>,
    /// Most bytes that the sums may take; a larger plan is refused before anything runs. `None` is what the system has free, where it tells.
    pub memory_limit: Option<u64>,
    /// Most items and tokens that the network sees at once, the repetitions for several backward passes counted in. `None` is
    /// those of the whole ([`crate::BayesLoraConfig`], [`crate::methods::MethodFit`], [`crate::compare::Comparison`]), else 8 items
    /// and 2,048 tokens.
    pub limits: Option<BatchLimits>,
}

impl Default for CurvatureConfig {
    /// Kronecker factors of all adapters; exact Fisher, expand, categorical, dense by estimate, rank 10 above,
    /// batches of 8 items and 2,048 tokens.
    fn default() -> Self {
        Self::new(CurvatureStructure::Kronecker)
    }
}

impl CurvatureConfig {
    /// Defaults in a structure.
    pub fn new(structure: CurvatureStructure) -> Self {
        Self {
            structure,
            subset: AdapterSubset::All,
            fisher: FisherKind::Exact,
            treatment: TokenTreatment::Expand,
            likelihood: None,
            dense_limit: None,
            low_rank: 10,
            projection: None,
            memory_limit: None,
            limits: None,
        }
    }

    setters! {
        /// Sets what is kept of the curvature.
        with_structure(structure: CurvatureStructure);
        /// Sets over which weights it is.
        with_subset(subset: AdapterSubset);
        /// Sets where targets come from.
        with_fisher(fisher: FisherKind);
        /// Sets how tokens enter the Kronecker factors.
        with_treatment(treatment: TokenTreatment);
        /// Sets the widest factor kept dense; `None` estimates it.
        with_dense_limit(dense_limit: impl Into<Option<usize>>);
        /// Sets the rank of wider factors.
        with_low_rank(low_rank: usize);
        /// Sets the random projection of Jacobians; `None` keeps them whole.
        with_projection(projection: impl Into<Option<RandomProjection>>);
        /// Sets the most bytes that the sums may take; `None` is what the system has free.
        with_memory_limit(memory_limit: impl Into<Option<u64>>);
        /// Sets the size of a batch of the pass, whatever that of the whole.
        with_limits(limits: BatchLimits);
    }

    /// Sets how targets depend on outputs, whatever the likelihood of the whole.
    pub fn with_likelihood(mut self, likelihood: impl Into<SharedLikelihood>) -> Self {
        self.likelihood = Some(likelihood.into());
        self
    }

    /// The likelihood, categorical where none is set.
    pub fn likelihood_or_default(&self) -> SharedLikelihood {
        self.likelihood.clone().unwrap_or_default()
    }

    /// The size of a batch, 8 items and 2,048 tokens where none is set.
    pub fn limits_or_default(&self) -> BatchLimits {
        self.limits.unwrap_or(BatchLimits { max_items: 8, max_tokens: 2048 })
    }

    /// The same as a part of a whole: with its likelihood and its size of batches where these are not set here.
    pub fn resolved_in(&self, likelihood: &SharedLikelihood, limits: BatchLimits) -> Self {
        let mut config = self.clone();
        config.likelihood.get_or_insert_with(|| likelihood.clone());
        config.limits.get_or_insert(limits);
        config
    }

    /// The same with defaults in place of what a whole may set: what sums and their files hold.
    pub(super) fn resolved(&self) -> Self {
        self.resolved_in(&self.likelihood_or_default(), self.limits_or_default())
    }

    /// Checks that the likelihood that trained an adapter gives its curvature, too.
    ///
    /// # Errors
    /// Names both.
    pub(crate) fn check_trained_by(&self, trained: &SharedLikelihood) -> Result<()> {
        let curved = self.likelihood_or_default();
        if curved == *trained {
            return Ok(());
        }
        Err(Error::Incompatible(format!(
            "the posterior is about the optimum of one likelihood, but `{trained}` trains the adapter and `{curved}` gives the \
             curvature: set one for both (`with_likelihood`)"
        )))
    }

    /// The structure's plan, in random sums of the weights where a projection is asked for.
    pub fn plan(&self) -> Plan {
        match (self.structure.plan(), self.projection) {
            (plan, Some(_)) if plan.takes_projection() => Plan { coordinates: CoordinateKind::Sketch, ..plan },
            (plan, _) => plan,
        }
    }

    /// The settings of the pass that must run first: that of the Kronecker factors where a structure needs their bases.
    pub(super) fn first_pass(&self) -> Self {
        let structure = if self.plan().needs_factors_first() { CurvatureStructure::Kronecker } else { self.structure };
        Self { structure, ..self.clone() }
    }

    /// True if a factor of this width is kept dense beside one of width `other`.
    pub(super) fn is_dense(&self, width: usize, other: usize) -> bool {
        self.dense_limit.is_none_or(|limit| width <= limit.max(other))
    }

    /// True if one forward and backward pass serves both settings.
    pub(super) fn shares_passes_with(&self, other: &Self) -> bool {
        let passes = |c: &Self| (c.fisher, c.likelihood_or_default(), c.subset.clone(), c.limits_or_default());
        passes(self) == passes(other)
    }

    /// All settings that the sums depend on: no bounds on memory.
    ///
    /// The size of batches is one in Kronecker coordinates alone. Without a [`CurvatureConfig::dense_limit`] the widest dense factor is
    /// estimated from the number of batches, and what a low-rank factor discards depends on which vectors come together. All other
    /// sums are those of single items, in any batches.
    pub fn identity(&self) -> Identity {
        let identity = self.identity_in_any_batches();
        if self.plan().coordinates == CoordinateKind::Kronecker {
            identity.with("limits", self.limits)
        } else {
            identity
        }
    }

    /// The same without the size of batches: shards may differ in it, as low-rank factors do in the order of their vectors.
    fn identity_in_any_batches(&self) -> Identity {
        let Self {
            structure,
            subset,
            fisher,
            treatment,
            likelihood: _,
            dense_limit,
            low_rank,
            projection,
            memory_limit: _,
            limits: _,
        } = self;
        let identity = Identity::new().with("structure", structure).with("subset", subset).with("fisher", fisher);
        let identity = identity.with("likelihood", self.likelihood_or_default()).with("projection", projection);
        if self.plan().coordinates != CoordinateKind::Kronecker {
            return identity;
        }
        identity.with("treatment", treatment).with("dense_limit", dense_limit).with("low_rank", low_rank)
    }

    /// Checks that sums fitted with `other` can join sums fitted with these settings; batch sizes and memory do not matter.
    ///
    /// # Errors
    /// Names the first setting that differs, and both its values.
    pub(super) fn check_merges_with(&self, other: &Self) -> Result<()> {
        match self.identity_in_any_batches().difference(&other.identity_in_any_batches()) {
            None => Ok(()),
            Some(difference) => {
                Err(Error::Incompatible(format!("curvature sums with different settings do not merge: {difference}")))
            }
        }
    }

    /// Checks that the treatment of tokens has a meaning where every token has a target of its own.
    ///
    /// # Errors
    /// Names the likelihood and the treatment.
    fn check_treatment(&self, likelihood: &dyn Likelihood) -> Result<()> {
        let reads_factors = self.plan().coordinates == CoordinateKind::Kronecker;
        if !(reads_factors && likelihood.draws_in_model()) || self.treatment == TokenTreatment::Expand {
            return Ok(());
        }
        Err(Error::Incompatible(format!(
            "token treatment {:?} is for one target an item; under the likelihood `{}` every {} has its own: `TokenTreatment::Expand`",
            self.treatment,
            likelihood.name(),
            likelihood.unit()
        )))
    }

    /// Checks every bound.
    ///
    /// # Errors
    /// Names the field, its bound and its value.
    pub fn validate(&self) -> Result<()> {
        let likelihood = self.likelihood_or_default();
        likelihood.check()?;
        self.fisher.check(&*likelihood)?;
        self.check_treatment(&*likelihood)?;
        self.limits_or_default().validate()?;
        if self.low_rank == 0 {
            return Err(Error::config("low_rank", "at least 1", 0));
        }
        if let Some(RandomProjection { width, .. }) = self.projection {
            if width == 0 {
                return Err(Error::config("projection width", "at least 1", 0));
            }
            if !self.structure.plan().takes_projection() {
                return Err(Error::Incompatible(format!(
                    "a random projection is for rows of weights, as in function space; {} holds none",
                    self.structure
                )));
            }
        }
        let plan = self.structure.plan();
        plan.check()?;
        if plan.coordinates == CoordinateKind::Sketch && self.projection.is_none() {
            return Err(Error::Incompatible(format!(
                "{} needs the width and seed of a random projection",
                self.structure
            )));
        }
        if plan.coordinates.is_of_modules() && matches!(self.subset, AdapterSubset::OnlyA | AdapterSubset::OnlyB) {
            return Err(Error::Incompatible(format!(
                "a core has no separate A and B, so the subset {:?} has no meaning there",
                self.subset
            )));
        }
        Ok(())
    }
}
