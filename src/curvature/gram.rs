//! Sums outer products of rows, as a matrix or as the rows themselves.

use crate::error::{Error, Result};
use crate::linalg::{add_lower_gram, matmul, mirror_lower};
use ndarray::{ArcArray2, Array2, ArrayView2, ArrayViewMut2, Axis, s};
use std::ops::Range;

fn append<T: Clone + Default>(held: &mut ArcArray2<T>, rows: &ArcArray2<T>) -> Result<()> {
    let mut owned = std::mem::take(held).into_owned();
    owned.append(Axis(0), rows.view()).map_err(|e| Error::numerical("row sum", e))?;
    *held = owned.into_shared();
    Ok(())
}

/// Rows gathered in one block, so that products over blocks are large.
const BLOCK_ROWS: usize = 256;

/// `Σ φ φᵀ` over rows φ: exact in both forms, which differ in size only.
#[derive(Debug, Clone, PartialEq)]
pub enum GramSum {
    /// The matrix `[n, n]`, 8·n² bytes.
    Matrix(Array2<f64>),
    /// The rows `[m, n]`, in blocks as they came.
    Rows(Vec<RowBlock>),
}

/// Some rows, in the precision in which the network computed them; clones share them.
#[derive(Debug, Clone, PartialEq)]
pub enum RowBlock {
    /// Rows of a network in f32 or less.
    F32(ArcArray2<f32>),
    /// Rows of a network in f64.
    F64(ArcArray2<f64>),
}

impl RowBlock {
    /// Stores rows in f64, or rounded to f32.
    pub fn new(rows: Array2<f64>, in_f64: bool) -> Self {
        if in_f64 { Self::F64(rows.into_shared()) } else { Self::F32(rows.mapv(|v| v as f32).into_shared()) }
    }

    /// The rows in f64, `[m, n]`.
    pub fn to_f64(&self) -> Array2<f64> {
        match self {
            Self::F32(rows) => rows.mapv(f64::from),
            Self::F64(rows) => rows.to_owned(),
        }
    }

    /// Number of rows.
    pub fn n_rows(&self) -> usize {
        match self {
            Self::F32(rows) => rows.nrows(),
            Self::F64(rows) => rows.nrows(),
        }
    }

    fn width(&self) -> usize {
        match self {
            Self::F32(rows) => rows.ncols(),
            Self::F64(rows) => rows.ncols(),
        }
    }

    fn copy_columns(&self, columns: Range<usize>, mut target: ArrayViewMut2<f64>) {
        match self {
            Self::F32(rows) => target.zip_mut_with(&rows.slice(s![.., columns]), |t, v| *t = f64::from(*v)),
            Self::F64(rows) => target.assign(&rows.slice(s![.., columns])),
        }
    }

    fn append(&mut self, rows: &Self) -> Result<()> {
        match (self, rows) {
            (Self::F32(held), Self::F32(rows)) => append(held, rows),
            (Self::F64(held), Self::F64(rows)) => append(held, rows),
            _ => Err(Error::Incompatible("rows of f32 and of f64 do not join in one block".into())),
        }
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        match self {
            Self::F32(rows) => 4 * rows.len(),
            Self::F64(rows) => 8 * rows.len(),
        }
    }
}

impl GramSum {
    /// Adds rows `[m, n]`; `in_f64` says in which precision they are kept, where they are.
    ///
    /// # Errors
    /// If the rows have another width.
    pub fn add(&mut self, rows: Array2<f64>, in_f64: bool) -> Result<()> {
        match self {
            Self::Matrix(sum) => *sum += &matmul(rows.t(), rows.view()),
            Self::Rows(blocks) => push_block(blocks, RowBlock::new(rows, in_f64))?,
        }
        Ok(())
    }

    /// Joins the sum over other rows of the same width to this one; a matrix and rows become a matrix.
    pub(super) fn merge(&mut self, other: Self) {
        match (&mut *self, other) {
            (Self::Matrix(sum), Self::Matrix(other)) => *sum += &other,
            (Self::Rows(rows), Self::Rows(other)) => rows.extend(other),
            (Self::Matrix(sum), rows) => *sum += &rows.to_matrix(sum.nrows()),
            (rows, Self::Matrix(other)) => *rows = Self::Matrix(rows.to_matrix(other.nrows()) + other),
        }
    }

    /// The matrix `[width, width]`, whatever the form.
    pub fn to_matrix(&self, width: usize) -> Array2<f64> {
        match self {
            Self::Matrix(sum) => sum.clone(),
            Self::Rows(blocks) => blocks
                .iter()
                .map(RowBlock::to_f64)
                .fold(Array2::zeros((width, width)), |sum, rows| sum + matmul(rows.t(), rows.view())),
        }
    }

