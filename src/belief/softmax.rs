//! Turns logits into probabilities, row by row.

use ndarray::{Array2, ArrayView1, ArrayView2, Axis};

/// Log-probabilities `f_c − log Σ_e exp f_e` of each row. A logit of −∞ stays −∞.
///
/// # Shapes
/// - logits: `[n, n_classes]`; output the same.
pub fn log_softmax(logits: ArrayView2<f64>) -> Array2<f64> {
    let mut out = logits.to_owned();
    for mut row in out.axis_iter_mut(Axis(0)) {
        let max = row.fold(f64::NEG_INFINITY, |m, &v| m.max(v));
        let log_sum = max + row.iter().map(|&v| (v - max).exp()).sum::<f64>().ln();
        row.mapv_inplace(|v| v - log_sum);
    }
    out
}

/// The first of the largest logits or probabilities of an item, so that a tie has one answer.
pub(crate) fn top_class(row: ArrayView1<f64>) -> usize {
    (1..row.len()).fold(0, |top, class| if row[class] > row[top] { class } else { top })
}

/// Probabilities `exp f_c / Σ_e exp f_e` of each row. A logit of −∞ has probability 0.
///
/// # Shapes
/// - logits: `[n, n_classes]`; output the same.
pub fn softmax(logits: ArrayView2<f64>) -> Array2<f64> {
    log_softmax(logits).mapv_into(f64::exp)
}
