//! Tunes prior precisions on labelled held-out items, without a second pass through the network.

use super::block::Block;
use super::groups::Group;
use super::jacobians::{LogitJacobians, repetitions_in};
use super::laplace::Laplace;
use crate::batches::for_each_batch;
use crate::belief::{LinkApprox, LogitBelief, LogitGauge};
use crate::curvature::Projection;
use crate::data::{BatchLimits, BatchOrder};
use crate::error::{Error, Result};
use crate::likelihood::{SharedLikelihood, Target};
use crate::models::{Classifier, Dataset, activation_budget, known_targets};
use crate::prior::{PriorPrecision, PriorPrecisions};
use crate::progress::Control;
use crate::search::{Line, Search, SearchEnd};
use ndarray::{Array2, Array3, Array4, Axis, s};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Ratio of neighbouring eigenvalue levels is `e^LEVEL_WIDTH`. A covariance read off the levels is exact to less than
/// this, and to its square where eigenvalues spread evenly within a level.
const LEVEL_WIDTH: f64 = 0.02;

/// The search of log λ: a grid that spans the curvature's eigenvalues and `e^±NEAR` around its start, which grows until the mean NLL is
/// level to 1e-7 nats over a factor e⁴. Beyond the eigenvalues every part of a variance is in proportion to 1/λ or constant, so that
/// what is level there stays so.
const LINE: Line = Line { step: 0.5, width: 1e-4, level: 1e-7, limit: 300.0 };
const NEAR: f64 = 4.0;
/// Eigenvalues below this share of the largest are rounding.
const ROUNDING: f64 = 1e-12;
/// Most rounds over the groups.
const MAX_ROUNDS: usize = 20;
/// A round that improves the mean NLL by less than this, in nats, is the last.
const IMPROVEMENT: f64 = 1e-7;

/// Labelled items with what their covariance takes at **any** prior precision.
///
/// `Cov_ce(λ) = Σ_g Σ_l E_g,l,ce / (λ_g + e_l)`, with `E_l,ce = Σ_{i: e_i ≈ e_l} P_c,i P_e,i` summed over directions of
/// nearly the same curvature: a few numbers an item in place of its Jacobians.
#[derive(Debug, Clone)]
pub struct HeldOut {
    batches: Vec<(Vec<usize>, Arc<LogitJacobians>, Vec<GroupEnergies>)>,
    targets: Vec<Target>,
    likelihood: SharedLikelihood,
    gauge: LogitGauge,
    n_classes: usize,
    temperature: f64,
    groups: Vec<GroupRange>,
}

/// What a prior group is called in searches, and the range of its eigenvalues in logarithms; none without curvature.
#[derive(Debug, Clone)]
struct GroupRange {
    sought: String,
    range: Option<(f64, f64)>,
}

/// Energies of one group's directions by level.
#[derive(Debug, Clone)]
struct GroupEnergies {
    /// Eigenvalue of each level, `[levels]`.
    levels: Vec<f64>,
    /// `[n_items, levels, K, K]`
    energies: Array4<f64>,
}

/// Prior precisions found on held-out items.
#[derive(Debug, Clone, PartialEq)]
pub struct TunedPrior {
    /// One a group.
    pub precisions: PriorPrecisions,
    /// Mean negative log-likelihood of the held-out items there, in nats.
    pub mean_nll: f64,
    /// How often the likelihood was evaluated.
    pub evaluations: usize,
    /// How the search ended, one a group.
    pub searches: Vec<Search>,
}

/// Which level each direction of each block belongs to, group by group.
struct Levels {
    values: Vec<Vec<f64>>,
    kept: Vec<Vec<usize>>,
    missing: Vec<Vec<usize>>,
}

