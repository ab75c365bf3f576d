//! The quantity that training minimises.

use super::adapter_prior::SharedPrior;
use crate::error::{Error, Result};
use crate::likelihood::{Likelihood, Target};
use crate::lora::{Adaptable, AdapterWeights, from_array, prior_centre, read_adapter, to_array, trained_matrices};
use crate::models::mask_absent;
use crate::prior::{PriorMean, PriorPrecision};
use burn::tensor::{Tensor, TensorData};
use ndarray::Array2;

/// Maximum likelihood, or maximum a posteriori under a Gaussian prior on the adapter; `p(y | x, θ)` is that of
/// [`super::TrainerConfig::likelihood`].
///
/// A step over the items s takes the gradient of
///
/// `L_s = (S/N) Σ_{n∈s} −log p(y_n | x_n, θ) + (1/N) ½ (θ − μ)ᵀP(θ − μ)`, `P = λI` but for [`Objective::UnderPrior`],
///
/// in an epoch of S steps over N items, whose mean over these steps is the objective divided by N (where items are of several units, as
/// texts are of tokens, N counts these: [`crate::models::Dataset::units`]): every item weighs the same and
/// the prior counts once, however unevenly the items are cut into steps. (Divided by its own number of items, a small step would
/// give its items more weight in every epoch.) Where steps are of one size, `N/S`, L_s is the mean loss over them.
///
/// A rule that follows these gradients as they are comes to rest where that of the objective vanishes. AdamW divides them by a
/// running root mean square, which hardly moves within an epoch (β₂ = 0.999), and rests there but for this movement; clipping
/// shortens single steps and moves the point of rest.
///
/// Weight decay of the optimiser is neither: AdamW's decay is not the gradient of any prior.
#[derive(Debug, Clone, PartialEq, Default, serde::Serialize)]
pub enum Objective {
    /// `−Σ log p(y | x, θ)`
    #[default]
    MaximumLikelihood,
    /// `−Σ log p(y | x, θ) + ½ λ‖θ − μ‖²` over A and B.
    MaximumAPosteriori {
        /// λ
        precision: PriorPrecision,
        /// μ
        mean: PriorMean,
    },
    /// `−Σ log p(y | x, θ) + ½ (θ − μ)ᵀP(θ − μ)` over A and B, with any precision P: that of the posterior of an earlier task, say
    /// (`posterior::PosteriorPrior`). The product with P is taken on the host once a step.
    UnderPrior(SharedPrior),
}

/// The loss `−Σ_n log p(y_n | f(x_n))` of a batch.
#[derive(Debug, Clone)]
pub struct BatchLoss {
    /// In nats, a sum over the batch in f64; not finite where an output is not.
    pub nats: f64,
    /// A scalar `[1]` with the gradient of the loss; its own value means nothing.
    pub differentiable: Tensor<1>,
}

/// `−Σ_n log p(y_n | f(x_n))` of a batch, for any likelihood.
///
/// The likelihood knows no tensors. It takes the outputs on the host in f64 and answers with its score `s_n = ∇_f log p`; by the
/// chain rule `−Σ_n s_nᵀ f(x_n)`, with `s` held fixed, has the gradient of the loss. Outputs that an item does not have get a
/// score of zero, so that no large number stands in for −∞ in the element type of the model.
///
/// # Shapes
/// - outputs: `[n_items, n_outputs]`, targets: `[n_items]`, class mask: as the outputs
///
/// # Errors
/// If there is not one target an item, or a copy from the device fails.
pub fn negative_log_likelihood(
    outputs: Tensor<2>,
    likelihood: &dyn Likelihood,
    targets: &[Target],
    class_mask: Option<&Array2<bool>>,
) -> Result<BatchLoss> {
    let on_host = outputs_on_host(outputs.clone().without_autodiff(), class_mask)?;
    let (n, c) = on_host.dim();
    if targets.len() != n {
        return Err(Error::Count { what: "targets of a batch".into(), expected: n, found: targets.len() });
    }
    let (mut nats, mut weights) = (0.0, Vec::with_capacity(n * c));
    for (row, target) in on_host.outer_iter().zip(targets) {
        nats -= likelihood.log_density(row, target);
        weights.extend(likelihood.score(row, target).into_iter().map(|score| -score));
    }
    let options = (&outputs.device().without_autodiff(), outputs.dtype());
    let weights = Tensor::<2>::from_data(TensorData::new(weights, [n, c]), options);
    Ok(BatchLoss { nats, differentiable: (outputs * weights).sum() })
}

/// Copies outputs to the host: −∞ where an item lacks one, NaN where one that it has is not finite, so that an overflow is not
/// taken for a lack.
///
/// # Errors
/// If the copy fails.
pub(super) fn outputs_on_host(outputs: Tensor<2>, class_mask: Option<&Array2<bool>>) -> Result<Array2<f64>> {
    let outputs = to_array(outputs)?.mapv_into(|v| if v.is_finite() { v } else { f64::NAN });
    Ok(mask_absent(outputs, class_mask))
}

impl Objective {
    /// Maximum a posteriori under a Gaussian prior of any precision.
    pub fn under(prior: impl Into<SharedPrior>) -> Self {
        Self::UnderPrior(prior.into())
    }

    /// The prior's centre as host arrays, where there is a prior.
    ///
    /// # Errors
    /// If it is centred at an unknown start, or about another adapter than the model's.
    pub(super) fn centre<M: Adaptable>(&self, model: &M) -> Result<Option<AdapterWeights>> {
        match self {
            Self::MaximumLikelihood => Ok(None),
            Self::MaximumAPosteriori { mean, .. } => prior_centre(model, *mean).map(Some),
            Self::UnderPrior(prior) => {
                prior.check(model)?;
                Ok(Some(prior.centre().clone()))
            }
        }
    }

    /// A scalar with the gradient of `½ (θ − μ)ᵀP(θ − μ)`, where there is a prior.
    ///
    /// # Errors
    /// If a copy from the device fails.
    pub(super) fn penalty<M: Adaptable>(
        &self,
        model: &M,
        centre: Option<&AdapterWeights>,
    ) -> Result<Option<Tensor<1>>> {
        match (self, centre) {
            (Self::MaximumAPosteriori { precision, .. }, Some(centre)) => {
                let squares = sum_over_adapter(model, centre, |w, mean| {
                    let difference = w - mean;
                    (difference.clone() * difference).sum()
                });
                Ok(squares.map(|total| total.mul_scalar(0.5 * precision.value())))
            }
            // with the gradient held fixed, as that of the likelihood is
            (Self::UnderPrior(prior), _) => {
                let gradient = prior.gradient(&read_adapter(model)?)?;
                Ok(sum_over_adapter(model, &gradient, |w, gradient| (w * gradient).sum()))
            }
            _ => Ok(None),
        }
    }
}

/// The sum of `term(W, constant)` over the adapter's matrices.
fn sum_over_adapter<M: Adaptable>(
    model: &M,
    constants: &AdapterWeights,
    term: impl Fn(Tensor<2>, Tensor<2>) -> Tensor<1>,
) -> Option<Tensor<1>> {
    let mut total: Option<Tensor<1>> = None;
    for trained in trained_matrices(model) {
        let (w, Some(constant)) = (trained.param.val(), constants.get(&trained.site)) else { continue };
        let constant = from_array(constant, (&w.device().without_autodiff(), w.dtype()));
        let term = term(w, constant);
        total = Some(match total {
            None => term,
            Some(total) => total + term,
        });
    }
    total
}
