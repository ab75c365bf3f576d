//! Gives a method another name, so that two settings of one method can stand in one comparison.

use super::method::{FitContext, Fitted, Method, NoiseSharing, Requirements};
use crate::error::Result;
use crate::identity::Identity;
use crate::models::{Classifier, Dataset};

/// A method under a name of the caller's: all else is the method's own.
///
/// ```
/// use bayes_lora::methods::{Ivon, Method, Named};
/// use bayes_lora::models::{Mlp, Points};
///
/// let published = Named::new("IVON, published", Ivon::published(1e6));
/// let name = Method::<Mlp, Points>::name(&published);
/// assert_eq!(name, "IVON, published");
/// assert_eq!(Method::<Mlp, Points>::describe(&published), Method::<Mlp, Points>::describe(&published.method));
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Named<T> {
    /// Its name in tables and files.
    pub name: String,
    /// The method.
    pub method: T,
}

impl<T> Named<T> {
    /// The method under this name.
    pub fn new(name: impl Into<String>, method: T) -> Self {
        Self { name: name.into(), method }
    }
}

impl<M: Classifier, D: Dataset<Input = M::Input>, T: Method<M, D>> Method<M, D> for Named<T> {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn describe(&self) -> String {
        self.method.describe()
    }

    fn identity(&self) -> Result<Identity> {
        self.method.identity()
    }

    fn validate(&self) -> Result<()> {
        self.method.validate()
    }

    fn requirements(&self) -> Requirements {
        self.method.requirements()
    }

    fn sharing(&self) -> Option<NoiseSharing> {
        self.method.sharing()
    }

    fn fit(&self, context: &FitContext<M, D>) -> Result<Fitted<M, D>> {
        self.method.fit(context)
    }
}
