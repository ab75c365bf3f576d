//! MonteCLoRA's training noise as a rule of the trainer.

use super::adam::Adam;
use super::monte_clora_settings::MonteClora;
use super::rule_state::{RuleState, check_fits};
use crate::draws::{Purpose, generator, normals, place};
use crate::error::{Error, Result};
use crate::identity::Identity;
use crate::lora::{Adaptable, AdapterWeights, adapter_gradients, read_adapter, write_adapter};
use crate::tape::{LoraMatrix, Site};
use crate::train::{AdamW, StepPosition, UpdateRule};
use burn::optim::GradientsParams;
use ndarray::{Array1, Array2, Axis};
use rand::{RngExt, rngs::ChaCha8Rng};
use rand_distr::{ChiSquared, Distribution};

/// Least c.
const FLOOR: f64 = 1e-3;
/// ε of the weights' spread.
const EPSILON: f64 = 1e-6;

/// Names of what the state holds.
const SPREAD: &str = "rho";
const FIRST: &str = "first of rho";
const SECOND: &str = "second of rho";

/// AdamW, with gradients at `A + ΔA`; ρ is learned beside it. With `sample_scale` 0 it is AdamW to the bit.
///
/// A draw is a function of (seed, site, step), so that a run taken up from a checkpoint draws what the whole run would have drawn.
pub struct MonteCloraRule {
    settings: MonteClora,
    weight_decay: f64,
    seed: u64,
    updates: u64,
    /// ρ `[r, 1]` of the A sites; empty before the first step.
    spread: AdapterWeights,
    of_spread: Adam,
    of_weights: AdamW,
}

/// The noise of one module in one step.
struct Draw {
    /// ΔA
    delta: Array2<f64>,
    /// c, before the floor.
    variances: Array1<f64>,
}

impl MonteCloraRule {
    pub(super) fn new(settings: MonteClora, weight_decay: f64, seed: u64) -> Self {
        let (spread, of_spread, of_weights) = (AdapterWeights::new(), Adam::new(1e-8), AdamW::new(weight_decay));
        Self { settings, weight_decay, seed, updates: 0, spread, of_spread, of_weights }
    }

    /// The mean of ρ over an adapter's modules and rows.
    ///
    /// # Errors
    /// If the state is that of another adapter.
    pub fn mean_log_spread(&self, adapter: &AdapterWeights) -> Result<f64> {
        let (sum, count) =
            self.spread_of(adapter)?.values().fold((0.0, 0), |(s, n), rho| (s + rho.sum(), n + rho.len()));
        Ok(sum / count.max(1) as f64)
    }

    /// ρ, drawn where there is none yet.
    fn spread_of(&self, adapter: &AdapterWeights) -> Result<AdapterWeights> {
        let of_a = |site: &Site| site.matrix == LoraMatrix::A;
        if !self.spread.is_empty() {
            check_fits(&self.spread, adapter, |site, w| of_a(site).then_some((w.nrows(), 1)))?;
            return Ok(self.spread.clone());
        }
        let draw = |(site, w): (&Site, &Array2<f64>)| {
            let mut rng = generator(self.seed, Purpose::MonteCloraSpread, place(site), 0);
            (site.clone(), Array2::from_shape_simple_fn((w.nrows(), 1), || rng.random::<f64>()))
        };
        Ok(adapter.iter().filter(|(site, _)| of_a(site)).map(draw).collect())
    }

    /// η of a module.
    fn concentrations(&self, site: &Site) -> Array1<f64> {
        let mut rng = generator(self.seed, Purpose::MonteCloraConcentrations, place(site), 0);
        Array1::from_shape_simple_fn(self.settings.n_draws, || rng.random::<f64>())
    }

    fn draw(&self, site: &Site, width: usize, spread: &Array2<f64>, step: usize) -> Result<Draw> {
        let mut rng = generator(self.seed, Purpose::MonteCloraStep, place(site), step as u64);
        let log_spread = spread.index_axis(Axis(1), 0).to_owned();
        draw(&mut rng, self.settings.sample_scale, width, &log_spread, &self.concentrations(site))
    }
}

