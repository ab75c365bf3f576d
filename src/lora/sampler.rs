//! Draws adapters.

use super::AdapterWeights;
use crate::error::Result;

/// A distribution over adapters of one shape: a posterior, an ensemble, noise around a trained adapter.
///
/// A draw of the weights is shared by all items and tokens: it is a network.
pub trait AdapterSampler: Send + Sync {
    /// Draw number `index`, a function of (seed, index) alone.
    ///
    /// # Errors
    /// If there is no such draw.
    fn draw(&self, seed: u64, index: u64) -> Result<AdapterWeights>;

    /// How many draws there are, if they are finitely many: 0, 1, …, each of equal weight.
    fn n_members(&self) -> Option<usize> {
        None
    }
}
