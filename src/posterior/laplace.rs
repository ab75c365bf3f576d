//! The Laplace approximation: a Gaussian around the trained adapter.

use super::block::Block;
use super::evidence::{EvidenceOptimum, Spectrum};
use crate::curvature::{Coordinates, Curvature, Probe, Projection, SiteSpace, adapter_fingerprint};
use crate::error::{Error, Result};
use crate::lora::{Adaptable, AdapterWeights, prior_centre, read_adapter};
use crate::prior::{PriorGrouping, PriorMean, PriorPrecision, PriorPrecisions};
use crate::tape::Site;
use ndarray::{Array2, Array3, Array4};
use std::collections::BTreeMap;

/// How the posterior is built from the curvature.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LaplaceConfig {
    /// Centre of the prior.
    pub prior_mean: PriorMean,
    /// Which weights share a prior precision.
    pub prior_grouping: PriorGrouping,
    /// A fixed prior precision for all weights; `None` maximises the evidence, group by group.
    pub prior_precision: Option<PriorPrecision>,
    /// Factor T on the posterior covariance: below 1 a cold posterior, above 1 a warm one. No part of the evidence.
    pub temperature: f64,
    /// Forget the trace that low-rank factors discarded instead of keeping it as an isotropic rest.
    pub without_residual: bool,
}

impl Default for LaplaceConfig {
    /// One precision for all weights by evidence, prior around the start where it is known, temperature 1.
    fn default() -> Self {
        Self {
            prior_mean: PriorMean::default(),
            prior_grouping: PriorGrouping::default(),
            prior_precision: None,
            temperature: 1.0,
            without_residual: false,
        }
    }
}

/// The posterior `N(θ*, T·(H + λI)⁻¹)` over the weights of an adapter, with `H` in any structure.
///
/// Yang et al. (2023), arXiv 2308.13111; Daxberger et al. (2021), arXiv 2106.14806.
#[derive(Debug, Clone)]
pub struct Laplace {
    blocks: Vec<Block>,
    /// The group of each block, an index into `groups`.
    group_of: Vec<usize>,
    groups: Vec<Group>,
    map: AdapterWeights,
    centre: AdapterWeights,
    precisions: PriorPrecisions,
    temperature: f64,
    log_likelihood: Option<f64>,
}

/// The weights that share one prior precision.
#[derive(Debug, Clone, PartialEq)]
pub struct Group {
    /// What they have in common, such as `model.layers.3` or `lora_A`.
    pub name: String,
    /// Eigenvalues of their curvature.
    pub spectrum: Spectrum,
    /// `‖θ* − μ‖²` of them.
    pub scatter: f64,
}

impl Laplace {
    /// Decomposes the curvature once, and sets the prior precision as configured.
    ///
    /// # Errors
    /// If the model has no adapter or another than the curvature, the prior's centre is unknown, the structure couples weights
    /// of different prior groups, or the evidence has no optimum.
    pub fn new<M: Adaptable>(model: &M, curvature: &Curvature, config: &LaplaceConfig) -> Result<Self> {
        if !(config.temperature > 0.0 && config.temperature.is_finite()) {
            return Err(Error::config("temperature", "positive and finite", config.temperature));
        }
        let map = read_adapter(model)?;
        if adapter_fingerprint(&map) != curvature.adapter_fingerprint {
            return Err(Error::Incompatible(format!(
                "the curvature was fitted at another adapter than the model's (fingerprints {:016x} and {:016x})",
                curvature.adapter_fingerprint,
                adapter_fingerprint(&map)
            )));
        }
        let centre = prior_centre(model, config.prior_mean)?;
        let blocks = Block::all(curvature, !config.without_residual)?;
        let (mut groups, mut group_of): (Vec<Group>, Vec<usize>) = (Vec::new(), Vec::new());
        for block in &blocks {
            let mut name = None;
            for space in block.spaces() {
                check_fits(space, map.get(&space.site))?;
                let own = group_name(config.prior_grouping, space)?;
                if name.as_ref().is_some_and(|name| *name != own) {
                    return Err(Error::Incompatible(format!(
                        "a {} posterior couples all its weights, so it takes one prior precision, not {:?}",
                        curvature.config.structure, config.prior_grouping
                    )));
                }
                name = Some(own);
            }
            let name = name.unwrap_or_default();
            let index = groups.iter().position(|group| group.name == name).unwrap_or_else(|| {
                groups.push(Group { name, spectrum: Spectrum::default(), scatter: 0.0 });
                groups.len() - 1
            });
            block.extend(&mut groups[index].spectrum);
            groups[index].scatter += block.spaces().iter().map(|space| scatter(space, &map, &centre)).sum::<f64>();
            group_of.push(index);
        }
        let mut laplace = Self {
            blocks,
            group_of,
            groups,
            map,
            centre,
            precisions: config.prior_precision.unwrap_or(PriorPrecision::new(1.0)?).into(),
            temperature: config.temperature,
            log_likelihood: curvature.log_likelihood,
        };
        if config.prior_precision.is_none() {
            let optima = laplace.optimize_prior()?;
            laplace.precisions = PriorPrecisions::new(optima.into_iter().map(|o| o.precision).collect())?;
        }
        Ok(laplace)
    }