/// ΔA `[r, width]` at ρ `[r]` and η `[K]`.
fn draw(rng: &mut ChaCha8Rng, scale: f64, width: usize, spread: &Array1<f64>, eta: &Array1<f64>) -> Result<Draw> {
    let rank = spread.len();
    let chi_squared = ChiSquared::new(rank as f64).map_err(|e| Error::numerical("chi-squared draw", e))?;
    let weights = weights(eta, &normals(rng, (1, eta.len())).row(0).to_owned());
    let variances = spread.mapv(|rho| (2.0 * rho).exp() * chi_squared.sample(rng));
    // given w, the weighted sum of the K draws is one normal draw
    let factor = scale * weights.mapv(|w| w * w).sum().sqrt();
    let rows = variances.mapv(|c| factor * c.max(FLOOR).sqrt());
    let delta = normals(rng, (rank, width)) * &rows.insert_axis(Axis(1));
    Ok(Draw { delta, variances })
}

/// w at ζ.
fn weights(eta: &Array1<f64>, zeta: &Array1<f64>) -> Array1<f64> {
    let n = eta.len() as f64;
    let inverse = eta.mapv(|eta| (-eta).exp());
    let common = inverse.sum() / (n * n);
    // the additive constant −η̄ does not change a softmax
    let spread = inverse.mapv(|inverse| (inverse * (1.0 - 2.0 / n) + common).max(EPSILON) + EPSILON);
    let logits = eta + &(spread.mapv(f64::sqrt) * zeta);
    let largest = logits.fold(f64::NEG_INFINITY, |m, v| m.max(*v));
    let exp = logits.mapv(|v| (v - largest).exp());
    let sum = exp.sum();
    exp / sum
}

impl<M: Adaptable> UpdateRule<M> for MonteCloraRule {
    fn identity(&self) -> Result<Identity> {
        let Self { settings, weight_decay, seed, updates: _, spread: _, of_spread: _, of_weights: _ } = self;
        let identity = Identity::of(settings)?.with("rule", "MonteCLoRA");
        Ok(identity.with("weight_decay", weight_decay).with("seed", seed))
    }

    fn point(&mut self, model: &M, position: StepPosition) -> Result<M> {
        let mut weights = read_adapter(model)?;
        for (site, spread) in self.spread_of(&weights)? {
            let w = weights.entry(site.clone()).or_default();
            *w += &self.draw(&site, w.ncols(), &spread, position.step)?.delta;
        }
        write_adapter(model.clone(), &weights)
    }

    fn update(&mut self, model: M, found: GradientsParams, position: StepPosition) -> Result<M> {
        let mut spread = self.spread_of(&read_adapter(&model)?)?;
        let (of_weights, n_modules) = (adapter_gradients(&model, &found)?, spread.len() as f64);
        let MonteClora { n_draws, kl_weight, .. } = self.settings;
        let mut of_spread = AdapterWeights::new();
        for (site, rho) in &spread {
            let g = &of_weights[site];
            let Draw { delta, variances } = self.draw(site, g.ncols(), rho, position.step)?;
            let gradient = Array2::from_shape_fn(rho.dim(), |(o, _)| {
                // at the floor c does not depend on ρ
                let (free, c) = (f64::from(variances[o] > FLOOR), variances[o]);
                let of_noise = (&g.row(o) * &delta.row(o)).sum();
                let of_wishart = rho.nrows() as f64 * ((2.0 * rho[[o, 0]]).exp() - 1.0);
                free * of_noise + kl_weight / n_modules * (of_wishart + free * n_draws as f64 * (c - 1.0))
            });
            of_spread.insert(site.clone(), gradient);
        }
        self.updates += 1;
        self.of_spread.step(self.updates, position.learning_rate, &mut spread, &of_spread);
        self.spread = spread;
        self.of_weights.update(model, found, position)
    }

    fn state(&self) -> Result<Vec<u8>> {
        let parts = [(SPREAD, &self.spread), (FIRST, &self.of_spread.first), (SECOND, &self.of_spread.second)];
        let parts = parts.into_iter().map(|(name, weights)| (name.to_string(), weights.clone())).collect();
        let inner = UpdateRule::<M>::state(&self.of_weights)?;
        RuleState { updates: self.updates, parts, inner }.to_bytes()
    }

