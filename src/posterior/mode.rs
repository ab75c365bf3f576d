//! Compares the trained adapter with the mode of its log joint, given the gradient of the log-likelihood.

use super::laplace::Laplace;
use super::quadratic::QuadraticModel;
use crate::curvature::SiteSpace;
use crate::error::{Error, Result};
use crate::lora::AdapterWeights;
use crate::tape::Site;
use ndarray::{Array4, Axis, stack};
use std::collections::BTreeMap;

/// Distance of the trained adapter from the mode of the log joint `log p(y | x, θ) − ½λ‖θ − μ‖²`.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Stationarity {
    /// `‖∇ log p(y | x, θ*)‖`, summed over the data.
    pub likelihood_gradient: f64,
    /// `‖∇ log joint‖` at the present prior; zero at its mode.
    pub joint_gradient: f64,
    /// `½ ∇ᵀ(H + λI)⁻¹∇` of the log joint: what one Newton step would add to it, in nats. Where it is not small against the
    /// log evidence's differences, the evidence at the adapter is that of another point than the mode.
    pub newton_gain: f64,
}

impl Laplace {
    /// The same posterior with its evidence taken at the mode of the quadratic model around the adapter, given the gradient of
    /// the log-likelihood there ([`super::log_likelihood_gradient`]). The posterior's mean stays at the adapter, and its
    /// prior precision as it is: see [`Laplace::with_optimal_prior`].
    ///
    /// # Errors
    /// If the gradient is not about the posterior's sites, or the structure is not exact: where H approximates, the gradient
    /// points along directions that it takes for flat, and the evidence has no meaningful optimum.
    pub fn with_gradient(mut self, gradient: &AdapterWeights) -> Result<Self> {
        let structure = self.structure();
        if !structure.plan().is_exact() {
            return Err(Error::Incompatible(format!(
                "the evidence at the mode of the quadratic model needs the exact curvature (full, function space, core space), \
                 not {structure}"
            )));
        }
        let models = self.quadratic_models(gradient)?;
        self.set_quadratic(models);
        Ok(self)
    }

    /// How far the adapter is from the mode, given the gradient of its log-likelihood at it
    /// ([`super::log_likelihood_gradient`]); over the weights (or cores) that the posterior is about.
    ///
    /// # Errors
    /// If the gradient is not about the posterior's sites.
    pub fn stationarity(&self, gradient: &AdapterWeights) -> Result<Stationarity> {
        let (mut likelihood, mut joint, mut gain) = (0.0, 0.0, 0.0);
        for (index, (group, model)) in self.groups().iter().zip(self.quadratic_models(gradient)?).enumerate() {
            let precision = self.prior_precisions().of(index);
            let lambda = precision.value();
            likelihood += model.gradient_square;
            joint +=
                model.gradient_square - 2.0 * lambda * model.gradient_displacement + lambda.powi(2) * group.scatter;
            gain += model.log_joint(&group.spectrum, precision) + 0.5 * lambda * group.scatter;
        }
        Ok(Stationarity {
            likelihood_gradient: likelihood.sqrt(),
            joint_gradient: joint.max(0.0).sqrt(),
            newton_gain: gain,
        })
    }

    /// One quadratic model a prior group.
    fn quadratic_models(&self, gradient: &AdapterWeights) -> Result<Vec<QuadraticModel>> {
        let mut pairs: BTreeMap<Site, Array4<f64>> = BTreeMap::new();
        for space in self.blocks().iter().flat_map(|block| block.spaces()) {
            pairs.insert(space.site.clone(), self.gradient_and_displacement(space, gradient)?);
        }
        let projections = self.project_jacobians(&pairs)?;
        let mut models = vec![QuadraticModel::default(); self.groups().len()];
        for ((block, projection), &group) in self.blocks().iter().zip(&projections).zip(self.group_of()) {
            block.extend_quadratic(projection, &mut models[group]);
        }
        Ok(models)
    }

    /// `g` and `θ* − μ` of one site as if they were the Jacobians of two logits, `[1, 2, d_out, d_in]`.
    fn gradient_and_displacement(&self, space: &SiteSpace, gradient: &AdapterWeights) -> Result<Array4<f64>> {
        let missing = || Error::Incompatible(format!("the gradient lacks `{}`", space.site));
        let whole = gradient.get(&space.site).ok_or_else(missing)?;
        let map = &self.map()[&space.site];
        if whole.dim() != map.dim() {
            let (expected, found) = (map.shape().to_vec(), whole.shape().to_vec());
            return Err(Error::Shape { what: format!("gradient at `{}`", space.site), expected, found });
        }
        let pair = [space.used_rows(whole), space.displacement(self.map(), self.centre())?];
        let pair = stack(Axis(0), &[pair[0].view(), pair[1].view()]);
        Ok(pair.map_err(|e| Error::numerical("layout of a gradient", e))?.insert_axis(Axis(0)))
    }
}
