//! Gathers the Jacobians of items as they come, batch by batch.

use super::items::LinearizedItems;
use crate::curvature::{RowBlock, push_block};
use crate::error::Result;
use ndarray::{Array1, Array2, s};

/// What a batch leaves.
pub(super) struct BatchRows {
    pub(super) logits: Array2<f64>,
    pub(super) are_contrasts: bool,
    /// `[b·k, width]`, item after item.
    pub(super) rows: RowBlock,
    /// `[b, k]`
    pub(super) drift: Array2<f64>,
}

/// The rows of the batches so far.
#[derive(Debug, Clone)]
pub(super) struct CollectedRows {
    /// The items beside their rows; zeros for those that have not come yet.
    pub(super) items: LinearizedItems,
    /// The rows as they came.
    pub(super) blocks: Vec<RowBlock>,
    /// The place of each row among those of the data's order.
    pub(super) places: Vec<usize>,
}

impl CollectedRows {
    /// None yet, of `n` items with `k` rows each.
    pub(super) fn new(n: usize, n_outputs: usize, k: usize) -> Self {
        let (outputs, drift) = (Array2::zeros((n, n_outputs)), Array1::zeros(n * k));
        Self {
            items: LinearizedItems { outputs, are_contrasts: false, rows_per_item: k, drift },
            blocks: Vec::new(),
            places: Vec::with_capacity(n * k),
        }
    }

    /// Adds those of the items at `indices`.
    ///
    /// # Errors
    /// If the rows have another width or precision than those before.
    pub(super) fn add(&mut self, indices: &[usize], batch: BatchRows) -> Result<()> {
        let k = self.items.rows_per_item;
        self.items.are_contrasts = batch.are_contrasts;
        push_block(&mut self.blocks, batch.rows)?;
        for (row, &item) in indices.iter().enumerate() {
            self.items.outputs.row_mut(item).assign(&batch.logits.row(row));
            self.items.drift.slice_mut(s![item * k..(item + 1) * k]).assign(&batch.drift.row(row));
            self.places.extend(item * k..(item + 1) * k);
        }
        Ok(())
    }
}
