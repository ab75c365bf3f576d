//! Compares the trained adapter with the mode of its log joint, given the gradient of the log-likelihood.

use super::laplace::Laplace;
use crate::curvature::SiteSpace;
use crate::error::{Error, Result};
use crate::lora::AdapterWeights;
use crate::prior::PriorPrecision;
use crate::tape::Site;
use ndarray::{Array3, Array4, Axis, stack};
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
    /// How far the adapter is from the mode, given the gradient of its log-likelihood at it
    /// ([`super::log_likelihood_gradient`]); over the weights (or cores) that the posterior is about.
    ///
    /// # Errors
    /// If the gradient is not about the posterior's sites.
    pub fn stationarity(&self, gradient: &AdapterWeights) -> Result<Stationarity> {
        let mut pairs: BTreeMap<Site, Array4<f64>> = BTreeMap::new();
        for (block, &group) in self.blocks().iter().zip(self.group_of()) {
            for space in block.spaces() {
                pairs.insert(space.site.clone(), self.gradients(space, gradient, self.prior_precisions().of(group))?);
            }
        }
        let mut squares = Array3::zeros((1, 2, 2));
        let mut solved = squares.clone();
        let projections = self.project_jacobians(&pairs)?;
        for ((block, projection), &group) in self.blocks().iter().zip(&projections).zip(self.group_of()) {
            squares += &projection.gram();
            block.add_covariance(projection, self.prior_precisions().of(group), &mut solved);
        }
        Ok(Stationarity {
            likelihood_gradient: squares[[0, 0, 0]].sqrt(),
            joint_gradient: squares[[0, 1, 1]].sqrt(),
            newton_gain: 0.5 * solved[[0, 1, 1]],
        })
    }

    /// The gradients of the log-likelihood and of the log joint at one site, `g` and `g − λ(θ* − μ)`, as if they were the Jacobians
    /// of two logits, `[1, 2, d_out, d_in]`.
    fn gradients(
        &self,
        space: &SiteSpace,
        gradient: &AdapterWeights,
        precision: PriorPrecision,
    ) -> Result<Array4<f64>> {
        let missing = || Error::Incompatible(format!("the gradient lacks `{}`", space.site));
        let whole = gradient.get(&space.site).ok_or_else(missing)?;
        let map = &self.map()[&space.site];
        if whole.dim() != map.dim() {
            let (expected, found) = (map.shape().to_vec(), whole.shape().to_vec());
            return Err(Error::Shape { what: format!("gradient at `{}`", space.site), expected, found });
        }
        let likelihood = space.used_rows(whole);
        let joint = &likelihood - &(space.displacement(self.map(), self.centre())? * precision.value());
        let pair = stack(Axis(0), &[likelihood.view(), joint.view()]);
        Ok(pair.map_err(|e| Error::numerical("layout of a gradient", e))?.insert_axis(Axis(0)))
    }
}
