//! Remembers which data a posterior was fitted on.

use crate::curvature::Curvature;
use crate::data::Asked;
use crate::error::{Error, Result};
use crate::hash::fnv1a_words;
use crate::models::Dataset;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// The items whose curvature a posterior holds, by number and hash, and how they were asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FittedOn {
    /// How many there were.
    pub n_items: usize,
    /// A hash of their keys (see [`Dataset::item_key`]), whatever their order.
    pub fingerprint: u64,
    /// How they were put to a language model, where the data know it.
    pub asked: Option<Asked>,
}

impl FittedOn {
    pub(super) fn curvature(curvature: &Curvature) -> Self {
        Self::keys(curvature.n_data, &curvature.item_keys, curvature.asked.as_ref())
    }

    /// The mark that a posterior fitted on `data` has.
    pub fn data<D: Dataset>(data: &D) -> Self {
        Self::keys(data.n_items(), &(0..data.n_items()).map(|item| data.item_key(item)).collect(), data.asked())
    }

    fn keys(n_items: usize, keys: &BTreeSet<u64>, asked: Option<&Asked>) -> Self {
        Self { n_items, fingerprint: fnv1a_words(keys.iter().copied()), asked: asked.cloned() }
    }

    /// Checks that `data` are the items that the posterior was fitted on, asked in the same way.
    ///
    /// # Errors
    /// Names both numbers and both hashes, or as [`FittedOn::check_asked`].
    pub fn check<D: Dataset>(&self, data: &D) -> Result<()> {
        let found = Self::data(data);
        if (found.n_items, found.fingerprint) == (self.n_items, self.fingerprint) {
            return self.check_asked(data);
        }
        Err(Error::Incompatible(format!(
            "the posterior was fitted on {} items with hash {:016x}; these are {} with hash {:016x}",
            self.n_items, self.fingerprint, found.n_items, found.fingerprint
        )))
    }

    /// Checks that `data`, whatever their items, are asked as those that the posterior was fitted on; where one of the two is unknown
    /// there is nothing to compare.
    ///
    /// # Errors
    /// Names every difference with both values.
    pub fn check_asked<D: Dataset>(&self, data: &D) -> Result<()> {
        let pair = self.asked.as_ref().zip(data.asked());
        let differences = pair.map_or_else(Vec::new, |(there, here)| there.differences(here));
        if differences.is_empty() {
            return Ok(());
        }
        Err(Error::Incompatible(format!(
            "the questions are asked in another way than those that the posterior was fitted on: {} (ask in its way, or insist with \
             `Laplace::with_any_way_of_asking`)",
            differences.join("; ")
        )))
    }
}
