//! Holds what a file says about a likelihood beside its name.

use crate::error::{Error, Result};
use std::collections::BTreeMap;

/// A likelihood's settings as a file holds them.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Settings(BTreeMap<String, f64>);

impl Settings {
    pub(super) fn new(all: BTreeMap<String, f64>) -> Self {
        Self(all)
    }

    pub(super) fn all(&self) -> &BTreeMap<String, f64> {
        &self.0
    }

    /// The setting of that name.
    ///
    /// # Errors
    /// If there is none.
    pub fn number(&self, name: &str) -> Result<f64> {
        let missing = || Error::Incompatible(format!("the setting `{name}` is missing"));
        self.0.get(name).copied().ok_or_else(missing)
    }
}
