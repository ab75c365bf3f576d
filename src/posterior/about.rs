//! Checks that a posterior is about the adapter that a model carries.

use super::laplace::Laplace;
use crate::error::{Error, Result};
use crate::lora::{Adaptable, read_adapter};
use crate::models::Dataset;

impl Laplace {
    /// Checks that it may answer `data` by `model`: what every prediction asks first.
    ///
    /// # Errors
    /// As [`Laplace::check_is_about`] and, unless the caller insists, [`super::FittedOn::check_asked`].
    pub(crate) fn check_answers<M: Adaptable, D: Dataset>(&self, model: &M, data: &D) -> Result<()> {
        self.check_is_about(model)?;
        self.check_asked(data)
    }

    /// Checks that `model` carries the adapter that the posterior is about.
    ///
    /// # Errors
    /// Names what differs: the number of matrices, one of them, a shape, or the weights.
    pub fn check_is_about<M: Adaptable>(&self, model: &M) -> Result<()> {
        let found = read_adapter(model)?;
        if found.len() != self.map().len() {
            let what = "adapted sites of the model".into();
            return Err(Error::Count { what, expected: self.map().len(), found: found.len() });
        }
        for ((site, map), (other, weight)) in self.map().iter().zip(&found) {
            if site != other {
                return Err(Error::Incompatible(format!("the posterior is about `{site}`, the model about `{other}`")));
            }
            if map.dim() != weight.dim() {
                let (expected, found) = (map.shape().to_vec(), weight.shape().to_vec());
                return Err(Error::Shape { what: site.to_string(), expected, found });
            }
            if map != weight {
                return Err(Error::Incompatible(format!(
                    "the model's `{site}` has other weights than the adapter that the posterior was fitted around"
                )));
            }
        }
        Ok(())
    }
}
