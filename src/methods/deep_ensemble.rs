//! Deep ensemble: several runs from several starts.

use super::bounds::check_some;
use super::members::{Members, member_seed};
use super::method::{FitContext, Fitted, Method, Requirements, Spent};
use crate::error::Result;
use crate::identity::Identity;
use crate::lora::read_adapter;
use crate::models::{Classifier, Dataset};
use crate::setters::setters;

/// `p̄ = (1/K) Σ_k softmax f(x; θ_k)` over K runs of one recipe, each with its own start, order of the data and dropout. The
/// trained adapter of the comparison is the first member.
///
/// Lakshminarayanan et al. (2017), arXiv 1612.01474; Wang et al. (2023), arXiv 2310.00035.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct DeepEnsemble {
    /// K
    pub n_members: usize,
}

impl Default for DeepEnsemble {
    /// Three members.
    fn default() -> Self {
        Self { n_members: 3 }
    }
}

impl DeepEnsemble {
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

impl<M: Classifier, D: Dataset<Input = M::Input>> Method<M, D> for DeepEnsemble {
    fn name(&self) -> String {
        "deep ensemble".into()
    }

    fn identity(&self) -> Result<Identity> {
        Identity::of(self)
    }

    fn validate(&self) -> Result<()> {
        DeepEnsemble::validate(self)
    }

    fn describe(&self) -> String {
        format!("{} independent runs, probabilities averaged", self.n_members)
    }

    fn requirements(&self) -> Requirements {
        Requirements { adapter_alone: true, ..Requirements::default() }
    }

    fn fit(&self, context: &FitContext<M, D>) -> Result<Fitted<M, D>> {
        context.check(self)?;
        let mut members = vec![read_adapter(context.map)?];
        let mut items = 0;
        for member in 1..self.n_members as u64 {
            let outcome = context.train_adapter(member_seed(context.seed, member))?;
            items += outcome.report.items;
            members.push(read_adapter(&outcome.model)?);
        }
        let members = Members::new(members)?;
        let bytes = members.extra_bytes();
        Ok(Fitted::new(members.belief(context.seed, bytes)).with_spent(Spent::training(items)))
    }
}
