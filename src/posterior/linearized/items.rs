//! Holds what is known of items beside their Jacobians and their targets.

use ndarray::{Array1, Array2};

/// What is known of N items beside their Jacobians and their targets.
#[derive(Debug, Clone)]
pub struct LinearizedItems {
    /// `f*`, `[N, C]`; −∞ for outputs that an item does not have.
    pub outputs: Array2<f64>,
    /// True if an item's rows are the differences of its outputs to the first, false if they are its outputs.
    pub are_contrasts: bool,
    /// Rows an item, k.
    pub rows_per_item: usize,
    /// `J(θ* − μ)`, one a row.
    pub drift: Array1<f64>,
}