    /// The prior precisions in use, one a group or one for all.
    pub fn prior_precisions(&self) -> &PriorPrecisions {
        &self.precisions
    }

    /// The same posterior under other prior precisions; nothing is fitted again.
    ///
    /// # Errors
    /// If there is neither one nor one for each group.
    pub fn with_prior_precisions(mut self, precisions: impl Into<PriorPrecisions>) -> Result<Self> {
        let precisions = precisions.into();
        self.check_count(&precisions)?;
        self.precisions = precisions;
        Ok(self)
    }

    /// The same posterior with its covariance multiplied by `temperature`.
    ///
    /// # Errors
    /// If it is not positive and finite.
    pub fn with_temperature(mut self, temperature: f64) -> Result<Self> {
        if !(temperature > 0.0 && temperature.is_finite()) {
            return Err(Error::config("temperature", "positive and finite", temperature));
        }
        self.temperature = temperature;
        Ok(self)
    }

    fn check_count(&self, precisions: &PriorPrecisions) -> Result<()> {
        let found = precisions.len();
        if found != 1 && found != self.groups.len() {
            return Err(Error::Count { what: "prior precisions".into(), expected: self.groups.len(), found });
        }
        Ok(())
    }

    /// The trained adapter θ*.
    pub fn map(&self) -> &AdapterWeights {
        &self.map
    }

    /// The centre μ of the prior.
    pub(super) fn centre(&self) -> &AdapterWeights {
        &self.centre
    }

    /// The curvature, block by block.
    pub fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    /// The groups of weights that share a prior precision.
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// The group of each block, an index into [`Laplace::groups`].
    pub(super) fn group_of(&self) -> &[usize] {
        &self.group_of
    }

    /// The covariance's factor T.
    pub fn temperature(&self) -> f64 {
        self.temperature
    }

    /// `log det(H/λ + I)`
    ///
    /// # Errors
    /// If there is neither one precision nor one for each group.
    pub fn log_det_ratio(&self, precisions: impl Into<PriorPrecisions>) -> Result<f64> {
        let precisions = precisions.into();
        self.check_count(&precisions)?;
        Ok(self.over_groups(&precisions, |group, precision| group.spectrum.log_det_ratio(precision)))
    }

    /// `Σ e/(λ + e)`, the effective number of parameters at the present prior.
    pub fn effective_dimension(&self) -> f64 {
        self.over_groups(&self.precisions, |group, precision| group.spectrum.effective_dimension(precision))
    }

    /// `log Z(λ) = Σ log p(y | x, θ*) − ½ Σ_groups λ‖θ* − μ‖² − ½ log det(H/λ + I)` in nats, over the training data.
    ///
    /// # Errors
    /// If the curvature was fitted without labels, or there is neither one precision nor one for each group.
    pub fn log_marginal_likelihood(&self, precisions: impl Into<PriorPrecisions>) -> Result<f64> {
        let precisions = precisions.into();
        let log_det_ratio = self.log_det_ratio(&precisions)?;
        let fit = self
            .log_likelihood
            .ok_or_else(|| Error::Incompatible("the evidence needs the labels of the training data".into()))?;
        let scatter = self.over_groups(&precisions, |group, precision| precision.value() * group.scatter);
        Ok(fit - 0.5 * scatter - 0.5 * log_det_ratio)
    }

    fn over_groups(&self, precisions: &PriorPrecisions, term: impl Fn(&Group, PriorPrecision) -> f64) -> f64 {
        self.groups.iter().enumerate().map(|(g, group)| term(group, precisions.of(g))).sum()
    }

    /// The prior precisions that maximise the evidence, one a group: the groups do not interact.
    ///
    /// # Errors
    /// If a group has no optimum: zero curvature, or θ* = μ.
    pub fn optimize_prior(&self) -> Result<Vec<EvidenceOptimum>> {
        let optimum = |group: &Group| {
            group.spectrum.maximize(group.scatter).map_err(|e| match e {
                Error::Numerical { what, reason } if self.groups.len() > 1 => {
                    Error::Numerical { what, reason: format!("group `{}`: {reason}", group.name) }
                }
                other => other,
            })
        };
        self.groups.iter().map(optimum).collect()
    }

