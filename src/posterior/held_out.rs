//! Tunes prior precisions on labelled held-out items, without a second pass through the network.

use super::block::Block;
use super::jacobians::{LogitJacobians, repetitions_in};
use super::laplace::Laplace;
use crate::batches::for_each_batch;
use crate::belief::{LinkApprox, LogitBelief, LogitGauge};
use crate::curvature::Projection;
use crate::data::{BatchLimits, BatchOrder};
use crate::error::{Error, Result};
use crate::models::{Classifier, Dataset, known_labels};
use crate::prior::{PriorPrecision, PriorPrecisions};
use crate::progress::Control;
use ndarray::{Array2, Array3, Array4, Axis, s};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Ratio of neighbouring eigenvalue levels is `e^LEVEL_WIDTH`. A covariance read off the levels is exact to less than
/// this, and to its square where eigenvalues spread evenly within a level.
const LEVEL_WIDTH: f64 = 0.02;

/// The search spans `e^±SPAN` around its start.
const SPAN: f64 = 14.0;
/// Steps of the grid on which the search begins, in log λ.
const STEP: f64 = 0.5;
/// Width in log λ at which it ends.
const TOLERANCE: f64 = 1e-4;
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
    labels: Vec<usize>,
    n_classes: usize,
    temperature: f64,
    n_groups: usize,
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

impl HeldOut {
    /// Runs the network once over labelled items that the adapter was not trained on.
    ///
    /// # Errors
    /// If a label is missing, a logit is not finite, the posterior belongs to another adapter, or the caller cancels.
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

