//! BLoB as a rule of the trainer.

use super::adam::Adam;
use super::adapter_training::moved;
use super::blob_settings::{Blob, BlobObjective, cycle, cyclic_weight};
use super::gaussian_kl::GaussianKl;
use super::rule_state::{RuleState, check_fits};
use crate::draws::{Purpose, generator, normals, place};
use crate::error::Result;
use crate::identity::Identity;
use crate::lora::{Adaptable, AdapterWeights, adapter_gradients, read_adapter, write_adapter};
use crate::tape::{LoraMatrix, Site};
use crate::train::{StepPosition, UpdateRule};
use burn::optim::GradientsParams;
use ndarray::{Array2, Zip};
use rand::RngExt;
use std::f64::consts::SQRT_2;

/// Added to logarithms and denominators by the published code.
const PUBLISHED_EPSILON: f64 = 1e-6;

/// Names of what the state holds.
const ROOTS: &str = "roots";
const ADAM: [&str; 4] = ["first", "second", "first of roots", "second of roots"];

/// M and B are the model's adapter; the rule keeps G and the moments of its optimisers. Nothing but A and B moves.
///
/// E is a function of (seed, site, step), so that a run taken up from a checkpoint draws what the whole run would have drawn.
#[derive(Debug, Clone)]
pub struct BlobRule {
    settings: Blob,
    n_items: usize,
    /// Steps of a cycle of the published schedule.
    cycle: u64,
    /// Of the learning rate.
    peak: f64,
    seed: u64,
    updates: u64,
    /// G of the A sites; empty before the first step.
    roots: AdapterWeights,
    of_weights: Adam,
    of_roots: Adam,
}

impl BlobRule {
    pub(super) fn new(settings: Blob, (n_items, batch): (usize, usize), peak: f64, seed: u64) -> Self {
        let (epsilon, cycle) = match settings.objective {
            BlobObjective::Elbo { .. } => (1e-8, 1),
            BlobObjective::Published { gamma, .. } => (PUBLISHED_EPSILON, cycle(n_items, batch, gamma)),
        };
        let roots = AdapterWeights::new();
        let (of_weights, of_roots) = (Adam::new(epsilon), Adam::new(epsilon));
        Self { settings, n_items, cycle, peak, seed, updates: 0, roots, of_weights, of_roots }
    }

    /// σ of the A sites of an adapter.
    ///
    /// # Errors
    /// If the state is that of another adapter.
    pub fn deviations(&self, adapter: &AdapterWeights) -> Result<AdapterWeights> {
        Ok(self.roots_of(adapter)?.into_iter().map(|(site, root)| (site, root.mapv(|g| g * g))).collect())
    }

    /// `KL(q ‖ prior)` in nats, with M from an adapter.
    ///
    /// # Errors
    /// If the state is that of another adapter.
    pub fn divergence(&self, adapter: &AdapterWeights) -> Result<f64> {
        let (kl, deviations) = (self.kl(), self.deviations(adapter)?);
        Ok(deviations.iter().map(|(site, sd)| kl.value(&adapter[site], sd)).sum())
    }

    fn kl(&self) -> GaussianKl {
        let epsilon = match self.settings.objective {
            BlobObjective::Elbo { .. } => 0.0,
            BlobObjective::Published { .. } => PUBLISHED_EPSILON,
        };
        GaussianKl { prior_sd: self.settings.prior_sd, epsilon }
    }

    /// G, drawn where there is none yet.
    fn roots_of(&self, adapter: &AdapterWeights) -> Result<AdapterWeights> {
        let of_a = |site: &Site| site.matrix == LoraMatrix::A;
        if !self.roots.is_empty() {
            check_fits(&self.roots, adapter, |site, w| of_a(site).then_some(w.dim()))?;
            return Ok(self.roots.clone());
        }
        let high = self.settings.initial_root;
        let draw = |(site, w): (&Site, &Array2<f64>)| {
            let mut rng = generator(self.seed, Purpose::BlobStart, place(site), 0);
            let root = Array2::from_shape_simple_fn(w.dim(), || rng.random_range(high / SQRT_2..high));
            (site.clone(), root)
        };
        Ok(adapter.iter().filter(|(site, _)| of_a(site)).map(draw).collect())
    }

    /// E of a step; not the stream of the posterior's draws under the same seed.
    fn noise(&self, site: &Site, shape: (usize, usize), step: usize) -> Array2<f64> {
        normals(&mut generator(self.seed, Purpose::BlobStep, place(site), step as u64), shape)
    }

