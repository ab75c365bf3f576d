//! The divergence of a diagonal Gaussian from a centred one, and its gradient.

use ndarray::{Array2, Zip};

/// `KL(N(M, σ²) ‖ N(0, σ_p²)) = Σ log(σ_p/σ) + (σ² + M²)/(2σ_p²) − ½`, in nats, **summed** over the elements.
///
/// With ε > 0 it is what published code computes: `log((σ_p + ε)/(σ + ε))` and a denominator `2σ_p² + ε`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct GaussianKl {
    /// σ_p
    pub(super) prior_sd: f64,
    /// ε
    pub(super) epsilon: f64,
}

impl GaussianKl {
    /// The divergence.
    pub(super) fn value(&self, mean: &Array2<f64>, sd: &Array2<f64>) -> f64 {
        let Self { prior_sd, epsilon } = *self;
        let denominator = 2.0 * prior_sd * prior_sd + epsilon;
        let element =
            |m: f64, s: f64| ((prior_sd + epsilon) / (s + epsilon)).ln() + (s * s + m * m) / denominator - 0.5;
        Zip::from(mean).and(sd).fold(0.0, |sum, m, s| sum + element(*m, *s))
    }

    /// ∂/∂M
    pub(super) fn by_mean(&self, mean: f64) -> f64 {
        2.0 * mean / (2.0 * self.prior_sd * self.prior_sd + self.epsilon)
    }

    /// ∂/∂σ
    pub(super) fn by_sd(&self, sd: f64) -> f64 {
        2.0 * sd / (2.0 * self.prior_sd * self.prior_sd + self.epsilon) - 1.0 / (sd + self.epsilon)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linalg::gauss_hermite;
    use ndarray::arr2;

    #[test]
    fn the_divergence_is_that_of_quadrature() {
        let kl = GaussianKl { prior_sd: 0.2, epsilon: 0.0 };
        let (nodes, weights) = gauss_hermite(5).unwrap();
        for (mean, sd) in [(0.0, 0.2), (0.3, 0.05), (-0.01, 0.002), (1.0, 0.9)] {
            let log_density = |x: f64, m: f64, s: f64| -0.5 * ((x - m) / s).powi(2) - s.ln();
            let expected: f64 = nodes
                .iter()
                .zip(&weights)
                .map(|(z, w)| {
                    let x = mean + sd * z;
                    w * (log_density(x, mean, sd) - log_density(x, 0.0, 0.2))
                })
                .sum();
            let found = kl.value(&arr2(&[[mean]]), &arr2(&[[sd]]));
            // the integrand is quadratic: five nodes are exact
            assert!((found - expected).abs() < 1e-12 * expected.abs().max(1.0), "{found} and {expected}");
        }
        // of a sum of elements
        let (means, sds) = (arr2(&[[0.3, 0.0]]), arr2(&[[0.05, 0.2]]));
        let first = kl.value(&arr2(&[[0.3]]), &arr2(&[[0.05]]));
        assert!((kl.value(&means, &sds) - first).abs() < 1e-14 && first > 1.0);
    }

    #[test]
    fn gradients_are_those_of_central_differences() {
        for epsilon in [0.0, 1e-6] {
            let kl = GaussianKl { prior_sd: 0.2, epsilon };
            for (mean, sd) in [(0.3, 0.05), (-0.01, 0.002), (1.0, 0.9)] {
                let value = |mean: f64, sd: f64| kl.value(&arr2(&[[mean]]), &arr2(&[[sd]]));
                let step = 1e-5 * sd;
                let by_mean = (value(mean + step, sd) - value(mean - step, sd)) / (2.0 * step);
                let by_sd = (value(mean, sd + step) - value(mean, sd - step)) / (2.0 * step);
                // rounding of values up to 12 over steps of 2e-8 and more: 1e-7
                assert!((kl.by_mean(mean) - by_mean).abs() < 1e-6 * by_mean.abs().max(1.0), "{by_mean}");
                assert!((kl.by_sd(sd) - by_sd).abs() < 1e-6 * by_sd.abs().max(1.0), "{by_sd}");
            }
        }
    }
}
