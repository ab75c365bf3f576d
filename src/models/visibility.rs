//! Says which tokens of a batch see which, which are pads, and which repeat others.

use super::distinct_tokens::{DistinctTokens, Place};
use super::token_batch::TokenBatch;
use crate::data::SharedPrompt;
use crate::float_type::absent;
use burn::tensor::{DType, Tensor, TensorData};

impl TokenBatch {
    /// `[rows or 1, 1, tokens, seen + tokens]`: 0 where token i may look at token j ≤ i, far below any score elsewhere. With a window,
    /// the position of j is greater than that of i minus the window: what lies between two tokens of a row are tokens of the row, so
    /// that columns serve for positions on either side of pads, but not where rows share their prompt. The columns of what the model has
    /// seen already come first, and stand for the first positions.
    ///
    /// Behind the real tokens pads are never looked at by them, so one causal mask serves all rows; in front of them
    /// every row hides its own, as it does the branches of other choices.
    pub(super) fn attention_mask(&self, dtype: DType, window: Option<usize>) -> Tensor<4> {
        let (n_rows, tokens) = self.mask.dim();
        let seen = self.n_seen();
        let n = if self.positions.is_some() { n_rows } else { 1 };
        let hidden = absent(dtype) as f32;
        let mut values = Vec::with_capacity(n * tokens * (seen + tokens));
        let near = |i: usize, j: usize| window.is_none_or(|window| j + window > i);
        for r in 0..n {
            let tree = self.trees.as_ref().map(|trees| &trees[r]);
            let in_tree = |tree: &SharedPrompt, i: usize, j: usize| {
                let (i, j) = (i - self.starts[r], j - self.starts[r]);
                tree.sees(i, j) && near(tree.positions[i], tree.positions[j])
            };
            for i in 0..tokens {
                let is_real = n == 1 || self.mask[[r, i]];
                let own = i.saturating_sub(self.starts[r]);
                let place = seen + tree.map_or(own, |tree| tree.positions.get(own).copied().unwrap_or(0));
                let of_seen = (0..seen).map(|j| is_real && near(place, j));
                let of_own = (0..tokens).map(|j| match tree {
                    Some(tree) => is_real && self.mask[[r, j]] && in_tree(tree, i, j),
                    None => j <= i && near(i, j) && (n == 1 || self.mask[[r, j]]),
                });
                values.extend(of_seen.chain(of_own).map(|visible| if visible { 0.0 } else { hidden }));
            }
        }
        Tensor::from_data(TensorData::new(values, [n, 1, tokens, seen + tokens]), (self.device(), dtype))
    }

    /// `[rows, 1, 1 or tokens, tokens]`: 0 at tokens, far below any score at pads and, with a `reach`, at tokens that are further
    /// than that from the one that looks.
    pub(super) fn padding_mask(&self, dtype: DType, reach: Option<usize>) -> Tensor<4> {
        let (n_rows, tokens) = self.mask.dim();
        let hidden = absent(dtype) as f32;
        let n = if reach.is_some() { tokens } else { 1 };
        let mut values = Vec::with_capacity(n_rows * n * tokens);
        for row in self.mask.rows() {
            for i in 0..n {
                let near = |j: usize| reach.is_none_or(|reach| i.abs_diff(j) <= reach);
                values.extend(row.iter().enumerate().map(|(j, &real)| if real && near(j) { 0.0 } else { hidden }));
            }
        }
        Tensor::from_data(TensorData::new(values, [n_rows, 1, n, tokens]), (self.device(), dtype))
    }

    /// `[rows, tokens]`: one over the number of the row's tokens at each of them, 0 at pads.
    pub(super) fn token_shares(&self, dtype: DType) -> Tensor<2> {
        let mut shares = self.mask.mapv(|real| f64::from(u8::from(real)));
        for mut row in shares.rows_mut() {
            let n = row.sum().max(1.0);
            row /= n;
        }
        let (n_rows, tokens) = shares.dim();
        let values: Vec<f64> = shares.into_iter().collect();
        Tensor::from_data(TensorData::new(values, [n_rows, tokens]), (self.device(), dtype))
    }

    /// The tokens without pads and, where rows that begin alike have the same states there, without what is repeated.
    pub(super) fn distinct_tokens(&self, may_coincide: bool) -> Option<DistinctTokens> {
        let tokens = self.mask.ncols();
        let before = |r: usize, own: usize| match &self.trees {
            Some(trees) => trees[r].before(own),
            None => own.checked_sub(1),
        };
        let at = |((r, t), real): ((usize, usize), &bool)| {
            let start = r * tokens + self.starts[r];
            let token = self.ids_on_host[r * tokens + t];
            real.then(|| (token, before(r, t - self.starts[r]).map(|before| start + before)))
        };
        let at: Vec<Place> = self.mask.indexed_iter().map(at).collect();
        DistinctTokens::new(&at, may_coincide, self.device())
    }
}
