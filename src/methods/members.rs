//! Finite sets of adapters, each of equal weight: the draws of checkpoint and deep ensembles.

use super::belief::SampledBelief;
use super::gaussian::bytes_of;
use super::keep::{Keep, Kept};
use crate::draws::{self, Purpose};
use crate::error::{Error, Result};
use crate::lora::{AdapterSampler, AdapterWeights, check_same_shapes};

/// What an error says that a member is.
const MEMBER: &str = "a member of the ensemble";

/// The seed of a member's own run; member 0 has the comparison's.
pub fn member_seed(seed: u64, member: u64) -> u64 {
    if member == 0 { seed } else { draws::seed(seed, Purpose::Member, 0, member) }
}

/// `p̄ = (1/K) Σ_k softmax f(x; θ_k)` over K adapters: probabilities are averaged, never logits.
#[derive(Debug, Clone, PartialEq)]
pub struct Members(Vec<AdapterWeights>);

impl Members {
    /// Takes the members.
    ///
    /// # Errors
    /// If there is none, or two differ in their matrices or shapes.
    pub fn new(members: Vec<AdapterWeights>) -> Result<Self> {
        let first = members.first().ok_or_else(|| Error::empty("ensemble"))?;
        members[1..].iter().try_for_each(|member| check_same_shapes(MEMBER, member, first))?;
        Ok(Self(members))
    }

    /// The members.
    pub fn all(&self) -> &[AdapterWeights] {
        &self.0
    }

    /// Bytes of all members in single precision.
    pub(super) fn bytes(&self) -> usize {
        self.0.iter().map(bytes_of).sum()
    }

    /// What they believe together.
    pub(super) fn belief(self, seed: u64, bytes: usize) -> SampledBelief<Self> {
        SampledBelief { n_samples: self.0.len(), sampler: self, seed, bytes }
    }

    /// Bytes of all members but one, where that one is the trained adapter.
    pub(super) fn extra_bytes(&self) -> usize {
        self.bytes() - bytes_of(&self.0[0])
    }
}

impl Members {
    pub(super) const KIND: &str = "members";

    pub(super) fn restore(kept: &mut Kept, map: &AdapterWeights) -> Result<Self> {
        let members = Self::new(kept.take_adapters("member")?)?;
        check_same_shapes(MEMBER, &members.0[0], map)?;
        Ok(members)
    }
}

impl Keep for Members {
    fn keep(&self) -> Option<Kept<'_>> {
        Some(Kept::new(Self::KIND).with_adapters("member", &self.0))
    }
}

impl AdapterSampler for Members {
    fn draw(&self, _seed: u64, index: u64) -> Result<AdapterWeights> {
        let member = usize::try_from(index).ok().and_then(|index| self.0.get(index));
        member.cloned().ok_or_else(|| Error::config("member of the ensemble", format!("below {}", self.0.len()), index))
    }

    fn n_members(&self) -> Option<usize> {
        Some(self.0.len())
    }
}
