//! Adam on host arrays, for parameters that are no tensors of the model.

use crate::lora::AdapterWeights;
use ndarray::{Array2, Zip};

/// `m ← β₁m + (1−β₁)g`, `v ← β₂v + (1−β₂)g²`, `θ ← θ − η·m̂/(√v̂ + ε)` with `m̂ = m/(1−β₁ᵗ)`, `v̂ = v/(1−β₂ᵗ)`; β₁ = 0.9, β₂ = 0.999.
///
/// Kingma & Ba (2015), arXiv 1412.6980, algorithm 1.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Adam {
    /// ε
    pub(super) epsilon: f64,
    /// m, one matrix a site.
    pub(super) first: AdapterWeights,
    /// v, one matrix a site.
    pub(super) second: AdapterWeights,
}

const BETA_1: f64 = 0.9;
const BETA_2: f64 = 0.999;

impl Adam {
    /// Before the first step.
    pub(super) fn new(epsilon: f64) -> Self {
        Self { epsilon, first: AdapterWeights::new(), second: AdapterWeights::new() }
    }

    /// Step number `t` (1, 2, …) at rate η; values without a gradient stay.
    pub(super) fn step(&mut self, t: u64, rate: f64, values: &mut AdapterWeights, gradients: &AdapterWeights) {
        let corrected = |beta: f64| 1.0 - beta.powf(t as f64);
        let (of_first, of_second, epsilon) = (corrected(BETA_1), corrected(BETA_2), self.epsilon);
        for (site, g) in gradients {
            let Some(theta) = values.get_mut(site) else { continue };
            let first = self.first.entry(site.clone()).or_insert_with(|| Array2::zeros(g.dim()));
            let second = self.second.entry(site.clone()).or_insert_with(|| Array2::zeros(g.dim()));
            Zip::from(theta).and(first).and(second).and(g).for_each(|theta, m, v, &g| {
                *m = BETA_1 * *m + (1.0 - BETA_1) * g;
                *v = BETA_2 * *v + (1.0 - BETA_2) * g * g;
                *theta -= rate * (*m / of_first) / ((*v / of_second).sqrt() + epsilon);
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tape::{LoraMatrix, Site};
    use ndarray::arr2;

    #[test]
    fn the_first_step_has_the_rates_length_and_later_ones_follow_the_recursion() {
        let site = Site { module: "q".into(), matrix: LoraMatrix::A };
        let of = |value: f64| AdapterWeights::from([(site.clone(), arr2(&[[value]]))]);
        let (mut adam, mut theta) = (Adam::new(0.0), of(1.0));
        // m̂ = g, v̂ = g²
        adam.step(1, 0.1, &mut theta, &of(-3.0));
        assert!((theta[&site][[0, 0]] - 1.1).abs() < 1e-12);
        adam.step(2, 0.1, &mut theta, &of(4.0));
        let m = (0.9 * 0.1 * -3.0 + 0.1 * 4.0) / (1.0 - 0.81);
        let v: f64 = (0.999 * 0.001 * 9.0 + 0.001 * 16.0) / (1.0 - 0.999 * 0.999);
        assert!((theta[&site][[0, 0]] - (1.1 - 0.1 * m / v.sqrt())).abs() < 1e-12);
        adam.step(3, 0.1, &mut theta, &AdapterWeights::new());
        assert_eq!(adam.first.len(), 1);
    }
}
