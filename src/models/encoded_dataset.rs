//! Batches of encoded questions.

use super::dataset::Dataset;
use super::token_batch::TokenBatch;
use crate::data::{Asked, BatchLimits, BatchOrder, EncodedDataset, PaddingSide};
use crate::error::{Error, Result};
use crate::hash::fnv1a;
use burn::tensor::{DType, Device};

impl Dataset for EncodedDataset {
    type Input = TokenBatch;

    fn n_items(&self) -> usize {
        self.items.len()
    }

    fn rows_are_choices(&self) -> bool {
        self.answers.rows_are_choices()
    }

    fn label(&self, item: usize) -> Option<usize> {
        self.items[item].label
    }

    fn item_id(&self, item: usize) -> String {
        self.items[item].id.clone()
    }

    /// Of the item and of the tokens that answer for classes, as JSON.
    fn content_hash(&self, item: usize) -> Option<u64> {
        let text = serde_json::to_vec(&(&self.items[item], &self.answers, self.n_classes)).ok()?;
        Some(fnv1a(text))
    }

    fn asked(&self) -> Option<&Asked> {
        self.asked.as_ref()
    }

    fn common_beginning(&self) -> Vec<u32> {
        EncodedDataset::common_beginning(self).to_vec()
    }

    fn plan(&self, limits: BatchLimits, order: BatchOrder) -> Result<Vec<Vec<usize>>> {
        if self.is_empty() {
            return Err(Error::empty(format!("dataset `{}`", self.name)));
        }
        EncodedDataset::plan(self, limits, order)
    }

    fn batch(&self, indices: &[usize], device: &Device, dtype: DType) -> Result<TokenBatch> {
        TokenBatch::new(self, indices, PaddingSide::Right, &device.clone().without_autodiff(), dtype)
    }
}