impl Levels {
    fn new(laplace: &Laplace) -> Self {
        let n_groups = laplace.groups().len();
        // eigenvalues of zero have a level of their own
        let key = |e: f64| if e > 0.0 { (e.ln() / LEVEL_WIDTH).floor() as i64 } else { i64::MIN };
        let mut members: Vec<BTreeMap<i64, (f64, usize)>> = vec![BTreeMap::new(); n_groups];
        let pairs = || laplace.blocks().iter().zip(laplace.group_of());
        for (block, &group) in pairs() {
            let (kept, missing) = block.eigenvalues();
            for &e in kept.iter().chain(missing) {
                let (sum, count) = members[group].entry(key(e)).or_insert((0.0, 0));
                *sum += e;
                *count += 1;
            }
        }
        let index = |group: usize, e: f64| members[group].keys().position(|k| *k == key(e)).unwrap_or(0);
        let places = |pick: fn(&Block) -> Vec<f64>| -> Vec<Vec<usize>> {
            pairs().map(|(block, &group)| pick(block).into_iter().map(|e| index(group, e)).collect()).collect()
        };
        Self {
            kept: places(|block| block.eigenvalues().0.to_vec()),
            missing: places(|block| block.eigenvalues().1.to_vec()),
            values: members.iter().map(|m| m.values().map(|(sum, n)| sum / *n as f64).collect()).collect(),
        }
    }

    fn energies(&self, laplace: &Laplace, projections: &[Projection]) -> Vec<GroupEnergies> {
        let (n, k, _) = projections.first().map_or((0, 0, 0), |p| p.coefficients.dim());
        let mut groups: Vec<GroupEnergies> = self
            .values
            .iter()
            .map(|levels| GroupEnergies { levels: levels.clone(), energies: Array4::zeros((n, levels.len(), k, k)) })
            .collect();
        for (index, (projection, &group)) in projections.iter().zip(laplace.group_of()).enumerate() {
            let energies = &mut groups[group].energies;
            for b in 0..n {
                let p = projection.coefficients.index_axis(Axis(0), b);
                for (i, &level) in self.kept[index].iter().enumerate() {
                    for c in 0..k {
                        for e in 0..k {
                            energies[[b, level, c, e]] += p[[c, i]] * p[[e, i]];
                        }
                    }
                }
                if let Some(outside) = &projection.outside {
                    for (j, &level) in self.missing[index].iter().enumerate() {
                        let mut target = energies.slice_mut(s![b, level, .., ..]);
                        target += &outside.slice(s![b, j, .., ..]);
                    }
                }
            }
        }
        groups
    }
}

impl GroupRange {
    fn new(group: &Group, n_groups: usize) -> Self {
        let range = group.spectrum.range().ok().map(|(largest, _)| {
            let held = group.spectrum.values.iter().map(|(e, _)| *e).filter(|e| *e > ROUNDING * largest);
            (held.fold(largest, f64::min).ln(), largest.ln())
        });
        Self { sought: group.sought(n_groups), range }
    }

    /// What a search of shifts of log λ from `centre` must span.
    fn span(&self, centre: f64) -> (f64, f64) {
        let (low, high) = self.range.unwrap_or((centre, centre));
        ((low - centre).min(-NEAR), (high - centre).max(NEAR))
    }
}

impl HeldOut {
    /// Runs the network once over labelled items that the adapter was not trained on.
    ///
    /// # Errors
    /// If a target is missing or is none for its item, a logit is not finite, the posterior belongs to another adapter or was fitted
    /// on questions asked in another way, or the caller cancels.
    pub fn new<M: Classifier, D: Dataset<Input = M::Input>>(
        model: &M,
        laplace: &Laplace,
        data: &D,
        limits: &BatchLimits,
        control: &Control,
    ) -> Result<Self> {
        let mut all = Self::for_all(model, &[laplace], data, limits, control)?;
        Ok(all.swap_remove(0))
    }