    /// Moves M, B and G by the gradient g of the mean NLL at `M + σ∘E` and by `g∘E` of the A sites (of several draws, the means).
    fn advance(
        &mut self,
        weights: &mut AdapterWeights,
        mut found: AdapterWeights,
        by_sd: &AdapterWeights,
        rate: f64,
    ) -> Result<()> {
        self.roots = self.roots_of(weights)?;
        let kl = self.kl();
        let mut of_roots = AdapterWeights::new();
        for (site, root) in &self.roots {
            // ∂σ/∂G = 2G
            of_roots.insert(site.clone(), 2.0 * root * &by_sd[site]);
        }
        let index = self.updates;
        self.updates += 1;
        match self.settings.objective {
            BlobObjective::Elbo { kl_weight } => {
                let weight = kl_weight / self.n_items as f64;
                for (site, root) in &self.roots {
                    let (mean, of_mean) = (&weights[site], found.entry(site.clone()).or_default());
                    Zip::from(of_mean).and(mean).for_each(|g, m| *g += weight * kl.by_mean(*m));
                    let of_root = of_roots.entry(site.clone()).or_default();
                    Zip::from(of_root).and(root).for_each(|g, r| *g += weight * 2.0 * r * kl.by_sd(r * r));
                }
                self.of_weights.step(self.updates, rate, weights, &found);
                self.of_roots.step(self.updates, rate, &mut self.roots, &of_roots);
            }
            BlobObjective::Published { kl_learning_rate, .. } => {
                self.of_weights.step(self.updates, rate, weights, &found);
                let rate = kl_learning_rate * rate / self.peak;
                let weight = cyclic_weight(index, self.cycle);
                for (site, root) in &mut self.roots {
                    // the divergence is differentiated after AdamW's step
                    let mean = weights.entry(site.clone()).or_default();
                    mean.mapv_inplace(|m| m - rate * weight * kl.by_mean(m));
                    Zip::from(root).and(&of_roots[site]).for_each(|r, g| {
                        *r -= rate * (g + weight * 2.0 * *r * kl.by_sd(*r * *r));
                    });
                }
            }
        }
        Ok(())
    }
}

impl<M: Adaptable> UpdateRule<M> for BlobRule {
    fn identity(&self) -> Result<Identity> {
        // how it predicts does not matter here, and the rest is state
        let Self { settings, n_items, cycle, peak, seed, updates: _, roots: _, of_weights: _, of_roots: _ } = self;
        let Blob { objective, prior_sd, initial_root, n_samples: _, sharing: _ } = settings;
        let identity = Identity::new().with("rule", "BLoB").with("objective", objective).with("prior_sd", prior_sd);
        let identity = identity.with("initial_root", initial_root).with("n_items", n_items).with("cycle", cycle);
        Ok(identity.with("peak", peak).with("seed", seed))
    }

    fn point(&mut self, model: &M, position: StepPosition) -> Result<M> {
        let mut weights = read_adapter(model)?;
        for (site, sd) in self.deviations(&weights)? {
            let e = self.noise(&site, sd.dim(), position.step);
            Zip::from(weights.entry(site).or_default()).and(&sd).and(&e).for_each(|w, sd, e| *w += sd * e);
        }
        write_adapter(model.clone(), &weights)
    }

    fn update(&mut self, model: M, found: GradientsParams, position: StepPosition) -> Result<M> {
        let mut weights = read_adapter(&model)?;
        let found = adapter_gradients(&model, &found)?;
        let of_a = weights.iter().filter(|(site, _)| site.matrix == LoraMatrix::A);
        let by_sd = of_a.map(|(site, w)| (site.clone(), &found[site] * &self.noise(site, w.dim(), position.step)));
        let by_sd = by_sd.collect();
        self.advance(&mut weights, found, &by_sd, position.learning_rate)?;
        moved(model, &weights)
    }

    fn state(&self) -> Result<Vec<u8>> {
        let moments = [&self.of_weights.first, &self.of_weights.second, &self.of_roots.first, &self.of_roots.second];
        let parts = ADAM.into_iter().zip(moments).chain([(ROOTS, &self.roots)]);
        let parts = parts.map(|(name, weights)| (name.to_string(), weights.clone())).collect();
        RuleState { updates: self.updates, parts, inner: Vec::new() }.to_bytes()
    }

    fn restore(&mut self, state: Vec<u8>) -> Result<()> {
        let [first, second, first_of_roots, second_of_roots] = ADAM;
        let mut state = RuleState::from_bytes(&state, &[first, second, first_of_roots, second_of_roots, ROOTS])?;
        self.updates = state.updates;
        self.roots = state.take(ROOTS);
        (self.of_weights.first, self.of_weights.second) = (state.take(first), state.take(second));
        (self.of_roots.first, self.of_roots.second) = (state.take(first_of_roots), state.take(second_of_roots));
        Ok(())
    }
}

#[cfg(test)]
#[path = "blob_tests.rs"]
mod tests;
