//! The Laplace approximation: a Gaussian around the trained adapter.

use super::evidence::{EvidenceOptimum, Spectrum};
use super::kron_eigen::{KroneckerEigen, SiteProjection};
use crate::curvature::{KroneckerCurvature, Probe};
use crate::error::{Error, Result};
use crate::lora::{Adaptable, AdapterWeights, prior_centre, read_adapter};
use crate::prior::{PriorMean, PriorPrecision};
use ndarray::{Array2, Array3};
use rand::{SeedableRng, rngs::ChaCha8Rng};
use rand_distr::{Distribution, StandardNormal};

/// How the posterior is built from the curvature.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct LaplaceConfig {
    /// Centre of the prior.
    pub prior_mean: PriorMean,
    /// A fixed prior precision; `None` maximises the evidence.
    pub prior_precision: Option<PriorPrecision>,
    /// Forget the trace that low-rank factors discarded instead of keeping it as an isotropic rest.
    pub without_residual: bool,
}

/// The posterior `N(θ*, (H + λI)⁻¹)` over the weights of an adapter, with `H` Kronecker-factored site by site.
///
/// Yang et al. (2023), arXiv 2308.13111.
#[derive(Debug, Clone)]
pub struct Laplace {
    sites: Vec<KroneckerEigen>,
    spectrum: Spectrum,
    map: AdapterWeights,
    prior_mean: AdapterWeights,
    precision: PriorPrecision,
    log_likelihood: Option<f64>,
}

impl Laplace {
    /// Decomposes the curvature once, and sets the prior precision as configured.
    ///
    /// # Errors
    /// If the model has no adapter, the prior's centre is unknown, or the evidence has no optimum.
    pub fn new<M: Adaptable>(model: &M, curvature: &KroneckerCurvature, config: &LaplaceConfig) -> Result<Self> {
        let map = read_adapter(model)?;
        let prior_mean = prior_centre(model, config.prior_mean)?;
        let sites = curvature
            .factors
            .iter()
            .map(|f| KroneckerEigen::new(curvature, f, !config.without_residual))
            .collect::<Result<Vec<_>>>()?;
        sites.iter().try_for_each(|site| site.check_fits(map.get(&site.site)))?;
        let mut spectrum = Spectrum::default();
        sites.iter().for_each(|site| site.extend(&mut spectrum));
        let mut laplace = Self {
            sites,
            spectrum,
            map,
            prior_mean,
            precision: config.prior_precision.unwrap_or(PriorPrecision::new(1.0)?),
            log_likelihood: curvature.log_likelihood,
        };
        if config.prior_precision.is_none() {
            laplace.precision = laplace.optimize_prior()?.precision;
        }
        Ok(laplace)
    }

    /// The prior precision in use.
    pub fn prior_precision(&self) -> PriorPrecision {
        self.precision
    }

    /// The same posterior under another prior precision; nothing is fitted again.
    pub fn with_prior_precision(mut self, precision: PriorPrecision) -> Self {
        self.precision = precision;
        self
    }

    /// The trained adapter θ*.
    pub fn map(&self) -> &AdapterWeights {
        &self.map
    }

    /// The curvature of each site in its eigenbasis.
    pub fn sites(&self) -> &[KroneckerEigen] {
        &self.sites
    }

    /// Eigenvalues of the curvature over all sites.
    pub fn spectrum(&self) -> &Spectrum {
        &self.spectrum
    }

    /// `‖θ* − μ‖²`
    pub fn scatter(&self) -> f64 {
        let distance = |(w, mean): (&Array2<f64>, &Array2<f64>)| (w - mean).mapv(|v| v * v).sum();
        // both maps hold the same sites in the same order
        self.map.values().zip(self.prior_mean.values()).map(distance).sum()
    }

    /// `log det(H/λ + I)` at the present λ.
    pub fn log_det_ratio(&self) -> f64 {
        self.spectrum.log_det_ratio(self.precision)
    }

    /// `log Z(λ) = Σ log p(y | x, θ*) − ½ λ‖θ* − μ‖² − ½ log det(H/λ + I)` in nats, over the training data.
    ///
    /// # Errors
    /// If the curvature was fitted without labels.
    pub fn log_marginal_likelihood(&self, precision: PriorPrecision) -> Result<f64> {
        let fit = self
            .log_likelihood
            .ok_or_else(|| Error::Incompatible("the evidence needs the labels of the training data".into()))?;
        Ok(fit - 0.5 * precision.value() * self.scatter() - 0.5 * self.spectrum.log_det_ratio(precision))
    }

    /// The prior precision that maximises the evidence.
    ///
    /// # Errors
    /// If there is no optimum: zero curvature, or θ* = μ.
    pub fn optimize_prior(&self) -> Result<EvidenceOptimum> {
        self.spectrum.maximize(self.scatter())
    }

    /// Projects a batch's Jacobians on every site's eigenbasis; no prior enters.
    ///
    /// # Errors
    /// If the batch comes from another set of sites.
    pub fn project(&self, probe: &Probe) -> Result<Vec<SiteProjection>> {
        if probe.sites.len() != self.sites.len() {
            return Err(Error::Count {
                what: "sites of the batch".into(),
                expected: self.sites.len(),
                found: probe.sites.len(),
            });
        }
        let pairs = self.sites.iter().zip(&probe.sites);
        pairs
            .map(|(site, probed)| {
                let jacobians = probed.jacobians()?;
                site.check_is(&probed.site, [jacobians.dim().2, jacobians.dim().3])?;
                Ok(site.project(jacobians.view()))
            })
            .collect()
    }

    /// Posterior covariance of the K combinations that were probed, `[n_items, K, K]`, at any prior precision.
    pub fn covariance(&self, projections: &[SiteProjection], precision: PriorPrecision) -> Array3<f64> {
        let mut covariance = projections.first().map_or_else(|| Array3::zeros((0, 0, 0)), |p| p.gram() * 0.0);
        for (site, projection) in self.sites.iter().zip(projections) {
            site.add_covariance(projection, precision, &mut covariance);
        }
        covariance
    }

    /// Draw number `index` of the adapter, a function of (seed, site, index) alone.
    pub fn sample(&self, seed: u64, index: u64) -> AdapterWeights {
        let mut weights = self.map.clone();
        for (number, site) in self.sites.iter().enumerate() {
            let Some(w) = weights.get_mut(&site.site) else { continue };
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            rng.set_stream((number as u64) << 32 | index);
            let rows: Vec<usize> = match &site.output_rows {
                Some(rows) => rows.clone(),
                None => (0..w.nrows()).collect(),
            };
            let z = Array2::from_shape_fn((rows.len(), w.ncols()), |_| StandardNormal.sample(&mut rng));
            let draw = site.shape_draw(&z, self.precision);
            for (row, deviation) in rows.into_iter().zip(draw.outer_iter()) {
                let mut target = w.row_mut(row);
                target += &deviation;
            }
        }
        weights
    }
}
