//! Makes texts with a number each a data set, whose targets are the numbers.

use super::dataset::Dataset;
use super::token_batch::TokenBatch;
use crate::data::{Asked, BatchLimits, BatchOrder, ValuedDataset};
use crate::error::Result;
use crate::hash::fnv1a_words;
use crate::likelihood::Target;
use burn::tensor::{DType, Device};

impl Dataset for ValuedDataset {
    type Input = TokenBatch;

    fn n_items(&self) -> usize {
        self.encoded().len()
    }

    fn label(&self, _item: usize) -> Option<usize> {
        None
    }

    fn target(&self, item: usize) -> Option<Target> {
        self.values()[item].map(|value| Target::Values(vec![value]))
    }

    fn item_id(&self, item: usize) -> String {
        self.encoded().item_id(item)
    }

    fn content_hash(&self, item: usize) -> Option<u64> {
        let value = self.values()[item].map_or([0, 0], |value| [1, value.to_bits()]);
        Some(fnv1a_words([self.encoded().content_hash(item)?].into_iter().chain(value)))
    }

    fn asked(&self) -> Option<&Asked> {
        self.encoded().asked()
    }

    fn plan(&self, limits: BatchLimits, order: BatchOrder) -> Result<Vec<Vec<usize>>> {
        Dataset::plan(self.encoded(), limits, order)
    }

    fn batch(&self, indices: &[usize], device: &Device, dtype: DType) -> Result<TokenBatch> {
        self.encoded().batch(indices, device, dtype)
    }
}
