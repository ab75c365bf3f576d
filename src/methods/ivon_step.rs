//! The arithmetic of IVON on one matrix, apart from any model.

use ndarray::{Array2, Zip};

/// One step, all operations element by element, of losses that are **means** over items:
///
/// - `θ = m + √v z`, `v = 1/(ess·(h + δ))`, `g = ∇ loss(θ)`
/// - `ĥ = g (θ − m)/v = g z √(ess·(h + δ))`
/// - `μ ← β₁μ + (1 − β₁)g`
/// - `h ← β₂h + (1 − β₂)ĥ + ½(1 − β₂)²(h − ĥ)²/(h + δ)`, which keeps `h + δ` positive
/// - `m ← m − η·clip((μ/(1 − β₁ᵗ) + δm)/(h + δ), ±ξ)` with the new h
///
/// On a quadratic loss with diagonal Hessian H̄ and minimum θ* it comes to rest at `m = H̄θ*/(H̄ + δ)` and
/// `h = H̄ + ½(1 − β₂)·E[(h − ĥ)²]/(h + δ)`, where `E[(h − ĥ)²] = 2H̄² + ess·(h + δ)·H̄²(m − θ*)²`.
///
/// Shen et al. (2024), arXiv 2402.17641, algorithm 1 and eq. 9.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct IvonStep {
    /// ess, the number of items that the loss counts for.
    pub ess: f64,
    /// δ, the prior's precision divided by ess.
    pub delta: f64,
    /// β₁
    pub beta_1: f64,
    /// β₂
    pub beta_2: f64,
    /// ξ
    pub clip: Option<f64>,
}

/// What a step moves, each matrix of one shape.
#[derive(Debug)]
pub struct IvonMoments<'a> {
    /// m
    pub mean: &'a mut Array2<f64>,
    /// μ
    pub momentum: &'a mut Array2<f64>,
    /// h
    pub hessian: &'a mut Array2<f64>,
}

impl IvonStep {
    /// `√v`
    pub fn deviation(&self, hessian: f64) -> f64 {
        1.0 / (self.ess * (hessian + self.delta)).sqrt()
    }

    /// ĥ from the gradient at the draw z; of several draws, take the mean of the estimates.
    pub fn estimate(&self, gradient: &Array2<f64>, z: &Array2<f64>, hessian: &Array2<f64>) -> Array2<f64> {
        Zip::from(gradient).and(z).and(hessian).map_collect(|g, z, h| g * z / self.deviation(*h))
    }

