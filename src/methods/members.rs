//! Finite sets of adapters, each of equal weight: the draws of checkpoint and deep ensembles.

use super::gaussian::bytes_of;
use super::keep::{Keep, Kept};
use crate::error::{Error, Result};
use crate::lora::{AdapterSampler, AdapterWeights};

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
        for member in &members[1..] {
            for (site, weight) in first {
                let other = member.get(site).ok_or_else(|| {
                    Error::Incompatible(format!("a member of the ensemble has no `{site}`, another has"))
                })?;
                if other.dim() != weight.dim() {
                    return Err(Error::Shape {
                        what: format!("`{site}` of a member of the ensemble"),
                        expected: weight.shape().to_vec(),
                        found: other.shape().to_vec(),
                    });
                }
            }
        }
        Ok(Self(members))
    }

    /// The members.
    pub fn all(&self) -> &[AdapterWeights] {
        &self.0
    }

    /// Bytes of all members but one in single precision.
    pub(super) fn extra_bytes(&self) -> usize {
        bytes_of(&self.0[0]) * (self.0.len() - 1)
    }
}

impl Members {
    pub(super) const KIND: &str = "members";

    pub(super) fn restore(kept: &mut Kept) -> Result<Self> {
        Self::new(kept.take_adapters("member")?)
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
