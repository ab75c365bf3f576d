//! Holds a likelihood in a configuration: shared, compared and written by its name and settings.

use super::density::Likelihood;
use crate::file_header::Exact;
use serde::{Deserialize, Serialize, Serializer, ser::Error as _};
use std::collections::BTreeMap;
use std::fmt::{self, Debug, Display};
use std::ops::Deref;
use std::sync::Arc;

/// Any likelihood: what configurations hold. `Gaussian { noise_variance: 0.1 }.into()` makes one.
///
/// Two are equal if their names and settings are, bit by bit. Files hold name and settings; what reads them back is in
/// [`super::register`].
#[derive(Clone)]
pub struct SharedLikelihood(Arc<dyn Likelihood>);

impl<L: Likelihood + 'static> From<L> for SharedLikelihood {
    fn from(likelihood: L) -> Self {
        Self(Arc::new(likelihood))
    }
}

impl From<Box<dyn Likelihood>> for SharedLikelihood {
    fn from(likelihood: Box<dyn Likelihood>) -> Self {
        Self(likelihood.into())
    }
}

impl Deref for SharedLikelihood {
    type Target = dyn Likelihood;

    fn deref(&self) -> &Self::Target {
        &*self.0
    }
}

impl SharedLikelihood {
    fn identity(&self) -> (&'static str, Vec<(&'static str, u64)>) {
        (self.name(), self.settings().into_iter().map(|(name, value)| (name, value.to_bits())).collect())
    }
}

impl PartialEq for SharedLikelihood {
    fn eq(&self, other: &Self) -> bool {
        self.identity() == other.identity()
    }
}

impl Debug for SharedLikelihood {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Debug::fmt(&self.0, f)
    }
}

impl Display for SharedLikelihood {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        self.settings().iter().try_for_each(|(name, value)| write!(f, ", {name} {value}"))
    }
}

/// A likelihood in a file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Stored {
    pub(super) name: String,
    pub(super) settings: BTreeMap<String, Exact>,
}

impl Serialize for SharedLikelihood {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let setting = |(name, value): (&str, f64)| Ok((name.to_string(), Exact::new(name, value)?));
        let settings = self.settings().into_iter().map(setting).collect::<crate::error::Result<_>>();
        Stored { name: self.name().into(), settings: settings.map_err(S::Error::custom)? }.serialize(serializer)
    }
}