    /// Moves μ, h and m by a gradient and an ĥ; `t` counts the updates from 1, `rate` is η.
    pub fn update(
        &self,
        moments: IvonMoments<'_>,
        (gradient, estimate): (&Array2<f64>, &Array2<f64>),
        t: u64,
        rate: f64,
    ) {
        let IvonStep { delta, beta_1, beta_2, .. } = *self;
        let corrected = 1.0 - beta_1.powf(t as f64);
        let clip = self.clip.unwrap_or(f64::INFINITY);
        let IvonMoments { mean, momentum, hessian } = moments;
        Zip::from(mean).and(momentum).and(hessian).and(gradient).and(estimate).for_each(|m, mu, h, g, estimate| {
            *mu = beta_1 * *mu + (1.0 - beta_1) * g;
            let (rest, difference) = (1.0 - beta_2, *h - estimate);
            *h = beta_2 * *h + rest * estimate + 0.5 * (rest * difference).powi(2) / (*h + delta);
            *m -= rate * ((*mu / corrected + delta * *m) / (*h + delta)).clamp(-clip, clip);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::draws::{Purpose, generator, normals};
    use ndarray::Axis;

    /// Mean loss `½ Σ H̄(θ − θ*)²`.
    struct Quadratic {
        hessian: Array2<f64>,
        minimum: Array2<f64>,
    }

    impl Quadratic {
        fn gradient(&self, at: &Array2<f64>) -> Array2<f64> {
            &self.hessian * &(at - &self.minimum)
        }
    }

    struct State {
        mean: Array2<f64>,
        momentum: Array2<f64>,
        hessian: Array2<f64>,
    }

    impl State {
        fn new(shape: (usize, usize), hessian: f64) -> Self {
            let zeros = Array2::zeros(shape);
            Self { mean: zeros.clone(), momentum: zeros, hessian: Array2::from_elem(shape, hessian) }
        }

        /// The gradient and ĥ at a draw.
        fn at(&self, step: &IvonStep, of: &Quadratic, z: &Array2<f64>) -> (Array2<f64>, Array2<f64>) {
            let theta = &self.mean + &(self.hessian.mapv(|h| step.deviation(h)) * z);
            let gradient = of.gradient(&theta);
            let estimate = step.estimate(&gradient, z, &self.hessian);
            (gradient, estimate)
        }

        fn update(&mut self, step: &IvonStep, found: (&Array2<f64>, &Array2<f64>), t: u64, rate: f64) {
            let Self { mean, momentum, hessian } = self;
            step.update(IvonMoments { mean, momentum, hessian }, found, t, rate);
        }
    }

    fn quadratic() -> Quadratic {
        Quadratic {
            hessian: Array2::from_shape_fn((3, 4), |(i, j)| 0.1 + (i * 4 + j) as f64),
            minimum: Array2::from_shape_fn((3, 4), |(i, j)| ((i * 5 + j * 3) % 7) as f64 - 3.0),
        }
    }

    #[test]
    fn over_both_signs_of_z_the_estimate_is_the_hessian() {
        let (of, step) = (quadratic(), IvonStep { ess: 37.0, delta: 0.2, beta_1: 0.9, beta_2: 0.99, clip: None });
        let state = State::new((3, 4), 0.7);
        let plus = Array2::from_shape_fn((3, 4), |(i, j)| if (i + j) % 2 == 0 { 1.0 } else { -1.0 });
        let (_, there) = state.at(&step, &of, &plus);
        let (_, back) = state.at(&step, &of, &-&plus);
        let mean = (there + back) / 2.0;
        // two products of numbers up to 200 that cancel to at least 0.1: 2,000 ulp
        let error = (mean / &of.hessian - 1.0).mapv(f64::abs).fold(0.0, |m: f64, v| m.max(*v));
        assert!(error < 1e-12, "{error:e}");
    }

    #[test]
    fn with_both_signs_of_z_it_comes_to_rest_at_the_exact_posterior() {
        let (n, precision) = (50.0, 20.0);
        let of = quadratic();
        let step = IvonStep { ess: n, delta: precision / n, beta_1: 0.9, beta_2: 0.98, clip: None };
        let mut state = State::new((3, 4), 1.0);
        let z = Array2::ones((3, 4));
        for t in 1..=3000 {
            let (g, h) = state.at(&step, &of, &z);
            let (g_back, h_back) = state.at(&step, &of, &-&z);
            state.update(&step, (&((g + g_back) / 2.0), &((h + h_back) / 2.0)), t, 0.05);
        }
        // Σ ½H̄(θ − θ*)² over N items and ½λθ²: precision N·H̄ + λ
        let of_posterior = of.hessian.mapv(|h| n * h + precision);
        let mean = n * &of.hessian * &of.minimum / &of_posterior;
        let variance = state.hessian.mapv(|h| step.deviation(h).powi(2));
        let worst = |found: Array2<f64>| found.iter().fold(0.0f64, |m, v| m.max(v.abs()));
        // 0.98^3000 and 0.95^3000 are below 1e-26: what is left is rounding, of ĥ's cancellation above all
        assert!(worst(&variance * &of_posterior - 1.0) < 1e-10);
        assert!(worst(&state.mean - &mean) < 1e-10);
        // with the prior left out the mean would be elsewhere
        assert!(worst(mean - &of.minimum) > 0.1);
    }

    #[test]
    fn with_normal_draws_it_comes_to_rest_at_the_stated_fixed_point() {
        // many equal weights stand for many runs
        let shape = (32, 32);
        let (curvature, minimum, n) = (2.0, 0.3, 100.0);
        let of = Quadratic { hessian: Array2::from_elem(shape, curvature), minimum: Array2::from_elem(shape, minimum) };
        let step = IvonStep { ess: n, delta: 0.02, beta_1: 0.9, beta_2: 0.99, clip: None };
        let mut state = State::new(shape, curvature);
        let (burn_in, steps) = (1000, 6000);
        let (mut of_h, mut of_m) = (Array2::<f64>::zeros(shape), Array2::<f64>::zeros(shape));
        for t in 1..=(burn_in + steps) {
            let z = normals(&mut generator(11, Purpose::Synthetic, 0, t), shape);
            let (g, h) = state.at(&step, &of, &z);
            state.update(&step, (&g, &h), t, 0.02);
            if t > burn_in {
                of_h += &state.hessian;
                of_m += &state.mean;
            }
        }
        let rest = 1.0 - step.beta_2;
        // each weight's mean over time is one independent value: the bound is five standard errors over the weights
        let summary = |sums: Array2<f64>| {
            let values = sums.into_shape_with_order(shape.0 * shape.1).unwrap() / steps as f64;
            (values.mean().unwrap(), values.var_axis(Axis(0), 1.0).into_scalar().sqrt() / (values.len() as f64).sqrt())
        };
        let (h, h_error) = summary(of_h);
        let (m, m_error) = summary(of_m);
        let expected_m = curvature * minimum / (curvature + step.delta);
        let mut expected_h = curvature;
        for _ in 0..50 {
            let square =
                2.0 * curvature.powi(2) + n * (expected_h + step.delta) * (curvature * (expected_m - minimum)).powi(2);
            expected_h = curvature + 0.5 * rest * square / (expected_h + step.delta);
        }
        println!(
            "h {h:.5} ± {h_error:.5}, expected {expected_h:.5}; m {m:.6} ± {m_error:.6}, expected {expected_m:.6}"
        );
        // second order in 1 − β₂: the spread of h itself, (1 − β₂)/2·Var ĥ/(h + δ)², enters with a factor 1 − β₂ once more
        let second = 12.0 * rest * rest * curvature;
        assert!((h - expected_h).abs() < 5.0 * h_error + second, "{h} and {expected_h}");
        // the correction of first order is seen, not only allowed for
        assert!(h - curvature > 5.0 * h_error + 0.25 * rest * curvature);
        // 1/(h + δ) and the momentum are correlated at order 1 − β₂, through a g of size H̄√v
        assert!((m - expected_m).abs() < 5.0 * m_error + rest * step.deviation(curvature), "{m} and {expected_m}");
        // the pull of the prior is 3e-3
        let v = step.deviation(h).powi(2);
        let exact = 1.0 / (n * (curvature + step.delta));
        assert!((v / exact - 1.0).abs() < 2.0 * rest, "{v} and {exact}");
    }

    #[test]
    fn the_curvature_stays_positive_under_any_estimate() {
        let step = IvonStep { ess: 1.0, delta: 0.3, beta_1: 0.0, beta_2: 0.5, clip: None };
        let mut state = State::new((1, 9), 0.0);
        let estimates = Array2::from_shape_fn((1, 9), |(_, k)| [-1e6, -3.0, -0.6, -0.3, 0.0, 0.3, 1.0, 1e3, 1e6][k]);
        let before = &state.hessian + step.delta;
        state.update(&step, (&Array2::zeros((1, 9)), &estimates), 1, 0.1);
        // (h + δ)(1 + x + x²/2) with x = (1 − β₂)(ĥ − h)/(h + δ) is at least half of h + δ
        assert!((&state.hessian + step.delta).iter().zip(&before).all(|(after, before)| *after >= 0.5 * before));
    }

    #[test]
    fn a_step_is_clipped_and_bias_is_corrected() {
        let step = IvonStep { ess: 1.0, delta: 0.0, beta_1: 0.9, beta_2: 0.999, clip: Some(0.01) };
        let mut state = State::new((1, 2), 2.0);
        let gradient = ndarray::arr2(&[[1000.0, -0.002]]);
        state.update(&step, (&gradient, &Array2::from_elem((1, 2), 2.0)), 1, 0.1);
        // μ/(1 − β₁) is the gradient itself after one step
        assert!((state.mean[[0, 0]] + 0.001).abs() < 1e-15);
        assert!((state.mean[[0, 1]] - 0.1 * 0.002 / 2.0).abs() < 1e-15);
        assert!((state.momentum[[0, 0]] - 100.0).abs() < 1e-12);
    }
}
