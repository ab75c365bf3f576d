//! The Laplace approximation: a Gaussian around the trained adapter.

use super::agreement::check_fits;
use super::answers::AnswerTemperatures;
use super::block::Block;
use super::config::LaplaceConfig;
use super::evidence::EvidenceOptimum;
use super::fitted_on::FittedOn;
use super::groups::{Group, group_blocks};
use crate::belief::{LinkApprox, LogitBelief, LogitGauge};
use crate::curvature::{Curvature, CurvatureStructure, Probe, Projection};
use crate::error::{Error, Result};
use crate::likelihood::SharedLikelihood;
use crate::lora::{Adaptable, AdapterSampler, AdapterWeights, prior_centre, read_adapter};
use crate::models::Dataset;
use crate::prior::{PriorChoice, PriorGrouping, PriorPrecision, PriorPrecisions};
use crate::search::Search;
use crate::tape::Site;
use ndarray::{Array3, Array4};
use std::collections::{BTreeMap, BTreeSet};

/// The posterior `N(θ*, T·(H + λI)⁻¹)` over the weights of an adapter, with `H` in any structure.
///
/// Yang et al. (2023), arXiv 2308.13111; Daxberger et al. (2021), arXiv 2106.14806.
#[derive(Debug, Clone)]
pub struct Laplace {
    structure: CurvatureStructure,
    grouping: PriorGrouping,
    blocks: Vec<Block>,
    /// The group of each block, an index into `groups`.
    group_of: Vec<usize>,
    groups: Vec<Group>,
    map: AdapterWeights,
    centre: AdapterWeights,
    precisions: PriorPrecisions,
    /// How they were found, one a group; empty where they were given.
    searches: Vec<Search>,
    temperature: f64,
    answers: Option<AnswerTemperatures>,
    likelihood: SharedLikelihood,
    log_likelihood: Option<f64>,
    fitted_on: FittedOn,
    any_way_of_asking: bool,
}

impl Laplace {
    /// Decomposes the curvature once, and sets the prior precision as configured, where that needs no more than the curvature.
    ///
    /// # Errors
    /// If the prior is chosen by the training items ([`Laplace::fit`]), the model has no adapter or another than the curvature, the prior's centre is unknown, the structure couples weights
    /// of different prior groups, or the evidence has no optimum.
    pub fn new<M: Adaptable>(model: &M, curvature: &Curvature, config: &LaplaceConfig) -> Result<Self> {
        let start = match config.prior {
            PriorChoice::Fixed(precision) => precision,
            PriorChoice::Evidence => PriorPrecision::new(1.0)?,
            choice @ (PriorChoice::EvidenceAtMode | PriorChoice::Matched | PriorChoice::MatchedOrEvidence) => {
                return Err(Error::Incompatible(format!(
                    "a prior precision {choice} needs the training items, not their curvature alone: `Laplace::fit` takes them"
                )));
            }
        };
        let map = read_adapter(model)?;
        let centre = prior_centre(model, config.prior_mean)?;
        let blocks = Block::all(curvature, !config.without_residual)?;
        if blocks.is_empty() {
            return Err(Error::empty("curvature"));
        }
        check_fits(curvature, &blocks, &map)?;
        let (groups, group_of) =
            group_blocks(&blocks, config.prior_grouping, curvature.config.structure, &map, &centre)?;
        let mut laplace = Self::from_parts(
            (curvature.config.structure, config.prior_grouping),
            (blocks, group_of, groups),
            (map, centre),
            start.into(),
            (curvature.config.likelihood_or_default(), curvature.log_likelihood, FittedOn::curvature(curvature)),
        )
        .with_temperature(config.temperature)?;
        if config.prior == PriorChoice::Evidence {
            laplace = laplace.with_optimal_prior()?;
        }
        Ok(laplace)
    }

