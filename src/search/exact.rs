//! Writes a search into the headers of this crate's own files, its numbers to the last bit.

use super::outcome::{Search, SearchEnd};
use crate::error::Result;
use crate::file_header::Exact;
use serde::{Deserialize, Serialize};

/// A [`Search`] in a file's header.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExactSearch {
    quantity: String,
    value: Exact,
    low: Exact,
    high: Exact,
    end: SearchEnd,
    meaning: String,
}

impl ExactSearch {
    /// # Errors
    /// If a number is not finite.
    pub(crate) fn new(search: &Search) -> Result<Self> {
        let exact = |value| Exact::new(&search.quantity, value);
        Ok(Self {
            quantity: search.quantity.clone(),
            value: exact(search.value)?,
            low: exact(search.low)?,
            high: exact(search.high)?,
            end: search.end,
            meaning: search.meaning.clone(),
        })
    }
}

impl From<ExactSearch> for Search {
    fn from(kept: ExactSearch) -> Self {
        let (value, bounds) = (kept.value.value(), (kept.low.value(), kept.high.value()));
        Search::new(kept.quantity, value, bounds, kept.end).with_meaning(kept.meaning)
    }
}
