//! MonteCLoRA: noise on A while training, and none in prediction.

use super::adapter_training::{settings, start};
use super::belief::OwnPointBelief;
use super::bounds::{check_not_negative, check_some};
use super::method::{FitContext, Fitted, Method, Requirements, Spent};
use super::monte_clora_rule::MonteCloraRule;
use crate::error::Result;
use crate::identity::Identity;
use crate::lora::read_adapter;
use crate::models::{Classifier, Dataset};

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
    /// The rule, with AdamW's weight decay and draws from `seed`.
    ///
    /// # Errors
    /// Names the field that is out of bounds.
    pub fn rule(&self, weight_decay: f64, seed: u64) -> Result<MonteCloraRule> {
        check_not_negative("sample_scale", self.sample_scale)?;
        check_not_negative("kl_weight", self.kl_weight)?;
        check_some("n_draws", self.n_draws)?;
        Ok(MonteCloraRule::new(*self, weight_decay, seed))
    }
}

impl<M: Classifier, D: Dataset<Input = M::Input>> Method<M, D> for MonteClora {
    fn name(&self) -> String {
        "MonteCLoRA training noise".into()
    }

    fn identity(&self) -> Result<Identity> {
        Identity::of(self)
    }

    fn describe(&self) -> String {
        let Self { sample_scale, n_draws, kl_weight } = self;
        format!("noise on A in training alone, scale {sample_scale}, {n_draws} draws a step, KL weight {kl_weight}")
    }

    fn requirements(&self) -> Requirements {
        Requirements { map: false, adapter_alone: true, ..Requirements::default() }
    }

    fn fit(&self, context: &FitContext<M, D>) -> Result<Fitted<M, D>> {
        context.check(self)?;
        let config = settings(context);
        let mut rule = self.rule(config.weight_decay, context.seed)?;
        let outcome = context.train_by(&mut rule, config, start(context)?)?;
        let adapter = read_adapter(&outcome.model)?;
        let spread = rule.mean_log_spread(&adapter)?;
        Ok(Fitted::new(OwnPointBelief { adapter })
            .with_spent(Spent::training(outcome.report.items))
            .with_found("mean rho", spread))
    }
}
