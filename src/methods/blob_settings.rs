//! What BLoB can be told, and the published schedule of its divergence.

use super::bounds::{check_not_negative, check_positive, check_some};
use super::method::NoiseSharing;
use crate::error::Result;
use crate::setters::setters;
use std::f64::consts::PI;

/// `q(A) = Π N(M_ij, σ_ij²)` with `σ = G²`, B deterministic, prior `N(0, σ_p²)` on every element of A.
///
/// It trains by the recipe, from a start of its own: M as a fresh adapter's A, B = 0, `G ~ U(g/√2, g)`. A step takes the gradient
/// g at one draw `A = M + σ∘E` that all tokens share; `∂/∂M = g`, `∂/∂σ = g∘E`, `∂/∂G = 2G ∂/∂σ`. Published training instead
/// flips the signs of E for every token (Flipout), which gives the same gradient on average with less variance; this is not
/// reproduced, in prediction it is ([`NoiseSharing::PerToken`]). The gradient is not clipped, for the divergence's share of it
/// would not be, and the recipe's weight decay is not applied.
///
/// Wang et al. (2024), arXiv 2406.11675.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
#[non_exhaustive]
pub struct Blob {
    /// What is minimised, and by what.
    pub objective: BlobObjective,
    /// σ_p
    pub prior_sd: f64,
    /// g: `G ~ U(g/√2, g)` at the start, σ between g²/2 and g².
    pub initial_root: f64,
    /// Number of draws at prediction.
    pub n_samples: usize,
    /// What shares a draw at prediction.
    pub sharing: NoiseSharing,
}

/// How M, B and G move.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub enum BlobObjective {
    /// Adam over M, B and G, at the recipe's rate, on `mean NLL + κ·KL/N`: at κ = 1 the negative evidence lower bound per item.
    Elbo {
        /// κ
        kl_weight: f64,
    },
    /// The published order of two optimisers, which has no single objective: AdamW (ε = 1e-6, the recipe's rate) moves M and B by
    /// the NLL; then plain gradient descent at a rate of its own moves M by `π ∂KL/∂M` and G by `∂NLL/∂G + π ∂KL/∂G`.
    ///
    /// `π_i = 2^i/(2^{C+1} − 1)`, i = 1 … C, again and again, with the cycle `C = ⌊100·N^{π/γ}/batch⌋` (this π the number). The sum
    /// over a cycle is 1, so that the divergence weighs N/C times what the bound gives it, most of it in the last ten steps.
    Published {
        /// Peak rate of the second optimiser; its warm-up and decay are the recipe's.
        kl_learning_rate: f64,
        /// γ
        gamma: f64,
    },
}

impl Default for Blob {
    /// The evidence lower bound, σ_p = 0.2, ten coherent draws.
    fn default() -> Self {
        Self {
            objective: BlobObjective::Elbo { kl_weight: 1.0 },
            prior_sd: 0.2,
            initial_root: 0.05,
            n_samples: 10,
            sharing: NoiseSharing::Coherent,
        }
    }
}

impl Blob {
    /// The published settings for Llama 2: σ_p = 0.2, rate 0.01, γ = 8, ten passes with noise per token.
    pub fn published() -> Self {
        let objective = BlobObjective::Published { kl_learning_rate: 0.01, gamma: 8.0 };
        Self { objective, sharing: NoiseSharing::PerToken, ..Self::default() }
    }

    setters! {
        /// Sets what is minimised, and by what.
        with_objective(objective: BlobObjective);
        /// Sets σ_p.
        with_prior_sd(prior_sd: f64);
        /// Sets g.
        with_initial_root(initial_root: f64);
        /// Sets the number of draws at prediction.
        with_n_samples(n_samples: usize);
        /// Sets what shares a draw at prediction.
        with_sharing(sharing: NoiseSharing);
    }

    /// Checks every bound.
    ///
    /// # Errors
    /// Names the field, its bound and its value.
    pub fn validate(&self) -> Result<()> {
        check_positive("prior_sd", self.prior_sd)?;
        check_positive("initial_root", self.initial_root)?;
        match self.objective {
            BlobObjective::Elbo { kl_weight } => check_not_negative("kl_weight", kl_weight)?,
            BlobObjective::Published { kl_learning_rate, gamma } => {
                check_not_negative("kl_learning_rate", kl_learning_rate)?;
                check_positive("gamma", gamma)?;
            }
        }
        check_some("n_samples", self.n_samples)
    }
}

/// C, the steps of a cycle, at least 1.
pub(super) fn cycle(n_items: usize, batch: usize, gamma: f64) -> u64 {
    ((100.0 * (n_items as f64).powf(PI / gamma) / batch.max(1) as f64) as u64).max(1)
}

/// π_i of step `index` (0, 1, …): `2^{i−C−1}/(1 − 2^{−C−1})`, for `2^C` itself overflows from C = 1024 on.
pub(super) fn cyclic_weight(index: u64, cycle: u64) -> f64 {
    let (i, length) = ((index % cycle + 1) as f64, cycle as f64);
    (i - length - 1.0).exp2() / (1.0 - (-length - 1.0).exp2())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cycles_have_the_published_lengths() {
        // training sizes of WG-S, ARC-C, ARC-E, WG-M, OBQA, BoolQ at batches of 4
        let sizes = [640, 1119, 2251, 2558, 4957, 9427];
        assert_eq!(sizes.map(|n| cycle(n, 4, 8.0)), [316, 393, 518, 544, 706, 909]);
        assert_eq!(cycle(1, 1000, 8.0), 1);
    }

    #[test]
    fn weights_of_a_cycle_sum_to_one_and_repeat() {
        // Σ 2^i = 2^{C+1} − 2
        let exact: Vec<f64> = (0..3).map(|i| cyclic_weight(i, 3)).collect();
        assert_eq!(exact, [2.0 / 15.0, 4.0 / 15.0, 8.0 / 15.0]);
        for length in [316, 393, 518, 544, 706, 909, 5000] {
            let sum: f64 = (0..length).map(|i| cyclic_weight(i, length)).sum();
            assert!((sum - 1.0).abs() < 1e-12, "{length}: {sum}");
            assert_eq!(cyclic_weight(length, length), cyclic_weight(0, length));
            let last: f64 = (length - 10..length).map(|i| cyclic_weight(i, length)).sum();
            assert!(last > 0.999, "the last ten steps have {last}");
        }
    }
}
