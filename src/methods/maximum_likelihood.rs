//! Maximum likelihood: the trained adapter alone.

use super::belief::PointBelief;
use super::method::{FitContext, Fitted, Method};
use crate::error::Result;
use crate::identity::Identity;
use crate::models::{Classifier, Dataset};

/// `p = softmax f(x; θ*)`, the baseline of all others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct MaximumLikelihood;

impl MaximumLikelihood {
    /// What every other method is compared with.
    pub const NAME: &str = "maximum likelihood";
}

impl<M: Classifier, D: Dataset<Input = M::Input>> Method<M, D> for MaximumLikelihood {
    fn name(&self) -> String {
        Self::NAME.into()
    }

    fn identity(&self) -> Result<Identity> {
        Identity::of(self)
    }

    fn describe(&self) -> String {
        "the trained adapter alone".into()
    }

    fn fit(&self, _context: &FitContext<M, D>) -> Result<Fitted<M, D>> {
        Ok(Fitted::new(PointBelief))
    }
}