    /// Number of rows held, where rows are.
    pub fn n_rows(&self) -> usize {
        match self {
            Self::Matrix(_) => 0,
            Self::Rows(blocks) => count_rows(blocks),
        }
    }

    /// `Φ Φᵀ` of the rows Φ, `[m, m]`.
    pub(crate) fn row_gram(blocks: &[RowBlock]) -> Array2<f64> {
        let n = count_rows(blocks);
        let mut gram = Array2::zeros((n, n));
        for_each_chunk(blocks, |_, rows| add_lower_gram(&mut gram, rows));
        mirror_lower(&mut gram);
        gram
    }

    /// `X Φᵀ` of given rows X, `[x, n]` to `[x, m]`.
    pub(crate) fn times_rows(blocks: &[RowBlock], x: ArrayView2<f64>) -> Array2<f64> {
        let mut products = Array2::zeros((x.nrows(), count_rows(blocks)));
        for_each_chunk(blocks, |columns, rows| products += &matmul(x.slice(s![.., columns]), rows.t()));
        products
    }

    /// `W Φ` for weights W `[w, m]`: combinations of the rows, `[w, n]`.
    pub(crate) fn combine_rows(blocks: &[RowBlock], weights: ArrayView2<f64>, width: usize) -> Array2<f64> {
        let mut total = Array2::zeros((weights.nrows(), width));
        for_each_chunk(blocks, |columns, rows| total.slice_mut(s![.., columns]).assign(&matmul(weights, rows)));
        total
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Matrix(sum) => 8 * sum.len(),
            Self::Rows(blocks) => blocks.iter().map(RowBlock::bytes).sum(),
        }
    }
}

/// Adds rows to the last block, or in a block of their own where they would be too many there: the same blocks whether rows come one
/// by one or as blocks that were made so before.
///
/// # Errors
/// If the rows have another width or precision.
pub(crate) fn push_block(blocks: &mut Vec<RowBlock>, rows: RowBlock) -> Result<()> {
    match blocks.last_mut() {
        Some(last) if last.n_rows() + rows.n_rows() <= BLOCK_ROWS => last.append(&rows)?,
        _ => blocks.push(rows),
    }
    Ok(())
}

/// Values converted to f64 at a time: 4 MB, which stay in the processor's cache while they are multiplied.
const CHUNK_VALUES: usize = 1 << 19;
/// Fewest columns at a time: a product of fewer costs less than adding it to a sum of many rows' products.
const CHUNK_COLUMNS: usize = 512;

fn count_rows(blocks: &[RowBlock]) -> usize {
    blocks.iter().map(RowBlock::n_rows).sum()
}

/// Gives all rows in f64, some columns at a time, without ever holding them all: `use_chunk(columns, rows[.., columns])`.
fn for_each_chunk(blocks: &[RowBlock], mut use_chunk: impl FnMut(Range<usize>, ArrayView2<f64>)) {
    let (n_rows, width) = (count_rows(blocks), blocks.first().map_or(0, RowBlock::width));
    let step = (CHUNK_VALUES / n_rows.max(1)).max(CHUNK_COLUMNS);
    for start in (0..width).step_by(step) {
        let columns = start..width.min(start + step);
        let mut chunk = Array2::zeros((n_rows, columns.len()));
        let mut row = 0;
        for block in blocks {
            let target = chunk.slice_mut(s![row..row + block.n_rows(), ..]);
            block.copy_columns(columns.clone(), target);
            row += block.n_rows();
        }
        use_chunk(columns, chunk.view());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_with_rows_in_several_blocks_and_chunks_equal_those_of_the_whole() {
        let width = CHUNK_VALUES / 7 + 11; // more than one chunk
        let whole = Array2::from_shape_fn((7, width), |(i, j)| ((i * 31 + j * 17) % 23) as f64 / 8.0 - 1.0);
        let part = |from: usize, to: usize, in_f64| RowBlock::new(whole.slice(s![from..to, ..]).to_owned(), in_f64);
        let blocks = [part(0, 3, true), part(3, 4, false), part(4, 7, true)];
        let x = Array2::from_shape_fn((2, width), |(i, j)| ((i + j) % 5) as f64);
        let weights = Array2::from_shape_fn((2, 7), |(i, j)| (i + 2 * j) as f64);
        let near = |a: Array2<f64>, b: Array2<f64>| {
            a.indexed_iter().all(|(at, v)| (v - b[at]).abs() <= 1e-10 * (1.0 + v.abs()))
        };
        // eighths are exact in f32: only the order of summation differs
        assert!(near(GramSum::row_gram(&blocks), matmul(whole.view(), whole.t())));
        assert!(near(GramSum::times_rows(&blocks, x.view()), matmul(x.view(), whole.t())));
        assert!(near(GramSum::combine_rows(&blocks, weights.view(), width), matmul(weights.view(), whole.view())));
    }
}
