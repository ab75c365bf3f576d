//! Checkpoint ensemble: several points of one training run.

use super::bounds::check_some;
use super::members::Members;
use super::method::{FitContext, Fitted, Method, Requirements};
use crate::error::{Error, Result};
use crate::identity::Identity;
use crate::models::{Classifier, Dataset};
use crate::setters::setters;

/// `p̄ = (1/K) Σ_k softmax f(x; θ_k)` over the last K snapshots of one run, equally spaced as the trainer kept them
/// ([`crate::train::Snapshots`]). With a rate that decays to zero the last ones lie close together: take them from the second
/// half. No choice by validation score: that would be a method of selection.
///
/// Chen et al. (2017), arXiv 1710.03282.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct CheckpointEnsemble {
    /// K
    pub n_members: usize,
}

impl Default for CheckpointEnsemble {
    /// Three members.
    fn default() -> Self {
        Self { n_members: 3 }
    }
}

impl CheckpointEnsemble {
    setters! {
        /// Sets K.
        with_n_members(n_members: usize);
    }

    /// Checks every bound.
    ///
    /// # Errors
    /// Names the field, its bound and its value.
    pub fn validate(&self) -> Result<()> {
        check_some("n_members", self.n_members)
    }
}

impl<M: Classifier, D: Dataset<Input = M::Input>> Method<M, D> for CheckpointEnsemble {
    fn name(&self) -> String {
        "checkpoint ensemble".into()
    }

    fn identity(&self) -> Result<Identity> {
        Identity::of(self)
    }

    fn validate(&self) -> Result<()> {
        CheckpointEnsemble::validate(self)
    }

    fn describe(&self) -> String {
        format!("{} snapshots of one run, probabilities averaged", self.n_members)
    }

    fn requirements(&self) -> Requirements {
        Requirements { snapshots: self.n_members, adapter_alone: true, ..Requirements::default() }
    }

    fn fit(&self, context: &FitContext<M, D>) -> Result<Fitted<M, D>> {
        context.check(self)?;
        let found = context.snapshots.len();
        // the last one is often the trained adapter itself
        let Some(first) = found.checked_sub(self.n_members) else {
            return Err(Error::Count { what: "snapshots of the training run".into(), expected: self.n_members, found });
        };
        let chosen = &context.snapshots[first..];
        let members = Members::new(chosen.iter().map(|snapshot| snapshot.weights.clone()).collect())?;
        let bytes = members.extra_bytes();
        let fitted = Fitted::new(members.belief(context.seed, bytes));
        Ok(fitted
            .with_found("first step", chosen[0].step as f64)
            .with_found("last step", chosen[self.n_members - 1].step as f64))
    }
}
