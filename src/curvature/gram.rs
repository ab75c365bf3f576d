//! Sums outer products of rows, as a matrix or as the rows themselves.

use crate::error::{Error, Result};
use crate::linalg::matmul;
use ndarray::{ArcArray2, Array2, ArrayView2, Axis, s};

fn append<T: Clone + Default>(held: &mut ArcArray2<T>, rows: ArrayView2<T>) -> Result<()> {
    let mut owned = std::mem::take(held).into_owned();
    owned.append(Axis(0), rows).map_err(|e| Error::numerical("row sum", e))?;
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

    fn append(&mut self, rows: &Array2<f64>) -> Result<()> {
        match self {
            Self::F32(held) => append(held, rows.mapv(|v| v as f32).view()),
            Self::F64(held) => append(held, rows.view()),
        }
    }

    fn bytes(&self) -> usize {
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
    /// If a value is not finite.
    pub fn add(&mut self, rows: Array2<f64>, in_f64: bool) -> Result<()> {
        let count = rows.iter().filter(|v| !v.is_finite()).count();
        if count > 0 {
            return Err(Error::NonFinite { what: "Jacobians".into(), count, total: rows.len() });
        }
        match self {
            Self::Matrix(sum) => *sum += &matmul(rows.t(), rows.view()),
            Self::Rows(blocks) => match blocks.last_mut() {
                Some(last) if last.n_rows() + rows.nrows() <= BLOCK_ROWS => last.append(&rows)?,
                _ => blocks.push(RowBlock::new(rows, in_f64)),
            },
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
            Self::Rows(blocks) => blocks.iter().map(RowBlock::n_rows).sum(),
        }
    }

    /// `Φ Φᵀ` of the rows Φ, `[m, m]`, without ever holding them all in f64.
    pub(crate) fn row_gram(blocks: &[RowBlock]) -> Array2<f64> {
        let n = blocks.iter().map(RowBlock::n_rows).sum();
        let mut gram = Array2::zeros((n, n));
        let mut column = 0;
        for (i, right) in blocks.iter().enumerate() {
            let right = right.to_f64();
            let columns = column..column + right.nrows();
            let mut row = column;
            for left in &blocks[i..] {
                let product = matmul(left.to_f64().view(), right.t());
                let rows = row..row + product.nrows();
                gram.slice_mut(s![columns.clone(), rows.clone()]).assign(&product.t());
                gram.slice_mut(s![rows.clone(), columns.clone()]).assign(&product);
                row = rows.end;
            }
            column = columns.end;
        }
        gram
    }

    /// `X Φᵀ` of given rows X, `[x, n]` to `[x, m]`.
    pub(crate) fn times_rows(blocks: &[RowBlock], x: ArrayView2<f64>) -> Array2<f64> {
        let mut products = Array2::zeros((x.nrows(), blocks.iter().map(RowBlock::n_rows).sum()));
        let mut start = 0;
        for block in blocks {
            let rows = block.to_f64();
            products.slice_mut(s![.., start..start + rows.nrows()]).assign(&matmul(x, rows.t()));
            start += rows.nrows();
        }
        products
    }

    /// `W Φ` for weights W `[w, m]`: combinations of the rows, `[w, n]`.
    pub(crate) fn combine_rows(blocks: &[RowBlock], weights: ArrayView2<f64>, width: usize) -> Array2<f64> {
        let mut start = 0;
        let mut total = Array2::zeros((weights.nrows(), width));
        for block in blocks {
            let rows = block.to_f64();
            total += &matmul(weights.slice(s![.., start..start + rows.nrows()]), rows.view());
            start += rows.nrows();
        }
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