    /// The same for several posteriors of one model and one likelihood, which share every pass through the network.
    ///
    /// # Errors
    /// As [`HeldOut::new`]; if there is no posterior, or they have different likelihoods.
    pub fn for_all<M: Classifier, D: Dataset<Input = M::Input>>(
        model: &M,
        laplaces: &[&Laplace],
        data: &D,
        limits: &BatchLimits,
        control: &Control,
    ) -> Result<Vec<Self>> {
        let model = model.valid();
        laplaces.iter().try_for_each(|laplace| laplace.check_answers(&model, data))?;
        let n_classes = model.n_classes();
        let first = laplaces.first().ok_or_else(|| Error::empty("list of posteriors"))?;
        let likelihood = first.likelihood();
        if let Some(other) = laplaces.iter().map(|laplace| laplace.likelihood()).find(|other| *other != likelihood) {
            return Err(Error::Incompatible(format!(
                "posteriors of different likelihoods, `{likelihood}` and `{other}`, share no pass over held-out items"
            )));
        }
        let targets = known_targets(data, &**likelihood, n_classes)?;
        let levels: Vec<Levels> = laplaces.iter().map(|laplace| Levels::new(laplace)).collect();
        let gauge = first.gauge(LinkApprox::default());
        let sites = laplaces.iter().flat_map(|laplace| laplace.sites()).collect();
        let plan = data.plan(limits.shared_by(repetitions_in(gauge, data, n_classes)), BatchOrder::ByLength)?;
        let budget = activation_budget(&model, control, "held-out Jacobians");
        let work = |indices: &[usize]| {
            let mut batch = LogitJacobians::new(&model, data, indices, gauge, (&sites, &budget))?;
            for (row, &item) in indices.iter().enumerate() {
                let present: Vec<bool> = batch.logits.row(row).iter().map(|v| v.is_finite()).collect();
                likelihood.check_target(&data.item_id(item), &targets[item], &present)?;
            }
            let energies = laplaces
                .iter()
                .zip(&levels)
                .map(|(laplace, levels)| Ok(levels.energies(laplace, &laplace.project_jacobians(&batch.sites)?)));
            let energies = energies.collect::<Result<Vec<_>>>()?;
            batch.sites.clear();
            Ok((Arc::new(batch), energies))
        };
        let of = |laplace: &&Laplace| Self {
            batches: Vec::new(),
            targets: targets.clone(),
            likelihood: likelihood.clone(),
            gauge,
            n_classes,
            temperature: laplace.temperature(),
            groups: laplace.groups().iter().map(|group| GroupRange::new(group, laplace.groups().len())).collect(),
        };
        let mut all: Vec<Self> = laplaces.iter().map(of).collect();
        for_each_batch("held-out items", &plan, control, work, |indices, (batch, energies)| {
            for (held_out, energies) in all.iter_mut().zip(energies) {
                held_out.batches.push((indices.to_vec(), batch.clone(), energies));
            }
            Ok(())
        })?;
        Ok(all)
    }

    /// The items' targets, in the data's order.
    pub fn targets(&self) -> &[Target] {
        &self.targets
    }

    /// The items' labels, in the data's order.
    ///
    /// # Errors
    /// If a target is not a class.
    pub fn labels(&self) -> Result<Vec<usize>> {
        Target::classes(&self.targets, "held-out items")
    }

    /// What the posterior under other prior precisions says about the items, in the data's order.
    ///
    /// # Errors
    /// If there is neither one precision nor one for each group.
    pub fn belief(&self, precisions: &PriorPrecisions) -> Result<LogitBelief> {
        precisions.check_count(self.groups.len())?;
        let n = self.targets.len();
        let mut mean = Array2::zeros((n, self.n_classes));
        let mut covariance = Array3::zeros((n, self.n_classes, self.n_classes));
        for (indices, batch, groups) in &self.batches {
            let (b, _, k, _) = groups[0].energies.dim();
            let mut of_combinations = Array3::zeros((b, k, k));
            for (group, energies) in groups.iter().enumerate() {
                let lambda = precisions.of(group).value();
                for (level, e) in energies.levels.iter().enumerate() {
                    let part = energies.energies.index_axis(Axis(1), level);
                    of_combinations.scaled_add(self.temperature / (lambda + e), &part);
                }
            }
            let of_classes = batch.to_classes(of_combinations);
            for (row, &item) in indices.iter().enumerate() {
                mean.row_mut(item).assign(&batch.logits.row(row));
                covariance.index_axis_mut(Axis(0), item).assign(&of_classes.index_axis(Axis(0), row));
            }
        }
        Ok(LogitBelief::Gaussian { mean, covariance, gauge: self.gauge })
    }

    /// Mean negative log-likelihood of the targets under the likelihood of the posterior, in nats.
    ///
    /// # Errors
    /// As [`HeldOut::belief`], and those of the link.
    pub fn mean_nll(&self, precisions: &PriorPrecisions, link: LinkApprox) -> Result<f64> {
        if link.needs_raw_covariance() && self.gauge == LogitGauge::Centred {
            return Err(Error::Incompatible(format!(
                "{link:?} reads raw variances, but held-out items keep those of centred logits: tune with another link"
            )));
        }
        let losses = self.likelihood.log_predictive(&self.belief(precisions)?, &self.targets, link)?;
        Ok(-losses.iter().sum::<f64>() / losses.len() as f64)
    }

