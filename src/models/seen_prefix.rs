//! What a decoder has seen of the tokens that all rows of some batches begin with.

use super::kv_cache::LayerCache;
use crate::data::{EncodedItem, EncodedRow};
use crate::error::{Error, Result};

/// Tokens that rows begin with, and the keys and values of every layer: computed once, and read by the tokens behind them in any row.
///
/// A causal network gives these tokens the same states in every row. Instructions and worked examples before each question are such.
#[derive(Debug)]
pub struct SeenPrefix {
    pub(super) ids: Vec<u32>,
    /// Of one row.
    pub(super) layers: Vec<LayerCache>,
}

impl SeenPrefix {
    /// Number of tokens.
    pub fn n_tokens(&self) -> usize {
        self.ids.len()
    }

    /// The items without it.
    ///
    /// # Errors
    /// If a row does not begin with it, or something is read off a token that is part of it.
    pub(super) fn strip(&self, items: &[EncodedItem]) -> Result<Vec<EncodedItem>> {
        let n = self.n_tokens();
        let stripped = |row: &EncodedRow| EncodedRow {
            ids: row.ids[n..].to_vec(),
            scored: if row.scored.is_empty() { 0..0 } else { row.scored.start - n..row.scored.end - n },
            weight: row.weight,
            types: row.types.get(n..).unwrap_or_default().to_vec(),
        };
        let one = |item: &EncodedItem| {
            if let Some(row) = item.rows.iter().find(|row| !row.ids.starts_with(&self.ids) || row.first_read() < n) {
                return Err(Error::Incompatible(format!(
                    "a row of item `{}`, of {} tokens, does not begin with the {n} tokens that were seen, or is read at one of them",
                    item.id,
                    row.ids.len()
                )));
            }
            Ok(EncodedItem { rows: item.rows.iter().map(stripped).collect(), ..item.clone() })
        };
        items.iter().map(one).collect()
    }
}