    fn restore(&mut self, state: Vec<u8>) -> Result<()> {
        let mut state = RuleState::from_bytes(&state, &[SPREAD, FIRST, SECOND])?;
        self.updates = state.updates;
        self.spread = state.take(SPREAD);
        (self.of_spread.first, self.of_spread.second) = (state.take(FIRST), state.take(SECOND));
        UpdateRule::<M>::restore(&mut self.of_weights, state.inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linalg::gauss_hermite;
    use ndarray::arr1;

    const SCALE: f64 = 0.01;
    const WIDTH: usize = 3;

    /// Mean and standard error of a statistic of many draws.
    fn average(eta: &Array1<f64>, of: impl Fn(&Array2<f64>) -> f64) -> (f64, f64) {
        let rho = arr1(&[0.2, 0.9]);
        let n = 60_000;
        let values = Array1::from_shape_fn(n, |k| {
            let mut rng = generator(7, Purpose::Synthetic, place("law"), k as u64);
            of(&draw(&mut rng, SCALE, WIDTH, &rho, eta).unwrap().delta)
        });
        (values.mean().unwrap(), values.std(1.0) / (n as f64).sqrt())
    }

    /// `E[Σ w²]` of two draws: w₁ is the logistic of a normal difference.
    fn expected_square(eta: &Array1<f64>) -> f64 {
        let common = 0.25 * eta.mapv(|e| (-e).exp()).sum();
        let sd = (2.0 * (common + EPSILON)).sqrt();
        let (nodes, weights) = gauss_hermite(64).unwrap();
        let square = |z: &f64| {
            let w = 1.0 / (1.0 + (-(eta[0] - eta[1] + sd * z)).exp());
            w * w + (1.0 - w) * (1.0 - w)
        };
        nodes.iter().zip(&weights).map(|(z, w)| w * square(z)).sum()
    }

    #[test]
    fn the_noise_has_the_stated_mean_and_covariance() {
        let (rank, rho) = (2.0, [0.2f64, 0.9]);
        for eta in [arr1(&[0.3]), arr1(&[0.1, 0.8])] {
            let square = if eta.len() == 1 { 1.0 } else { expected_square(&eta) };
            let check = |what: &str, (found, error): (f64, f64), expected: f64| {
                println!("{what} of {} draws: {found:e} ± {error:e}, expected {expected:e}", eta.len());
                assert!((found - expected).abs() < 5.0 * error, "{what}: {found:e} ± {error:e}, expected {expected:e}");
            };
            for o in 0..2 {
                check("mean", average(&eta, |d| d[[o, 1]]), 0.0);
                let variance = SCALE * SCALE * (2.0 * rho[o]).exp() * rank * square;
                let found = average(&eta, |d| d[[o, 0]] * d[[o, 0]]);
                check("variance", found, variance);
                assert!(found.1 < 0.02 * variance);
            }
            check("covariance in a row", average(&eta, |d| d[[0, 0]] * d[[0, 2]]), 0.0);
            check("covariance in a column", average(&eta, |d| d[[0, 1]] * d[[1, 1]]), 0.0);
        }
    }

    #[test]
    fn elements_of_a_row_share_their_chi_squared_variance() {
        // E[c²]/E[c]² = (r + 2)/r = 2 for r = 2: elements are uncorrelated, their squares are not
        let eta = arr1(&[0.0]);
        let (same, same_error) = average(&eta, |d| (d[[0, 0]] * d[[0, 1]]).powi(2));
        let (other, other_error) = average(&eta, |d| (d[[0, 0]] * d[[1, 0]]).powi(2));
        let variance = |rho: f64| SCALE * SCALE * (2.0 * rho).exp() * 2.0;
        assert!((same - 2.0 * variance(0.2).powi(2)).abs() < 5.0 * same_error);
        assert!((other - variance(0.2) * variance(0.9)).abs() < 5.0 * other_error);
        assert!(same > variance(0.2).powi(2) + 5.0 * same_error);
    }

    #[test]
    fn weights_are_a_distribution_that_is_uniform_for_equal_concentrations_on_average() {
        let eta = Array1::from_elem(8, 0.4);
        let mut sum = Array1::<f64>::zeros(8);
        let n = 4000;
        for k in 0..n {
            let w = weights(
                &eta,
                &normals(&mut generator(1, Purpose::Synthetic, place("weights"), k), (1, 8)).row(0).to_owned(),
            );
            assert!((w.sum() - 1.0).abs() < 1e-12 && w.iter().all(|w| *w > 0.0));
            sum += &w;
        }
        // a weight's standard deviation is below its mean of 1/8 times 1.2
        assert!(sum.iter().all(|s| (s / n as f64 - 0.125).abs() < 5.0 * 0.15 / (n as f64).sqrt()), "{sum}");
    }
}
