//! What MonteCLoRA's training noise can be told.

use super::bounds::{check_not_negative, check_some};
use crate::error::Result;
use crate::setters::setters;

/// AdamW on an adapter whose A has noise of its own in every training step; what it predicts with is the trained adapter alone,
/// for PEFT's sampler is off in evaluation. **It has no predictive distribution**: it is here as the training noise that it is.
///
/// The noise of a module, with `A: [r, d_in]`, K draws of it a step and a scale s:
///
/// - `ΔA_oi = s √c_o Σ_k w_k Z_koi` with standard normal Z
/// - `c_o = max(e^{2ρ_o} W_oo, 0.001)`, `W ~ Wishart(r, I)`, of which only the diagonal is used: `W_oo ~ χ²(r)`, independent
/// - `w = softmax(η_k − η̄ + √(d_k + ε) ζ_k)`, ζ standard normal, `d_k = (1 − 2/K)/α_k + K⁻² Σ_l 1/α_l`, `α = e^η`, ε = 1e-6: the
///   softmax-normal approximation of a Dirichlet
///
/// so that, given c and w, the elements are independent normal of variance `s² c_o Σ_k w_k²`. ρ starts uniform in [0, 1) and is
/// learned by Adam at the recipe's rate from `∂NLL/∂ρ_o = Σ_i g_oi ΔA_oi` and from the two divergences that hold it,
/// `κ/n · [r(e^{2ρ_o} − 1) + K(c_o − 1)]` with n adapted modules and a weight κ.
///
/// Simplified: η keeps its start, uniform in [0, 1), for its share in PEFT 0.21's loss is κ times an expression whose log-gamma
/// terms have the wrong sign for a divergence; the entropy of w, off by default there, is left out; micro-batches of one step
/// share a draw. All tokens of a step share the draw, as in PEFT.
///
/// Sengupta et al. (2024), arXiv 2411.04358; PEFT 0.21, `tuners/lora/monteclora.py`.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
#[non_exhaustive]
pub struct MonteClora {
    /// s
    pub sample_scale: f64,
    /// K
    pub n_draws: usize,
    /// κ
    pub kl_weight: f64,
}

impl Default for MonteClora {
    /// PEFT's: s = 1e-4, eight draws, κ = 1e-5.
    fn default() -> Self {
        Self { sample_scale: 1e-4, n_draws: 8, kl_weight: 1e-5 }
    }
}

impl MonteClora {
    setters! {
        /// Sets s.
        with_sample_scale(sample_scale: f64);
        /// Sets K.
        with_n_draws(n_draws: usize);
        /// Sets κ.
        with_kl_weight(kl_weight: f64);
    }

    /// Checks every bound.
    ///
    /// # Errors
    /// Names the field, its bound and its value.
    pub fn validate(&self) -> Result<()> {
        check_not_negative("sample_scale", self.sample_scale)?;
        check_not_negative("kl_weight", self.kl_weight)?;
        check_some("n_draws", self.n_draws)
    }
}