    /// Projects a batch's Jacobians on every block's directions; no prior enters.
    ///
    /// # Errors
    /// If the batch lacks a site of the posterior, or a shape differs.
    pub fn project(&self, probe: &Probe) -> Result<Vec<Projection>> {
        let mut jacobians = BTreeMap::new();
        for block in &self.blocks {
            for space in block.spaces() {
                let probed = probe.sites.iter().find(|probed| probed.site == space.site);
                let probed = probed.ok_or_else(|| missing_site(&space.site))?;
                jacobians.insert(space.site.clone(), probed.jacobians()?);
            }
        }
        self.project_jacobians(&jacobians)
    }

    /// The same from Jacobians `[n_items, K, d_out, d_in]` given site by site.
    ///
    /// # Errors
    /// As [`Laplace::project`].
    pub fn project_jacobians(&self, jacobians: &BTreeMap<Site, Array4<f64>>) -> Result<Vec<Projection>> {
        let find = |site: &Site| jacobians.get(site).map(|j| j.view()).ok_or_else(|| missing_site(site));
        self.blocks.iter().map(|block| block.project(find)).collect()
    }

    /// Posterior covariance of the K combinations that were probed, `[n_items, K, K]`, at any prior precisions.
    ///
    /// # Errors
    /// If there is neither one precision nor one for each group.
    pub fn covariance(
        &self,
        projections: &[Projection],
        precisions: impl Into<PriorPrecisions>,
    ) -> Result<Array3<f64>> {
        let precisions = precisions.into();
        self.check_count(&precisions)?;
        let mut covariance = projections.first().map_or_else(|| Array3::zeros((0, 0, 0)), |p| p.gram() * 0.0);
        for ((block, projection), &group) in self.blocks.iter().zip(projections).zip(&self.group_of) {
            block.add_covariance(projection, precisions.of(group), &mut covariance);
        }
        Ok(covariance * self.temperature)
    }

    /// Draw number `index` of the adapter, a function of (seed, site, index) alone.
    pub fn sample(&self, seed: u64, index: u64) -> AdapterWeights {
        let mut weights = self.map.clone();
        let mut number = 0;
        for (block, &group) in self.blocks.iter().zip(&self.group_of) {
            let precision = self.precisions.of(group);
            block.add_draw(precision, self.temperature, seed, number, index, &mut weights);
            number += block.spaces().len() as u64;
        }
        weights
    }
}

fn missing_site(site: &Site) -> Error {
    Error::Incompatible(format!("the posterior is about `{site}`, which the batch lacks"))
}

/// Name of a site's group; a core belongs to its module's layer, but to neither A nor B.
fn group_name(grouping: PriorGrouping, space: &SiteSpace) -> Result<String> {
    match (&space.coordinates, grouping) {
        (Coordinates::Core(_), PriorGrouping::PerMatrix | PriorGrouping::PerSite) => Err(Error::Incompatible(format!(
            "core space has no separate A and B, so a prior {grouping:?} has no meaning there"
        ))),
        _ => Ok(grouping.name(&space.site)),
    }
}

/// `‖θ* − μ‖²` of one site, or `‖R‖²` of a core (whose value at the adapter's start is zero, as B is).
fn scatter(space: &SiteSpace, map: &AdapterWeights, centre: &AdapterWeights) -> f64 {
    let square = |w: &Array2<f64>| w.iter().map(|v| v * v).sum::<f64>();
    match &space.coordinates {
        Coordinates::Core(core) => square(&core.map),
        _ => match (map.get(&space.site), centre.get(&space.site)) {
            (Some(map), Some(centre)) => square(&(map - centre)),
            _ => 0.0,
        },
    }
}

/// Checks that the model's `weight` at this site is the one the curvature was fitted for.
fn check_fits(space: &SiteSpace, weight: Option<&Array2<f64>>) -> Result<()> {
    let Some(weight) = weight else {
        return Err(Error::Incompatible(format!("the curvature is about `{}`, which the model lacks", space.site)));
    };
    let [rows, columns] = space.shape;
    let fits = match &space.output_rows {
        None => weight.nrows() == rows,
        Some(selected) => selected.len() == rows && selected.iter().all(|&row| row < weight.nrows()),
    };
    if !fits || weight.ncols() != columns {
        return Err(Error::Shape {
            what: format!("curvature at `{}`", space.site),
            expected: weight.shape().to_vec(),
            found: vec![rows, columns],
        });
    }
    Ok(())
}
