//! The trait by which a likelihood joins.

use super::moments::{OneMoments, TargetMoments, log_mean_densities};
use super::target::{Target, TargetSpace};
use crate::belief::{LinkApprox, LogitBelief};
use crate::error::Result;
use crate::linalg::semidefinite_cholesky;
use ndarray::{Array1, Array2, ArrayView1, s};
use rand::Rng;
use std::fmt::Debug;

/// The distribution `p(y | f)` of one unit's target given the model's outputs for it.
///
/// # Shapes
/// - outputs: `[n_outputs]`, −∞ for those that the unit does not have: what they would add is left out everywhere
/// - score and mean the same; Fisher information and covariance `[n_outputs, n_outputs]`
pub trait Likelihood: Debug + Send + Sync {
    /// Its name in files.
    fn name(&self) -> &'static str;

    /// Its settings by name, all that files need beside the name.
    fn settings(&self) -> Vec<(&'static str, f64)> {
        Vec::new()
    }

    /// Checks the settings.
    ///
    /// # Errors
    /// Names the setting, its bound and its value.
    fn check(&self) -> Result<()> {
        Ok(())
    }

    /// What one unit of data is, in a word: what means are taken over. An item is one, unless [`crate::models::Dataset::units`] says
    /// otherwise.
    fn unit(&self) -> &'static str {
        "item"
    }

    /// True if an output is the log-likelihood of a target that the model reads in its input, so that other targets are other outputs:
    /// the sampled Fisher information is then that of targets drawn inside the model ([`crate::models::Classifier::own_targets`]), and
    /// none is exact.
    fn draws_in_model(&self) -> bool {
        false
    }

    /// Which targets it is about.
    fn target_space(&self) -> TargetSpace;

    /// True if a common shift of the outputs changes nothing, as in a softmax: C − 1 contrasts then say everything, and
    /// `Λ 1 = 0`.
    fn is_shift_invariant(&self) -> bool {
        false
    }

    /// Checks that the target of `item` is one that it can be about; `present` says which outputs the item has.
    ///
    /// # Errors
    /// Names the item, and both numbers.
    fn check_target(&self, item: &str, target: &Target, present: &[bool]) -> Result<()> {
        target.check(item, present)
    }

    /// `log p(y | f)` in nats, with its normalising constant; NaN for a target that [`Likelihood::check_target`] refuses.
    fn log_density(&self, outputs: ArrayView1<f64>, target: &Target) -> f64;

    /// The score `∇_f log p(y | f)`; zero for outputs that the unit does not have.
    fn score(&self, outputs: ArrayView1<f64>, target: &Target) -> Array1<f64>;

    /// The Fisher information `Λ = E_{y | f}[score scoreᵀ]` in output space; positive semi-definite, zero for outputs that the
    /// unit does not have.
    fn fisher(&self, outputs: ArrayView1<f64>) -> Array2<f64>;

    /// How many columns [`Likelihood::fisher_root`] has.
    fn root_width(&self, n_outputs: usize) -> usize {
        if self.is_shift_invariant() { n_outputs.saturating_sub(1).max(1) } else { n_outputs }
    }

    /// Columns `r_k` with `Λ = Σ_k r_k r_kᵀ`: as many backward passes give a unit's exact curvature. `[n_outputs, root_width]`
    ///
    /// # Errors
    /// If Λ is not positive semi-definite, or not finite.
    fn fisher_root(&self, outputs: ArrayView1<f64>) -> Result<Array2<f64>> {
        // Λ 1 = 0 leaves the factor without its last column
        let factor = semidefinite_cholesky(self.fisher(outputs).view())?;
        Ok(factor.slice(s![.., ..self.root_width(outputs.len())]).to_owned())
    }

    /// A target drawn from `p(y | f)`, a function of the outputs and the generator's state alone.
    fn sample(&self, outputs: ArrayView1<f64>, rng: &mut dyn Rng) -> Target;

    /// Mean and covariance of the target given the outputs, noise included; of a class those of its one-hot vector.
    fn moments(&self, outputs: ArrayView1<f64>) -> (Array1<f64>, Array2<f64>);

    /// What a belief about outputs says about the targets of its items. A Gaussian belief is integrated on the draws or nodes of
    /// `link`, unless there is a closed form.
    ///
    /// # Errors
    /// If a covariance is not positive semi-definite, or the link does not suit the belief.
    fn target_moments(&self, belief: &LogitBelief, link: LinkApprox) -> Result<TargetMoments> {
        TargetMoments::over_draws(belief, link, |outputs| -> OneMoments { self.moments(outputs) })
    }

    /// `ln E_f[p(y | f)]` of every item in nats: densities are averaged over the belief, never outputs.
    ///
    /// # Errors
    /// As [`Likelihood::target_moments`], and if there is not one target an item.
    fn log_predictive(&self, belief: &LogitBelief, targets: &[Target], link: LinkApprox) -> Result<Vec<f64>> {
        log_mean_densities(belief, targets, link, |outputs, target| self.log_density(outputs, target))
    }

    /// The same with its own settings, such as the variance of its noise, where they make the targets most probable under the belief:
    /// those that maximise `Σ ln E_f[p(y | f)]`. `None` where nothing is to be chosen.
    ///
    /// # Errors
    /// As [`Likelihood::log_predictive`], and if no setting is best.
    fn tuned(
        &self,
        _belief: &LogitBelief,
        _targets: &[Target],
        _link: LinkApprox,
    ) -> Result<Option<Box<dyn Likelihood>>> {
        Ok(None)
    }
}
