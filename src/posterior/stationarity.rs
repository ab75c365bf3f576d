//! Says how far an adapter is from the mode that the Laplace approximation takes it for.

use super::laplace::Laplace;
use crate::batches::for_each_batch;
use crate::curvature::Coordinates;
use crate::data::{BatchLimits, BatchOrder};
use crate::error::{Error, Result};
use crate::lora::{AdapterWeights, to_array};
use crate::models::{Classifier, ClassifierInput, Dataset, batch_for, check_labels, known_labels};
use crate::progress::Control;
use crate::tape::{LoraMatrix, Site, Tape};
use crate::train::{TrainingMode, nll_sum, set_trainable};
use burn::optim::GradientsParams;
use ndarray::{Array2, Array4, Axis};
use std::collections::BTreeMap;

/// Distance of the trained adapter from the mode of the log joint `log p(y | x, θ) − ½λ‖θ − μ‖²`.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Stationarity {
    /// `‖∇ log p(y | x, θ*)‖`, summed over the data.
    pub likelihood_gradient: f64,
    /// `‖∇ log joint‖` at the present prior; zero at its mode.
    pub joint_gradient: f64,
    /// `½ gᵀ(H + λI)⁻¹g`: what one Newton step would add to the log joint, in nats. Where it is not small against the log
    /// evidence's differences, the evidence is that of another point.
    pub newton_gain: f64,
}

/// `∇ Σ log p(y | x, θ)` under the categorical likelihood at the adapter's present weights, **summed** over the data.
///
/// # Errors
/// If a label is missing, the model has no adapter, or the caller cancels.
pub fn log_likelihood_gradient<M: Classifier, D: Dataset<Input = M::Input>>(
    model: &M,
    data: &D,
    limits: &BatchLimits,
    control: &Control,
) -> Result<AdapterWeights> {
    let plain = model.valid();
    let labels = known_labels(data, model.n_classes())?;
    let work = |indices: &[usize]| {
        // leaves of its own, so that several batches can be differentiated at once
        let model = set_trainable(plain.clone(), &TrainingMode::Lora)?.train();
        let input = batch_for(&model, data, indices)?;
        let labels: Vec<usize> = indices.iter().map(|&item| labels[item]).collect();
        let known: Vec<Option<usize>> = labels.iter().copied().map(Some).collect();
        check_labels(&known, model.n_classes(), input.class_mask(), |k| data.item_id(indices[k]))?;
        let loss = nll_sum(model.logits(&input, &mut Tape::off()), &labels, input.class_mask());
        let gradients = GradientsParams::from_grads(loss.backward(), &model);
        let mut all = AdapterWeights::new();
        for linear in model.linears() {
            let Some(adapter) = &linear.adapter else { continue };
            for (matrix, param) in [(LoraMatrix::A, &adapter.a), (LoraMatrix::B, &adapter.b)] {
                let gradient = match gradients.get::<2>(param.id) {
                    Some(gradient) => -to_array(gradient)?,
                    None => Array2::zeros(param.val().dims()),
                };
                all.insert(Site { module: linear.path.clone(), matrix }, gradient);
            }
        }
        Ok(all)
    };
    let mut total = AdapterWeights::new();
    let batches = data.plan(*limits, BatchOrder::ByLength)?;
    for_each_batch("gradient", &batches, control, work, |_, gradient| {
        for (site, new) in gradient {
            match total.get_mut(&site) {
                Some(sum) => *sum += &new,
                None => {
                    total.insert(site, new);
                }
            }
        }
        Ok(())
    })?;
    Ok(total)
}

impl Laplace {
    /// How far the adapter is from the mode, given the gradient of its log-likelihood at it
    /// ([`log_likelihood_gradient`]); over the weights (or cores) that the posterior is about.
    ///
    /// # Errors
    /// If the gradient is not about the posterior's sites.
    pub fn stationarity(&self, gradient: &AdapterWeights) -> Result<Stationarity> {
        let (mut likelihood, mut joint) = (0.0, 0.0);
        let mut as_jacobians: BTreeMap<Site, Array4<f64>> = BTreeMap::new();
        let square = |w: &Array2<f64>| w.iter().map(|v| v * v).sum::<f64>();
        for (block, &group) in self.blocks().iter().zip(self.group_of()) {
            let lambda = self.prior_precisions().of(group).value();
            for space in block.spaces() {
                let missing = || Error::Incompatible(format!("the gradient lacks `{}`", space.site));
                let whole = gradient.get(&space.site).ok_or_else(missing)?;
                let (map, centre) = (&self.map()[&space.site], &self.centre()[&space.site]);
                if whole.dim() != map.dim() {
                    let (expected, found) = (map.shape().to_vec(), whole.shape().to_vec());
                    return Err(Error::Shape { what: format!("gradient at `{}`", space.site), expected, found });
                }
                let (of_likelihood, of_joint) = match &space.coordinates {
                    Coordinates::Core(core) => {
                        // the Jacobian of A whose projection is R: Bᵀ U R Vᵀ
                        let of_b = Site { module: space.site.module.clone(), matrix: LoraMatrix::B };
                        let prior =
                            self.map()[&of_b].t().dot(&core.column_basis).dot(&core.map).dot(&core.row_basis.t());
                        let both = whole - &(prior * lambda);
                        likelihood += square(&core.project(whole.view()));
                        joint += square(&core.project(both.view()));
                        (None, both)
                    }
                    _ => (Some(whole.clone()), whole - &((map - centre) * lambda)),
                };
                let of_joint = space.used_rows(&of_joint);
                if let Some(of_likelihood) = of_likelihood {
                    likelihood += square(&space.used_rows(&of_likelihood));
                    joint += square(&of_joint);
                }
                as_jacobians.insert(space.site.clone(), of_joint.insert_axis(Axis(0)).insert_axis(Axis(0)));
            }
        }
        // gᵀ(H + λI)⁻¹g is the posterior variance of a logit with the Jacobian g
        let variance = self.covariance(&self.project_jacobians(&as_jacobians)?, self.prior_precisions())?.sum();
        Ok(Stationarity {
            likelihood_gradient: likelihood.sqrt(),
            joint_gradient: joint.sqrt(),
            newton_gain: 0.5 * variance / self.temperature(),
        })
    }
}
