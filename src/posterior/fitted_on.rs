//! Remembers which data a posterior was fitted on.

use crate::curvature::Curvature;
use crate::error::{Error, Result};
use crate::hash::fnv1a_words;
use crate::models::Dataset;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// The items whose curvature a posterior holds, by number and hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FittedOn {
    /// How many there were.
    pub n_items: usize,
    /// A hash of their keys (see [`Dataset::item_key`]), whatever their order.
    pub fingerprint: u64,
}

impl FittedOn {
    pub(super) fn curvature(curvature: &Curvature) -> Self {
        Self::keys(curvature.n_data, &curvature.item_keys)
    }

    /// The mark that a posterior fitted on `data` has.
    pub fn data<D: Dataset>(data: &D) -> Self {
        Self::keys(data.n_items(), &(0..data.n_items()).map(|item| data.item_key(item)).collect())
    }

    fn keys(n_items: usize, keys: &BTreeSet<u64>) -> Self {
        Self { n_items, fingerprint: fnv1a_words(keys.iter().copied()) }
    }

    /// Checks that `data` are the items that the posterior was fitted on.
    ///
    /// # Errors
    /// Names both numbers and both hashes.
    pub fn check<D: Dataset>(&self, data: &D) -> Result<()> {
        let found = Self::data(data);
        if found == *self {
            return Ok(());
        }
        Err(Error::Incompatible(format!(
            "the posterior was fitted on {} items with hash {:016x}; these are {} with hash {:016x}",
            self.n_items, self.fingerprint, found.n_items, found.fingerprint
        )))
    }
}
