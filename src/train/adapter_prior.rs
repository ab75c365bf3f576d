//! Says what training needs of a Gaussian prior with any precision: its centre and products.

use crate::error::{Error, Result};
use crate::identity::Identity;
use crate::lora::{Adaptable, AdapterWeights, adapter_scales, check_same_scales, check_same_shapes, read_adapter};
use serde::{Serialize, Serializer};
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::ops::Deref;
use std::sync::Arc;

/// A Gaussian prior `N(μ, P⁻¹)` over the weights of an adapter, known by products with its precision.
///
/// ```
/// use bayes_lora::error::Result;
/// use bayes_lora::identity::Identity;
/// use bayes_lora::lora::AdapterWeights;
/// use bayes_lora::tape::{LoraMatrix, Site};
/// use bayes_lora::train::{AdapterPrior, Objective};
/// use ndarray::arr2;
///
/// /// `P = λI`
/// #[derive(Debug)]
/// struct Isotropic(f64, AdapterWeights);
///
/// impl AdapterPrior for Isotropic {
///     fn centre(&self) -> &AdapterWeights {
///         &self.1
///     }
///
///     fn precision_product(&self, deviation: &AdapterWeights) -> Result<AdapterWeights> {
///         Ok(deviation.iter().map(|(site, w)| (site.clone(), w * self.0)).collect())
///     }
///
///     fn identity(&self) -> Identity {
///         Identity::new().with("isotropic", self.0)
///     }
/// }
///
/// let site = Site { module: "q_proj".into(), matrix: LoraMatrix::A };
/// let at = |value: f64| AdapterWeights::from([(site.clone(), arr2(&[[value]]))]);
/// let prior = Isotropic(3.0, at(1.0));
/// assert_eq!(prior.penalty(&at(3.0))?, 6.0); // ½·3·2²
/// assert_eq!(prior.gradient(&at(3.0))?, at(6.0));
/// let objective = Objective::under(prior);
/// # Ok::<(), bayes_lora::error::Error>(())
/// ```
pub trait AdapterPrior: Debug + Send + Sync {
    /// μ
    fn centre(&self) -> &AdapterWeights;

    /// `P δ`, for a deviation δ of every matrix of the centre.
    ///
    /// # Errors
    /// If a matrix is missing or of another shape.
    fn precision_product(&self, deviation: &AdapterWeights) -> Result<AdapterWeights>;

    /// All that it depends on but its centre: a training's checkpoint is taken up only under a prior that says the same.
    fn identity(&self) -> Identity;

    /// The scale of each module's product, where the prior knows it: weights at another scale mean another network.
    fn scales(&self) -> Option<&BTreeMap<String, f64>> {
        None
    }

    /// `P(θ − μ)`, the gradient of [`AdapterPrior::penalty`].
    ///
    /// # Errors
    /// If a matrix is missing or of another shape.
    fn gradient(&self, weights: &AdapterWeights) -> Result<AdapterWeights> {
        self.precision_product(&deviation(weights, self.centre())?)
    }

    /// `½ (θ − μ)ᵀ P (θ − μ)` in nats.
    ///
    /// # Errors
    /// If a matrix is missing or of another shape.
    fn penalty(&self, weights: &AdapterWeights) -> Result<f64> {
        let deviation = deviation(weights, self.centre())?;
        let image = self.precision_product(&deviation)?;
        Ok(0.5 * deviation.iter().filter_map(|(site, d)| Some((d * image.get(site)?).sum())).sum::<f64>())
    }
}

fn deviation(weights: &AdapterWeights, centre: &AdapterWeights) -> Result<AdapterWeights> {
    check_same_shapes("the adapter under a prior", weights, centre)?;
    Ok(centre.iter().map(|(site, mean)| (site.clone(), &weights[site] - mean)).collect())
}

/// Any such prior: what configurations hold. Two are equal if their identities and centres are.
#[derive(Debug, Clone)]
pub struct SharedPrior(Arc<dyn AdapterPrior>);

impl<P: AdapterPrior + 'static> From<P> for SharedPrior {
    fn from(prior: P) -> Self {
        Self(Arc::new(prior))
    }
}

impl Deref for SharedPrior {
    type Target = dyn AdapterPrior;

    fn deref(&self) -> &Self::Target {
        &*self.0
    }
}

impl PartialEq for SharedPrior {
    fn eq(&self, other: &Self) -> bool {
        self.identity() == other.identity() && self.centre() == other.centre()
    }
}

impl Serialize for SharedPrior {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        self.identity().serialize(serializer)
    }
}

impl SharedPrior {
    /// Checks that it is about the matrices of the model's adapter, at the same scales.
    ///
    /// # Errors
    /// Names what differs, with both values.
    pub(super) fn check<M: Adaptable>(&self, model: &M) -> Result<()> {
        let found = read_adapter(model)?;
        let expected = self.centre();
        check_same_shapes("the adapter under a prior", &found, expected)?;
        if found.len() != expected.len() {
            let what = "adapted matrices under a prior".into();
            return Err(Error::Count { what, expected: expected.len(), found: found.len() });
        }
        match self.scales() {
            Some(scales) => check_same_scales("the adapter under a prior", &adapter_scales(model), scales),
            None => Ok(()),
        }
    }
}
