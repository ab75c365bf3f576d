//! Says when the Jacobians of the training items are kept whole, and what is kept of them otherwise.

use crate::curvature::RandomProjection;
use crate::data::BatchLimits;
use crate::error::{Error, Result};
use crate::setters::setters;

/// When the kernel of the linearised model is exact, and what replaces it otherwise.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct LinearizedConfig {
    /// Most combinations of outputs (N(C − 1) for class tokens, all answers of all items for continuations) whose kernel is exact. A
    /// Newton step of M takes M³/3 multiplications.
    pub exact_rows: usize,
    /// Most bytes of Jacobians that are kept whole while the kernel is made.
    pub exact_bytes: u64,
    /// The random projection of more.
    pub projection: RandomProjection,
    /// Size of a batch of the pass over the items.
    pub limits: BatchLimits,
}

impl Default for LinearizedConfig {
    /// Exact up to 3,000 rows and 4 GiB, beyond in 2,048 random sums; batches of 8 items and 2,048 tokens.
    fn default() -> Self {
        Self {
            exact_rows: 3000,
            exact_bytes: 4 << 30,
            projection: RandomProjection { width: 2048, seed: 0 },
            limits: BatchLimits { max_items: 8, max_tokens: 2048 },
        }
    }
}

impl LinearizedConfig {
    setters! {
        /// Sets the most combinations of outputs whose kernel is exact; 0 projects always.
        with_exact_rows(exact_rows: usize);
        /// Sets the most bytes of Jacobians that are kept whole.
        with_exact_bytes(exact_bytes: u64);
        /// Sets the random projection of more.
        with_projection(projection: RandomProjection);
        /// Sets the size of a batch.
        with_limits(limits: BatchLimits);
    }

    /// Checks every bound.
    ///
    /// # Errors
    /// Names the field, its bound and its value.
    pub fn validate(&self) -> Result<()> {
        if self.projection.width == 0 {
            return Err(Error::config("projection width", "at least 1", 0));
        }
        Ok(())
    }
}
