//! Turns logits into probabilities, row by row.

use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis};

/// Log-probabilities `f_c − log Σ_e exp f_e` of each row. A logit of −∞ stays −∞.
///
/// # Shapes
/// - logits: `[n, n_classes]`; output the same.
pub fn log_softmax(logits: ArrayView2<f64>) -> Array2<f64> {
    let mut out = logits.to_owned();
    for mut row in out.axis_iter_mut(Axis(0)) {
        let log_sum = log_sum_exp(row.iter().copied());
        row.mapv_inplace(|v| v - log_sum);
    }
    out
}

/// `log Σ exp v`; −∞ where every v is.
pub(crate) fn log_sum_exp(values: impl Iterator<Item = f64> + Clone) -> f64 {
    let max = values.clone().fold(f64::NEG_INFINITY, f64::max);
    if max == f64::NEG_INFINITY { max } else { max + values.map(|v| (v - max).exp()).sum::<f64>().ln() }
}

/// `log Σ_k w_k exp l_kc` of each column: the logarithm of a mean of probabilities, without leaving the logarithms.
///
/// # Shapes
/// - logs: `[n, n_classes]`, weights: `[n]`, summing to 1; output `[n_classes]`.
pub(super) fn log_mean(logs: ArrayView2<f64>, weights: ArrayView1<f64>) -> Array1<f64> {
    let log_weights: Vec<f64> = weights.iter().map(|weight| weight.ln()).collect();
    let mean = |column: ArrayView1<f64>| {
        // a draw without weight may hold anything
        let weighted = column.iter().zip(&log_weights).filter(|(_, weight)| **weight > f64::NEG_INFINITY);
        let log = log_sum_exp(weighted.map(|(log, weight)| log + weight));
        // no mean of probabilities is above 1, but for rounding
        if log > 0.0 { 0.0 } else { log }
    };
    logs.axis_iter(Axis(1)).map(mean).collect()
}

/// The class that is answered: the first of the largest logits or probabilities of an item, as argmax takes it, so that a tie has
/// one answer everywhere.
pub fn top_class(row: ArrayView1<f64>) -> usize {
    (1..row.len()).fold(0, |top, class| if row[class] > row[top] { class } else { top })
}

/// Probabilities `exp f_c / Σ_e exp f_e` of each row. A logit of −∞ has probability 0.
///
/// # Shapes
/// - logits: `[n, n_classes]`; output the same.
pub fn softmax(logits: ArrayView2<f64>) -> Array2<f64> {
    log_softmax(logits).mapv_into(f64::exp)
}

/// The first class at which the sum of the probabilities `p` exceeds u; where rounding leaves the sum below, the last one of any probability.
pub(crate) fn class_at(p: ArrayView1<f64>, u: f64) -> usize {
    let mut cumulative = 0.0;
    let found = p.iter().position(|p| {
        cumulative += p;
        u < cumulative
    });
    found.unwrap_or_else(|| p.iter().rposition(|p| *p > 0.0).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::{arr1, arr2};

    #[test]
    fn a_mean_of_probabilities_that_underflow_keeps_its_logarithm() {
        let logs = arr2(&[[-2000.0, 0.0], [-2001.0, 0.0], [f64::NAN, f64::NAN]]);
        let found = log_mean(logs.view(), arr1(&[0.25, 0.75, 0.0]).view());
        let expected = -2000.0 + (0.25 + 0.75 * (-1f64).exp()).ln();
        // one rounding of 2000
        assert!((found[0] - expected).abs() < 1e-12 && found[1] == 0.0, "{found}");
        let absent = log_mean(arr2(&[[f64::NEG_INFINITY]]).view(), arr1(&[1.0]).view());
        assert_eq!(absent[0], f64::NEG_INFINITY);
    }

    #[test]
    fn of_equals_the_first_is_on_top() {
        let tops = [[1.0, 1.0, 0.0], [0.0, 1.0, 1.0], [2.0, 0.0, 2.0]].map(|row| top_class(arr1(&row).view()));
        assert_eq!(tops, [0, 1, 0]);
    }
}