    /// The prior precisions with the least mean NLL: a grid in log λ, then golden sections, group after group until a round
    /// gains nothing.
    ///
    /// The grid grows from the range of the curvature's eigenvalues until the least NLL lies inside, or until λ changes it no more, by
    /// 1e-7 nats over a factor e⁴. [`TunedPrior::searches`] says where a search ended: at the upper end the items ask for the
    /// trained adapter alone, at the lower one for a flat prior.
    ///
    /// # Errors
    /// As [`HeldOut::mean_nll`].
    pub fn tune(&self, start: &PriorPrecisions, link: LinkApprox) -> Result<TunedPrior> {
        start.check_count(self.groups.len())?;
        let precisions_at = |logs: &[f64]| {
            PriorPrecisions::new(logs.iter().map(|log| PriorPrecision::new(log.exp())).collect::<Result<_>>()?)
        };
        let centre: Vec<f64> = (0..self.groups.len()).map(|group| start.of(group).value().ln()).collect();
        let mut evaluations = 0;
        let mut nll = |logs: &[f64]| -> Result<f64> {
            evaluations += 1;
            self.mean_nll(&precisions_at(logs)?, link)
        };
        // all groups together first: that is the whole search where there is one group
        let spans = self.groups.iter().zip(&centre).map(|(group, centre)| group.span(*centre));
        let span = spans.fold((0.0f64, 0.0f64), |all, own| (all.0.min(own.0), all.1.max(own.1)));
        let shifted = |shift: f64| centre.iter().map(|c| c + shift).collect::<Vec<f64>>();
        let found = LINE.minimize(span, |shift| nll(&shifted(shift)))?;
        let (mut logs, mut best) = (shifted(found.at), found.value);
        // of each group, in log λ
        let mut ends: Vec<((f64, f64), SearchEnd)> =
            centre.iter().map(|c| ((c + found.bounds.0, c + found.bounds.1), found.end)).collect();
        for _ in 0..if self.groups.len() > 1 { MAX_ROUNDS } else { 0 } {
            let before = best;
            for (index, group) in self.groups.iter().enumerate() {
                let (own, mut moved) = (logs[index], logs.clone());
                let found = LINE.minimize(group.span(own), |shift| {
                    moved[index] = own + shift;
                    nll(&moved)
                })?;
                ends[index] = ((own + found.bounds.0, own + found.bounds.1), found.end);
                // an end that is level with the best is taken too, so that the value is where its search says it is
                let at_end = matches!(found.end, SearchEnd::AtLower | SearchEnd::AtUpper);
                if found.value < best || at_end && found.value <= best + LINE.level {
                    (best, logs[index]) = (found.value, own + found.at);
                }
            }
            if before - best < IMPROVEMENT {
                break;
            }
        }
        let searches = self.groups.iter().zip(&logs).zip(ends).map(|((group, log), ((low, high), end))| {
            let search = Search::new(&group.sought, log.exp(), (low.exp(), high.exp()), end);
            search.with_meaning(match end {
                SearchEnd::Inside => "",
                SearchEnd::AtLower => {
                    "the held-out items ask for a flat prior, the widest posterior that the curvature leaves"
                }
                SearchEnd::AtUpper => "the held-out items ask for the trained adapter alone",
                SearchEnd::Undetermined => "no value of it changes the likelihood of the held-out items",
            })
        });
        let searches = searches.collect();
        Ok(TunedPrior { precisions: precisions_at(&logs)?, mean_nll: best, evaluations, searches })
    }
}

impl Laplace {
    /// The same posterior under the prior precisions that suit held-out items best, with how they were found.
    ///
    /// # Errors
    /// As [`Laplace::with_prior_precisions`].
    pub fn with_tuned_prior(self, tuned: TunedPrior) -> Result<Self> {
        let mut laplace = self.with_prior_precisions(tuned.precisions)?;
        laplace.set_prior_searches(tuned.searches);
        Ok(laplace)
    }
}