    /// A posterior at temperature 1.
    pub(super) fn from_parts(
        (structure, grouping): (CurvatureStructure, PriorGrouping),
        (blocks, group_of, groups): (Vec<Block>, Vec<usize>, Vec<Group>),
        (map, centre): (AdapterWeights, AdapterWeights),
        precisions: PriorPrecisions,
        (likelihood, log_likelihood, fitted_on): (SharedLikelihood, Option<f64>, FittedOn),
    ) -> Self {
        Self {
            structure,
            grouping,
            blocks,
            group_of,
            groups,
            map,
            centre,
            precisions,
            searches: Vec::new(),
            temperature: 1.0,
            answers: None,
            likelihood,
            log_likelihood,
            fitted_on,
            any_way_of_asking: false,
        }
    }

    /// The prior precisions in use, one a group or one for all.
    pub fn prior_precisions(&self) -> &PriorPrecisions {
        &self.precisions
    }

    /// How the prior precisions were found, one search a group; empty where they were given.
    pub fn prior_searches(&self) -> &[Search] {
        &self.searches
    }

    pub(super) fn set_prior_searches(&mut self, searches: Vec<Search>) {
        self.searches = searches;
    }

    /// The temperatures of its answers, where they were found on the training items.
    pub fn answer_temperatures(&self) -> Option<&AnswerTemperatures> {
        self.answers.as_ref()
    }

    /// The same posterior whose answers have these temperatures, until its prior changes, or none.
    pub fn with_answer_temperatures(mut self, temperatures: impl Into<Option<AnswerTemperatures>>) -> Self {
        self.answers = temperatures.into();
        self
    }

    /// The belief with the temperature of the posterior's answers, where it has one.
    pub(crate) fn answered(&self, belief: LogitBelief) -> LogitBelief {
        match &self.answers {
            Some(answers) => answers.apply(&belief),
            None => belief,
        }
    }

    /// The same posterior under other prior precisions; nothing is fitted again, and temperatures of its answers are forgotten.
    ///
    /// # Errors
    /// If there is neither one nor one for each group.
    pub fn with_prior_precisions(mut self, precisions: impl Into<PriorPrecisions>) -> Result<Self> {
        let precisions = precisions.into();
        precisions.check_count(self.groups.len())?;
        (self.precisions, self.searches, self.answers) = (precisions, Vec::new(), None);
        Ok(self)
    }

    /// The same posterior under the prior precisions with the most evidence.
    ///
    /// # Errors
    /// As [`Laplace::optimize_prior`].
    pub fn with_optimal_prior(self) -> Result<Self> {
        let optima = self.optimize_prior()?;
        let precisions = PriorPrecisions::new(optima.iter().map(|o| o.precision).collect())?;
        let mut laplace = self.with_prior_precisions(precisions)?;
        laplace.searches = optima.into_iter().map(|o| o.search).collect();
        Ok(laplace)
    }

    /// The same posterior with its covariance multiplied by `temperature`.
    ///
    /// # Errors
    /// If it is not positive and finite.
    pub fn with_temperature(mut self, temperature: f64) -> Result<Self> {
        LaplaceConfig { temperature, ..LaplaceConfig::default() }.validate()?;
        self.temperature = temperature;
        Ok(self)
    }

    /// How the curvature is held.
    pub fn structure(&self) -> CurvatureStructure {
        self.structure
    }

    /// Which weights share a prior precision.
    pub fn prior_grouping(&self) -> PriorGrouping {
        self.grouping
    }

    /// How targets depend on the model's outputs.
    pub fn likelihood(&self) -> &SharedLikelihood {
        &self.likelihood
    }

    /// The gauge of the logits in which a linearised prediction with `link` is right.
    pub fn gauge(&self, link: LinkApprox) -> LogitGauge {
        if self.likelihood.is_shift_invariant() { LogitGauge::of(link) } else { LogitGauge::Raw }
    }

    /// `Σ log p(y | x, θ*)` over the training data in nats; `None` if a target was unknown.
    pub fn log_likelihood(&self) -> Option<f64> {
        self.log_likelihood
    }