    /// The same for several posteriors of one model, which share every pass through the network.
    ///
    /// # Errors
    /// As [`HeldOut::new`].
    pub fn for_all<M: Classifier, D: Dataset<Input = M::Input>>(
        model: &M,
        laplaces: &[&Laplace],
        data: &D,
        limits: &BatchLimits,
        control: &Control,
    ) -> Result<Vec<Self>> {
        let model = model.valid();
        laplaces.iter().try_for_each(|laplace| laplace.check_is_about(&model))?;
        let n_classes = model.n_classes();
        let labels = known_labels(data, n_classes)?;
        let levels: Vec<Levels> = laplaces.iter().map(|laplace| Levels::new(laplace)).collect();
        let gauge = LogitGauge::Centred;
        let sites = laplaces.iter().flat_map(|laplace| laplace.sites()).collect();
        let plan = data.plan(limits.shared_by(repetitions_in(gauge, data, n_classes)), BatchOrder::ByLength)?;
        let work = |indices: &[usize]| {
            let mut batch = LogitJacobians::new(&model, data, indices, gauge, &sites)?;
            for (row, &item) in indices.iter().enumerate() {
                let present = |c: &usize| batch.logits[[row, *c]].is_finite();
                if !present(&labels[item]) {
                    let (item, label) = (data.item_id(item), labels[item]);
                    return Err(Error::LabelOutOfRange {
                        item,
                        label,
                        n_classes: (0..n_classes).filter(present).count(),
                    });
                }
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
            labels: labels.clone(),
            n_classes,
            temperature: laplace.temperature(),
            n_groups: laplace.groups().len(),
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

    /// The items' labels, in the data's order.
    pub fn labels(&self) -> &[usize] {
        &self.labels
    }

    /// What the posterior under other prior precisions says about the items, in the data's order.
    ///
    /// # Errors
    /// If there is neither one precision nor one for each group.
    pub fn belief(&self, precisions: &PriorPrecisions) -> Result<LogitBelief> {
        precisions.check_count(self.n_groups)?;
        let n = self.labels.len();
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
        Ok(LogitBelief::Gaussian { mean, covariance, gauge: LogitGauge::Centred })
    }

    /// Mean negative log-likelihood of the labels, in nats.
    ///
    /// # Errors
    /// As [`HeldOut::belief`], and those of the link.
    pub fn mean_nll(&self, precisions: &PriorPrecisions, link: LinkApprox) -> Result<f64> {
        if link.needs_raw_covariance() {
            return Err(Error::Incompatible(format!(
                "{link:?} reads raw variances, but held-out items keep those of centred logits: tune with another link"
            )));
        }
        let probabilities = self.belief(precisions)?.probabilities(link)?;
        let sum: f64 = self.labels.iter().enumerate().map(|(item, &label)| -probabilities[[item, label]].ln()).sum();
        Ok(sum / self.labels.len() as f64)
    }

    /// The prior precisions with the least mean NLL: a grid in log λ, then golden sections, group after group until a round
    /// gains nothing.
    ///
    /// A minimum at the edge of the search (`e^±14` around `start`) is returned as it is: the items then ask for the
    /// trained adapter alone, or for a flat prior.
    ///
    /// # Errors
    /// As [`HeldOut::mean_nll`].
    pub fn tune(&self, start: &PriorPrecisions, link: LinkApprox) -> Result<TunedPrior> {
        start.check_count(self.n_groups)?;
        let precisions_at = |logs: &[f64]| {
            PriorPrecisions::new(logs.iter().map(|log| PriorPrecision::new(log.exp())).collect::<Result<_>>()?)
        };
        let centre: Vec<f64> = (0..self.n_groups).map(|group| start.of(group).value().ln()).collect();
        let mut evaluations = 0;
        let mut nll = |logs: &[f64]| -> Result<f64> {
            evaluations += 1;
            self.mean_nll(&precisions_at(logs)?, link)
        };
        // all groups together first: that is the whole search where there is one group
        let mut logs = centre.clone();
        let shift = minimize(|shift| nll(&centre.iter().map(|c| c + shift).collect::<Vec<f64>>()))?;
        logs.iter_mut().for_each(|log| *log += shift);
        let mut best = nll(&logs)?;
        for _ in 0..if self.n_groups > 1 { MAX_ROUNDS } else { 0 } {
            let before = best;
            for group in 0..self.n_groups {
                let mut moved = logs.clone();
                let shift = minimize(|shift| {
                    moved[group] = logs[group] + shift;
                    nll(&moved)
                })?;
                moved[group] = logs[group] + shift;
                let there = nll(&moved)?;
                if there < best {
                    (best, logs) = (there, moved);
                }
            }
            if before - best < IMPROVEMENT {
                break;
            }
        }
        Ok(TunedPrior { precisions: precisions_at(&logs)?, mean_nll: best, evaluations })
    }
}

/// The shift in `[−SPAN, SPAN]` where `f` is least: the best of a grid, refined by golden sections between its neighbours.
fn minimize(mut f: impl FnMut(f64) -> Result<f64>) -> Result<f64> {
    let n = (2.0 * SPAN / STEP) as usize;
    let grid: Vec<f64> = (0..=n).map(|i| -SPAN + STEP * i as f64).collect();
    let mut best = (0, f64::INFINITY);
    for (i, shift) in grid.iter().enumerate() {
        let value = f(*shift)?;
        if value < best.1 {
            best = (i, value);
        }
    }
    if !best.1.is_finite() {
        return Err(Error::numerical("tuning of the prior", "the likelihood is zero at every prior precision"));
    }
    if best.0 == 0 || best.0 == n {
        return Ok(grid[best.0]);
    }
    let golden = (5f64.sqrt() - 1.0) / 2.0;
    let (mut low, mut high) = (grid[best.0 - 1], grid[best.0 + 1]);
    let (mut a, mut b) = (high - golden * (high - low), low + golden * (high - low));
    let (mut at_a, mut at_b) = (f(a)?, f(b)?);
    while high - low > TOLERANCE {
        if at_a <= at_b {
            (high, b, at_b) = (b, a, at_a);
            a = high - golden * (high - low);
            at_a = f(a)?;
        } else {
            (low, a, at_a) = (a, b, at_b);
            b = low + golden * (high - low);
            at_b = f(b)?;
        }
    }
    Ok(0.5 * (low + high))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_minimum_is_found_inside_and_at_the_edges() {
        for target in [-3.3, 0.0, 7.9] {
            let found = minimize(|x| Ok((x - target).powi(2))).unwrap();
            assert!((found - target).abs() < 1e-4); // the width at which the search ends
        }
        assert_eq!(minimize(Ok).unwrap(), -SPAN);
        assert_eq!(minimize(|x| Ok(-x)).unwrap(), SPAN);
    }
}
