//! Says when the Jacobians of the training items are kept whole, and what is kept of them otherwise.

use crate::curvature::RandomProjection;
use crate::data::BatchLimits;
use crate::error::{Error, Result};
use crate::setters::setters;

/// What stands for the Jacobians of all training items where they are too many for an exact kernel.
///
/// A projection makes the matched prior weaker than it is, for M rows of m sums lack about M/m of their directions, and where m is far
/// below M no prior fits at all. A subset has the error of a sample, and its temperature leans to softer answers: an item is left out of
/// fewer others than it was trained with. At equal cost a subset is nearer in both ([`crate::posterior::LaplaceConfig`] takes it), though a
/// projection at more cost is nearer in the temperature. Where every item is asked about, only a projection answers.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
#[non_exhaustive]
pub enum Beyond {
    /// Random sums of every item's Jacobians. The memory grows with the number of items times the width, and a Newton step with the number
    /// times the width's square.
    Projection(RandomProjection),
    /// The whole Jacobians of some items, as many as the bounds of the exact kernel hold, drawn by their keys: a function of the items and
    /// the seed, whatever their order. Time and memory are bounded, however many items there are. What is found is about these items
    /// alone; a curvature is that of all.
    Subset {
        /// Seed of the draw.
        seed: u64,
    },
}

/// When the kernel of the linearised model is exact, and what replaces it otherwise.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
#[non_exhaustive]
pub struct LinearizedConfig {
    /// Most combinations of outputs (N(C − 1) for class tokens, all answers of all items for continuations) whose kernel is exact. A
    /// Newton step of M takes M³/3 multiplications.
    pub exact_rows: usize,
    /// Most bytes of Jacobians that are kept whole while the kernel is made.
    pub exact_bytes: u64,
    /// What stands for more.
    pub beyond: Beyond,
    /// Size of a batch of the pass over the items. `None` is that of the whole ([`crate::posterior::Laplace::fit`]), else 8 items and 2,048 tokens.
    pub limits: Option<BatchLimits>,
}

impl Default for LinearizedConfig {
    /// Exact up to 3,000 rows and 4 GiB, beyond in 2,048 random sums, so that there is an answer about every item; batches of 8 items and 2,048 tokens.
    fn default() -> Self {
        Self {
            exact_rows: 3000,
            exact_bytes: 4 << 30,
            beyond: Beyond::Projection(RandomProjection { width: 2048, seed: 0 }),
            limits: None,
        }
    }
}

/// What is kept of the Jacobians of a set of items.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Extent {
    Whole,
    Projected(RandomProjection),
    /// Those of so many items, drawn with a seed.
    Some(usize, u64),
}

impl LinearizedConfig {
    setters! {
        /// Sets the most combinations of outputs whose kernel is exact; 0 is none.
        with_exact_rows(exact_rows: usize);
        /// Sets the most bytes of Jacobians that are kept whole.
        with_exact_bytes(exact_bytes: u64);
        /// Sets what stands for more.
        with_beyond(beyond: Beyond);
        /// Sets the size of a batch.
        with_limits(limits: impl Into<Option<BatchLimits>>);
    }

    /// Sets the random projection of more.
    pub fn with_projection(self, projection: RandomProjection) -> Self {
        self.with_beyond(Beyond::Projection(projection))
    }

    /// The size of a batch, 8 items and 2,048 tokens where none is set.
    pub fn limits_or_default(&self) -> BatchLimits {
        self.limits.unwrap_or(BatchLimits { max_items: 8, max_tokens: 2048 })
    }

    /// The same as a part of a whole: with its size of batches where none is set here.
    pub fn resolved_in(mut self, limits: BatchLimits) -> Self {
        self.limits.get_or_insert(limits);
        self
    }

    /// What is kept of the Jacobians of `n_items` items with `k` rows each, of `width` numbers of `number` bytes.
    pub(super) fn extent(&self, n_items: usize, k: usize, width: usize, number: usize) -> Extent {
        let bytes_of_item = (number as u64).saturating_mul(k as u64).saturating_mul(width as u64).max(1);
        let by_bytes = usize::try_from(self.exact_bytes / bytes_of_item).unwrap_or(usize::MAX);
        let most = by_bytes.min(self.exact_rows / k.max(1));
        match self.beyond {
            _ if n_items <= most => Extent::Whole,
            Beyond::Projection(projection) if projection.width < width => Extent::Projected(projection),
            Beyond::Projection(_) => Extent::Whole,
            Beyond::Subset { seed } => Extent::Some(most.max(1), seed),
        }
    }

    /// Checks every bound.
    ///
    /// # Errors
    /// Names the field, its bound and its value.
    pub fn validate(&self) -> Result<()> {
        if let Beyond::Projection(RandomProjection { width: 0, .. }) = self.beyond {
            return Err(Error::config("projection width", "at least 1", 0));
        }
        self.limits_or_default().validate()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_follows_from_the_tighter_of_both_bounds() {
        let config = LinearizedConfig::default().with_exact_rows(300).with_exact_bytes(4 * 300 * 1000);
        let projection = RandomProjection { width: 50, seed: 1 };
        let (projected, some) = (config.with_projection(projection), config.with_beyond(Beyond::Subset { seed: 7 }));
        assert_eq!(projected.extent(100, 3, 1000, 4), Extent::Whole);
        assert_eq!(projected.extent(101, 3, 1000, 4), Extent::Projected(projection));
        assert_eq!(projected.extent(101, 3, 50, 4), Extent::Whole);
        assert_eq!(some.extent(101, 3, 1000, 4), Extent::Some(100, 7));
        // numbers of eight bytes, and rows that are twice as long
        assert_eq!(some.extent(101, 3, 1000, 8), Extent::Some(50, 7));
        assert_eq!(some.extent(101, 3, 2000, 4), Extent::Some(50, 7));
        // one item is the least
        assert_eq!(some.with_exact_bytes(0).extent(101, 3, 2000, 4), Extent::Some(1, 7));
    }
}
