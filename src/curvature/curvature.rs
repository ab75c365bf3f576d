//! Holds the curvature of the training data in one structure; sums over shards of the data merge.

use super::config::CurvatureConfig;
use super::diagonal::DiagonalSum;
use super::joint::JointSum;
use super::kron::KroneckerFactors;
use super::plan::{Coupling, Held, Plan, Source};
use crate::data::Asked;
use crate::error::{Error, Result};
use crate::lora::{AdapterWeights, adapter_fingerprint, check_same_adapter};
use std::collections::BTreeSet;

/// What one pass over the training data gathers, all of it **summed** over the data.
#[derive(Debug, Clone, PartialEq)]
pub struct Curvature {
    /// How it was fitted.
    pub config: CurvatureConfig,
    /// The sums.
    pub sums: CurvatureSums,
    /// Number of items seen.
    pub n_data: usize,
    /// Σ log p(y | x, θ*) over the items in nats; `None` if a label is unknown.
    pub log_likelihood: Option<f64>,
    /// Keys of the items seen (see [`crate::models::Dataset::item_key`]), by which [`Curvature::merge`] refuses to count
    /// one twice.
    pub item_keys: BTreeSet<u64>,
    /// The adapter θ* that it was fitted at, by [`adapter_fingerprint`].
    pub adapter_fingerprint: u64,
    /// How the items were asked, where the data know it (see [`crate::models::Dataset::asked`]).
    pub asked: Option<Asked>,
}

/// The sums of a structure.
#[derive(Debug, Clone, PartialEq)]
pub enum CurvatureSums {
    /// Of [`Source::Factors`]: two factors a site, in forward order.
    Kronecker(Vec<KroneckerFactors>),
    /// Of Jacobians, uncoupled: one number a coordinate.
    Diagonal(Vec<DiagonalSum>),
    /// Of Jacobians, coupled: blocks of sites with all their correlations.
    Joint(Vec<JointSum>),
}

impl Curvature {
    /// What is known of no item, at the adapter of a fingerprint.
    pub(super) fn empty(config: CurvatureConfig, adapter_fingerprint: u64) -> Self {
        let sums = match config.plan() {
            Plan { source: Source::Factors, .. } => CurvatureSums::Kronecker(Vec::new()),
            Plan { coupling: Coupling::None, .. } => CurvatureSums::Diagonal(Vec::new()),
            _ => CurvatureSums::Joint(Vec::new()),
        };
        let item_keys = BTreeSet::new();
        Self { config, sums, n_data: 0, log_likelihood: Some(0.0), item_keys, adapter_fingerprint, asked: None }
    }

    /// Checks that it was fitted at the adapter `weights`.
    ///
    /// # Errors
    /// Names both fingerprints.
    pub fn check_fitted_at(&self, weights: &AdapterWeights) -> Result<()> {
        check_same_adapter("curvature", self.adapter_fingerprint, adapter_fingerprint(weights))
    }

    /// The Kronecker factors, where that is the structure.
    ///
    /// # Errors
    /// If it is another.
    pub fn kronecker_factors(&self) -> Result<&[KroneckerFactors]> {
        match &self.sums {
            CurvatureSums::Kronecker(factors) => Ok(factors),
            _ => Err(Error::Incompatible(format!("a {} curvature has no Kronecker factors", self.config.structure))),
        }
    }

    /// What a site's activation sum is divided by: its input vectors for *expand*, items otherwise.
    pub fn normalizer(&self, factors: &KroneckerFactors) -> f64 {
        self.config.treatment.normalizer(factors.n_vectors, self.n_data)
    }

    /// Counts items and their likelihood.
    pub(super) fn count(
        &mut self,
        n_data: usize,
        log_likelihood: Option<f64>,
        item_keys: impl IntoIterator<Item = u64>,
    ) {
        self.n_data += n_data;
        self.item_keys.extend(item_keys);
        self.log_likelihood = self.log_likelihood.zip(log_likelihood).map(|(sum, new)| sum + new);
    }