    /// The data whose curvature it holds.
    pub fn fitted_on(&self) -> &FittedOn {
        &self.fitted_on
    }

    /// The same posterior, which answers questions that are asked in another way than those that it was fitted on, too: its
    /// uncertainty is then about other prompts than it has seen. Not a part of its file.
    pub fn with_any_way_of_asking(mut self) -> Self {
        self.any_way_of_asking = true;
        self
    }

    /// As [`FittedOn::check_asked`], unless the caller insists.
    pub(super) fn check_asked<D: Dataset>(&self, data: &D) -> Result<()> {
        if self.any_way_of_asking { Ok(()) } else { self.fitted_on.check_asked(data) }
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

    /// The matrices whose Jacobians the posterior reads.
    pub fn sites(&self) -> BTreeSet<Site> {
        self.blocks.iter().flat_map(Block::spaces).map(|space| space.site.clone()).collect()
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
        precisions.check_count(self.groups.len())?;
        Ok(self.over_groups(&precisions, |group, precision| group.spectrum.log_det_ratio(precision)))
    }

    /// `Σ e/(λ + e)`, the effective number of parameters at the present prior.
    pub fn effective_dimension(&self) -> f64 {
        self.over_groups(&self.precisions, |group, precision| group.spectrum.effective_dimension(precision))
    }

    /// `log Z(λ) = Σ log p(y | x, θ*) − ½ Σ_groups λ‖θ* − μ‖² − ½ log det(H/λ + I)` in nats, over the training data.
    ///
    /// # Errors
    /// If the curvature was fitted without targets, or there is neither one precision nor one for each group.
    pub fn log_marginal_likelihood(&self, precisions: impl Into<PriorPrecisions>) -> Result<f64> {
        let precisions = precisions.into();
        precisions.check_count(self.groups.len())?;
        let fit = self
            .log_likelihood
            .ok_or_else(|| Error::Incompatible("the evidence needs the labels of the training data".into()))?;
        Ok(fit + self.over_groups(&precisions, Group::log_evidence))
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
            let mut optimum = group.optimize().map_err(|e| match e {
                Error::Numerical { what, reason } if self.groups.len() > 1 => {
                    Error::Numerical { what, reason: format!("group `{}`: {reason}", group.name) }
                }
                other => other,
            })?;
            optimum.search.quantity = group.sought(self.groups.len());
            Ok(optimum)
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
                let probed = probed.ok_or_else(|| {
                    let seen: Vec<String> = probe.sites.iter().take(3).map(|s| format!("`{}`", s.site)).collect();
                    Error::Incompatible(format!(
                        "the posterior is about `{}`, the batch about {} sites such as {}",
                        space.site,
                        probe.sites.len(),
                        seen.join(", ")
                    ))
                })?;
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
        let find = |site: &Site| {
            let missing = || Error::Incompatible(format!("the posterior is about `{site}`, which the Jacobians lack"));
            jacobians.get(site).map(|j| j.view()).ok_or_else(missing)
        };
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
        precisions.check_count(self.groups.len())?;
        let mut covariance = projections.first().map_or_else(|| Array3::zeros((0, 0, 0)), |p| p.gram() * 0.0);
        for ((block, projection), &group) in self.blocks.iter().zip(projections).zip(&self.group_of) {
            block.add_covariance(projection, precisions.of(group), &mut covariance);
        }
        Ok(covariance * self.temperature)
    }

    /// Draw number `index` of the adapter, a function of (seed, site, index) alone.
    pub fn sample(&self, seed: u64, index: u64) -> AdapterWeights {
        let mut weights = self.map.clone();
        for (block, &group) in self.blocks.iter().zip(&self.group_of) {
            block.add_draw(self.precisions.of(group), self.temperature, (seed, index), &mut weights);
        }
        weights
    }
}

impl AdapterSampler for Laplace {
    fn draw(&self, seed: u64, index: u64) -> Result<AdapterWeights> {
        Ok(self.sample(seed, index))
    }
}
