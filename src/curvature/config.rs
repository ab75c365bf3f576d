//! Says how curvature is fitted.

use super::fisher::{FisherKind, TokenTreatment};
use super::plan::{CoordinateKind, Plan};
use super::sketch::RandomProjection;
use super::structure::{AdapterSubset, CurvatureStructure};
use crate::data::BatchLimits;
use crate::error::{Error, Result};
use crate::likelihood::Likelihood;

/// How curvature is fitted.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct CurvatureConfig {
    /// What is kept of it.
    pub structure: CurvatureStructure,
    /// Over which weights.
    pub subset: AdapterSubset,
    /// Where labels come from.
    pub fisher: FisherKind,
    /// How tokens enter the Kronecker factors; the other structures are sums over items.
    pub treatment: TokenTreatment,
    /// How labels depend on logits.
    pub likelihood: Likelihood,
    /// Widest factor kept dense; a wider one is kept at `low_rank`. The narrower of a site's two factors is always dense.
    ///
    /// `None` keeps dense what can be decomposed in a tenth of the time of the pass, by estimate. Shards of the data that are
    /// to be merged may differ in that: set it for them.
    pub dense_limit: Option<usize>,
    /// Rank of factors wider than `dense_limit`.
    pub low_rank: usize,
    /// Random projection of Jacobians that are held as rows, as those of function space; `None` keeps them whole.
    pub projection: Option<RandomProjection>,
    /// Most bytes that the sums may take; a larger plan is refused before anything runs.
    pub memory_limit: Option<u64>,
    /// Most items and tokens that the network sees at once, the repetitions for several backward passes counted in.
    pub limits: BatchLimits,
}

impl Default for CurvatureConfig {
    /// Kronecker factors of all adapters; exact Fisher, expand, categorical, dense by estimate, rank 10 above,
    /// batches of 8 items and 2,048 tokens.
    fn default() -> Self {
        Self {
            structure: CurvatureStructure::Kronecker,
            subset: AdapterSubset::All,
            fisher: FisherKind::Exact,
            treatment: TokenTreatment::Expand,
            likelihood: Likelihood::Categorical,
            dense_limit: None,
            low_rank: 10,
            projection: None,
            memory_limit: None,
            limits: BatchLimits { max_items: 8, max_tokens: 2048 },
        }
    }
}

impl CurvatureConfig {
    /// Defaults with another structure.
    pub fn with_structure(structure: CurvatureStructure) -> Self {
        Self { structure, ..Self::default() }
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
        let passes = |c: &Self| (c.fisher, c.likelihood, c.subset.clone(), c.limits);
        passes(self) == passes(other)
    }

    /// Checks that sums fitted with `other` can join sums fitted with these settings; batch sizes and memory do not matter.
    ///
    /// # Errors
    /// Names the first setting that differs, and both its values.
    pub(super) fn check_merges_with(&self, other: &Self) -> Result<()> {
        let settings = |c: &Self| {
            let mut settings = vec![
                ("structure", c.structure.to_string()),
                ("subset", format!("{:?}", c.subset)),
                ("fisher", format!("{:?}", c.fisher)),
                ("likelihood", format!("{:?}", c.likelihood)),
                ("projection", format!("{:?}", c.projection)),
            ];
            if self.plan().coordinates == CoordinateKind::Kronecker {
                settings.extend([
                    ("treatment", format!("{:?}", c.treatment)),
                    ("dense_limit", format!("{:?}", c.dense_limit)),
                    ("low_rank", c.low_rank.to_string()),
                ]);
            }
            settings
        };
        for ((name, here), (_, there)) in settings(self).into_iter().zip(settings(other)) {
            if here != there {
                return Err(Error::Incompatible(format!(
                    "curvature sums with different settings do not merge: {name} is {here} here and {there} there"
                )));
            }
        }
        Ok(())
    }

    /// Checks every bound.
    ///
    /// # Errors
    /// Names the field, its bound and its value.
    pub fn validate(&self) -> Result<()> {
        self.fisher.check()?;
        self.likelihood.check()?;
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