    /// Joins the sums over other items of the same data, as if one pass had seen them all.
    ///
    /// Exact to rounding for every structure but low-rank Kronecker factors, whose truncation depends on the order within
    /// the discarded trace. EKFAC sums merge where both are in the same basis (see [`super::correct_eigenvalues`]).
    ///
    /// # Errors
    /// If the two were fitted with different settings, over different sites, at different adapters or on questions asked in
    /// different ways, or have seen the same item; the difference is named.
    pub fn merge(mut self, other: Self) -> Result<Self> {
        self.config.check_merges_with(&other.config)?;
        self.check_same_adapter_and_other_items(&other)?;
        self.check_asked(other.asked.as_ref())?;
        self.asked = self.asked.filter(|_| other.asked.is_some());
        match (&mut self.sums, other.sums) {
            (CurvatureSums::Kronecker(a), CurvatureSums::Kronecker(b)) => merge_sites(a, b, KroneckerFactors::merge)?,
            (CurvatureSums::Diagonal(a), CurvatureSums::Diagonal(b)) => merge_sites(a, b, DiagonalSum::merge)?,
            (CurvatureSums::Joint(a), CurvatureSums::Joint(b)) => {
                merge_sites(a, b, JointSum::merge)?;
                if let Coupling::Site(Held::Smaller) | Coupling::All(Held::Smaller) = self.config.plan().coupling {
                    a.iter_mut().for_each(JointSum::shrink);
                }
            }
            _ => return Err(Error::Incompatible("the two sums are of different structures".into())),
        }
        self.count(other.n_data, other.log_likelihood, other.item_keys);
        Ok(self)
    }

    /// The sums of an earlier task as a part of the precision around the adapter `weights` of a later one: `H₁ + H₂` is what
    /// [`Curvature::merge`] with the later task's sums then gives (online Laplace, whose H₁ stays that of the earlier adapter).
    ///
    /// Exact sums for weights' entries and their sketches. Kronecker factors are summed one by one, as K-FAC of both tasks' data does;
    /// EKFAC needs both passes in one basis. The earlier log-likelihood is that of another adapter and is forgotten, as is how its
    /// questions were asked: the evidence of a later task is `posterior::PosteriorPrior::log_marginal_likelihood`.
    ///
    /// Ritter et al. (2018), arXiv 1805.07810, eq. 9; Huszár (2018), arXiv 1712.03847.
    ///
    /// # Errors
    /// Over cores, which are other coordinates at another adapter.
    pub fn carried_to(mut self, weights: &AdapterWeights) -> Result<Self> {
        if self.config.plan().coordinates.is_of_modules() {
            return Err(Error::Incompatible(format!(
                "a {} curvature cannot be carried to another adapter: its cores are those of the adapter at which it was fitted",
                self.config.structure
            )));
        }
        self.adapter_fingerprint = adapter_fingerprint(weights);
        (self.log_likelihood, self.asked) = (None, None);
        Ok(self)
    }

    /// Checks that other items are asked as those seen so far; where one of the two is unknown there is nothing to compare.
    ///
    /// # Errors
    /// Names every difference with both values.
    pub(super) fn check_asked(&self, others: Option<&Asked>) -> Result<()> {
        let differences =
            self.asked.as_ref().zip(others).map_or_else(Vec::new, |(own, others)| own.differences(others));
        if differences.is_empty() {
            return Ok(());
        }
        Err(Error::Incompatible(format!(
            "curvature sums are about questions asked in one way, and these are asked in two: {}",
            differences.join("; ")
        )))
    }

    fn check_same_adapter_and_other_items(&self, other: &Self) -> Result<()> {
        check_same_adapter("curvature", self.adapter_fingerprint, other.adapter_fingerprint)?;
        let common = self.item_keys.intersection(&other.item_keys).count();
        if common > 0 {
            return Err(Error::Incompatible(format!(
                "{common} items are in both curvature sums ({} items here, {} there): merging would count them twice (if equal \
                 identifiers name different items, empty `item_keys` first)",
                self.n_data, other.n_data
            )));
        }
        Ok(())
    }

    /// Bytes that the sums hold.
    pub fn bytes(&self) -> usize {
        match &self.sums {
            CurvatureSums::Kronecker(factors) => factors.iter().map(KroneckerFactors::bytes).sum(),
            CurvatureSums::Diagonal(sums) => sums.iter().map(DiagonalSum::bytes).sum(),
            CurvatureSums::Joint(sums) => sums.iter().map(|s| s.sum.bytes()).sum(),
        }
    }
}

/// Merges two lists of sums, entry by entry.
fn merge_sites<T>(sums: &mut [T], others: Vec<T>, merge: impl Fn(&mut T, T) -> Result<()>) -> Result<()> {
    if sums.len() != others.len() {
        return Err(Error::Count { what: "sites of the other sums".into(), expected: sums.len(), found: others.len() });
    }
    sums.iter_mut().zip(others).try_for_each(|(sum, other)| merge(sum, other))
}
