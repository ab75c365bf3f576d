//! Runs the passes over the training data that sum curvature.

use super::batch_sums::{BatchSums, SiteIncrement, batch_sums};
use super::config::CurvatureConfig;
use super::coordinates::{Coordinates, SiteSpace};
use super::core_space::CoreSpace;
use super::curvature::{Curvature, CurvatureSums};
use super::diagonal::DiagonalSum;
use super::estimate::{CurvatureCost, estimate_cost, with_dense_limit};
use super::fisher::LabelledItem;
use super::joint::JointSum;
use super::kron::KroneckerFactors;
use super::kron_basis::KroneckerBasis;
use super::plan::{CoordinateKind, Coupling, Held};
use super::probe::{adapted_sites, jacobians_per_item, repetitions};
use super::site_rows::SiteRows;
use super::sketch::Sketch;
use super::structure::CurvatureStructure;
use super::unfinished::UnfinishedPass;
use crate::batches::for_each_batch;
use crate::data::BatchOrder;
use crate::error::{Error, Result};
use crate::likelihood::TargetSpace;
use crate::lora::{AdapterWeights, adapter_fingerprint, read_adapter};
use crate::memory::available_bytes;
use crate::models::{Classifier, ClassifierInput, Dataset, activation_budget, batch_for};
use crate::progress::Control;
use crate::tape::Site;
use burn::tensor::DType;
use ndarray::{Array2, Axis};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

/// Sums the curvature of the adapter on `data` in the structure of `config`; dropout is off, pads count for nothing.
///
/// With [`Control::with_checkpoints`] the sums are saved as they grow, and the same call goes on from there to the same bits.
///
/// # Errors
/// If a setting is out of bounds or makes no sense for the model, the plan exceeds the memory limit, a value is not
/// finite, or the caller cancels.
pub fn fit_curvature<M: Classifier, D: Dataset<Input = M::Input>>(
    model: &M,
    data: &D,
    config: &CurvatureConfig,
    control: &Control,
) -> Result<Curvature> {
    let mut all = fit_curvatures(model, data, std::slice::from_ref(config), control)?;
    Ok(all.swap_remove(0))
}

/// The same for several settings at once: those with the same Fisher information, likelihood, subset and batches share
/// every forward and backward pass.
///
/// # Errors
/// As [`fit_curvature`]; the smallest of the memory limits holds for all sums together.
pub fn fit_curvatures<M: Classifier, D: Dataset<Input = M::Input>>(
    model: &M,
    data: &D,
    configs: &[CurvatureConfig],
    control: &Control,
) -> Result<Vec<Curvature>> {
    configs.iter().try_for_each(CurvatureConfig::validate)?;
    let configs =
        configs.iter().map(|config| with_dense_limit(model, data, &config.resolved())).collect::<Result<Vec<_>>>()?;
    let costs = configs.iter().map(|config| estimate_cost(model, data, config)).collect::<Result<Vec<_>>>()?;
    check_memory(&costs, configs.iter().filter_map(|config| config.memory_limit).min())?;
    let mut jobs: Vec<Job> = Vec::new();
    for config in configs.iter().map(CurvatureConfig::first_pass) {
        if jobs.iter().all(|job| job.config != config) {
            jobs.push(Job { config, bases: BTreeMap::new() });
        }
    }
    let mut fitted = passes(model, data, jobs, control)?;
    let mut corrections = Vec::new();
    for config in configs.iter().filter(|config| config.plan().needs_factors_first()) {
        let first = fitted.iter().find(|c| c.config == config.first_pass());
        let first = first.ok_or_else(|| Error::empty("Kronecker curvature"))?;
        corrections.push(Job::in_bases_of(first, config.structure)?);
    }
    fitted.extend(passes(model, data, corrections, control)?);
    let mut fitted: Vec<Option<Curvature>> = fitted.into_iter().map(Some).collect();
    let mut ordered = Vec::new();
    for (index, config) in configs.iter().enumerate() {
        let found = fitted.iter_mut().find(|slot| slot.as_ref().is_some_and(|c| c.config == *config));
        let slot = found.ok_or_else(|| Error::empty(format!("{} curvature", config.structure)))?;
        // asked for again later: keep it
        let again = configs[index + 1..].contains(config);
        ordered.extend(if again { slot.clone() } else { slot.take() });
    }
    Ok(ordered)
}

/// Second pass of EKFAC: the true second moments of the data in the eigenbases of `kronecker`.
///
/// Shards of the data are corrected in the bases of their merged factors, and their sums then merge.
///
/// # Errors
/// As [`fit_curvature`]; if `kronecker` is of another structure or adapter, or of questions asked in another way.
pub fn correct_eigenvalues<M: Classifier, D: Dataset<Input = M::Input>>(
    model: &M,
    data: &D,
    kronecker: &Curvature,
    control: &Control,
) -> Result<Curvature> {
    kronecker.check_fitted_at(&read_adapter(model)?)?;
    kronecker.check_asked(data.asked())?;
    let mut fitted = passes(model, data, vec![Job::in_bases_of(kronecker, CurvatureStructure::Ekfac)?], control)?;
    Ok(fitted.swap_remove(0))
}

/// Bytes that the sums of one setting take.
///
/// # Errors
/// As [`fit_curvature`] before anything runs: more than its own memory limit is refused.
pub(crate) fn curvature_bytes<M: Classifier, D: Dataset<Input = M::Input>>(
    model: &M,
    data: &D,
    config: &CurvatureConfig,
) -> Result<u64> {
    config.validate()?;
    let cost = estimate_cost(model, data, config)?;
    check_memory(std::slice::from_ref(&cost), config.memory_limit)?;
    Ok(cost.bytes)
}

/// Where no limit is set it is what the system has free.
fn check_memory(costs: &[CurvatureCost], limit: Option<u64>) -> Result<()> {
    let needed = costs.iter().fold(0u64, |sum, cost| sum.saturating_add(cost.bytes));
    let (name, most) = match limit {
        Some(_) => ("memory_limit", limit),
        None => ("free memory", available_bytes()),
    };
    match most {
        Some(limit) if needed > limit => {
            let parts: Vec<String> = costs.iter().map(ToString::to_string).collect();
            Err(Error::config(name, format!("at least {needed} bytes for {}", parts.join("; ")), limit))
        }
        _ => Ok(()),
    }
}

/// One curvature to be summed.
struct Job {
    config: CurvatureConfig,
    /// The eigenbases of Kronecker factors, where the structure's coordinates are these.
    bases: BTreeMap<Site, KroneckerBasis>,
}

impl Job {
    fn in_bases_of(kronecker: &Curvature, structure: CurvatureStructure) -> Result<Self> {
        let basis = |factors: &KroneckerFactors| {
            Ok((factors.site.clone(), KroneckerBasis::new(factors, kronecker.normalizer(factors))?))
        };
        Ok(Self {
            config: CurvatureConfig { structure, ..kronecker.config.clone() },
            bases: kronecker.kronecker_factors()?.iter().map(basis).collect::<Result<_>>()?,
        })
    }
}

/// Sums all jobs, those that differentiate the same logits in the same batches in one pass.
fn passes<M: Classifier, D: Dataset<Input = M::Input>>(
    model: &M,
    data: &D,
    mut jobs: Vec<Job>,
    control: &Control,
) -> Result<Vec<Curvature>> {
    let mut fitted = Vec::new();
    while let Some(first) = jobs.first().map(|job| job.config.clone()) {
        let (together, rest) = jobs.into_iter().partition(|job| job.config.shares_passes_with(&first));
        fitted.extend(one_pass(model, data, together, control)?);
        jobs = rest;
    }
    Ok(fitted)
}

fn one_pass<M: Classifier, D: Dataset<Input = M::Input>>(
    model: &M,
    data: &D,
    jobs: Vec<Job>,
    control: &Control,
) -> Result<Vec<Curvature>> {
    let model = model.valid();
    let adapter = read_adapter(&model)?;
    let configs: Vec<CurvatureConfig> = jobs.iter().map(|job| job.config.clone()).collect();
    let shared = &configs[0];
    let sites = shared.subset.select(&adapted_sites(&model))?.into_iter().collect();
    let likelihood = shared.likelihood_or_default();
    let columns = shared.fisher.n_columns(&*likelihood, model.n_classes());
    let spaces = Spaces {
        adapter: &adapter,
        n_rows: data.n_items() * jacobians_per_item(data, model.n_classes(), columns),
        in_f64: model.dtype() == DType::F64,
    };
    let fingerprint = adapter_fingerprint(&adapter);
    let mut curvatures: Vec<Curvature> =
        configs.iter().map(|config| Curvature::empty(config.clone(), fingerprint)).collect();
    let batches = data.plan(shared.limits_or_default().shared_by(repetitions(data, columns)), BatchOrder::ByLength)?;
    let budget = activation_budget(&model, control, "curvature");
    let without_choice = AtomicBool::new(likelihood.target_space() == TargetSpace::Classes);
    let work = |indices: &[usize]| {
        let input = batch_for(&model, data, indices)?;
        without_choice.fetch_and(!has_choice(&input, model.n_classes()), Ordering::Relaxed);
        let item = |&i: &usize| LabelledItem { id: data.item_id(i), key: data.item_key(i), target: data.target(i) };
        let items: Vec<LabelledItem> = indices.iter().map(item).collect();
        batch_sums(&model, &input, &items, &configs, &sites, &budget)
    };
    let take_up = |saver| UnfinishedPass::take_up(saver, &model, data, &batches, &mut curvatures);
    let mut unfinished = control.saver().map(take_up).transpose()?;
    for curvature in &mut curvatures {
        curvature.asked = data.asked().cloned();
    }
    let begin = unfinished.as_ref().map_or(0, UnfinishedPass::begin);
    let mut next = begin;
    for_each_batch("curvature", &batches[next..], control, work, |_, mut batch| {
        for (index, (curvature, job)) in curvatures.iter_mut().zip(&jobs).enumerate() {
            if !unfinished.as_ref().is_some_and(|pass| pass.has(index, next)) {
                let increments = std::mem::take(&mut batch.factors[index]);
                spaces.add(curvature, &job.bases, &batch, increments)?;
            }
        }
        next += 1;
        if let Some(pass) = &mut unfinished {
            pass.keep(&curvatures, next, control.is_cancelled());
        }
        Ok(())
    })?;
    if begin == 0 && without_choice.into_inner() {
        return Err(Error::Incompatible(format!(
            "none of the {} items has two choices or more: its only choice has probability 1 whatever the weights are, so \
             there is no curvature",
            data.n_items()
        )));
    }
    Ok(curvatures)
}

/// True if some item has more than one class.
fn has_choice<I: ClassifierInput>(input: &I, n_classes: usize) -> bool {
    let several = |mask: &Array2<bool>| mask.outer_iter().any(|item| item.iter().filter(|has| **has).count() > 1);
    input.class_mask().map_or(n_classes > 1, several)
}

/// Checks that every batch passes the same sites.
fn check_count(expected: usize, found: usize) -> Result<()> {
    if expected == found {
        return Ok(());
    }
    Err(Error::Count { what: "adapted matrices that a batch passed".into(), expected, found })
}

/// What the first batch's sums are made from.
struct Spaces<'a> {
    adapter: &'a AdapterWeights,
    /// Weighted Jacobians that all batches will give.
    n_rows: usize,
    in_f64: bool,
}

impl Spaces<'_> {
    fn add(
        &self,
        curvature: &mut Curvature,
        bases: &BTreeMap<Site, KroneckerBasis>,
        batch: &BatchSums,
        increments: Vec<SiteIncrement>,
    ) -> Result<()> {
        match &mut curvature.sums {
            CurvatureSums::Kronecker(factors) => {
                if factors.is_empty() {
                    let low_rank = curvature.config.low_rank;
                    let start = |new| KroneckerFactors::start(new, low_rank);
                    *factors = increments.into_iter().map(start).collect::<Result<_>>()?;
                } else {
                    check_count(factors.len(), increments.len())?;
                    KroneckerFactors::add_all(factors, increments)?;
                }
            }
            CurvatureSums::Diagonal(sums) => {
                if sums.is_empty() {
                    let spaces = self.of(&curvature.config, bases, &batch.rows)?;
                    *sums = spaces.into_iter().map(DiagonalSum::new).collect();
                }
                let kind = curvature.config.plan().coordinates;
                let rows: Vec<&SiteRows> = batch.rows.iter().filter(|rows| kind.speaks_of(&rows.site)).collect();
                check_count(sums.len(), rows.len())?;
                sums.iter_mut().zip(rows).try_for_each(|(sum, rows)| sum.add(rows))?;
            }
            CurvatureSums::Joint(blocks) => {
                if blocks.is_empty() {
                    *blocks = self.blocks(&curvature.config, &batch.rows)?;
                }
                blocks.iter_mut().try_for_each(|block| block.add(&batch.rows, self.in_f64))?;
            }
        }
        curvature.count(batch.item_keys.len(), batch.log_likelihood, batch.item_keys.iter().copied());
        Ok(())
    }

    /// The coordinates of every site that the structure speaks of.
    fn of(
        &self,
        config: &CurvatureConfig,
        bases: &BTreeMap<Site, KroneckerBasis>,
        rows: &[SiteRows],
    ) -> Result<Vec<SiteSpace>> {
        let space = |rows: &SiteRows, coordinates| {
            let (_, d_out, d_in) = rows.rows.dim();
            SiteSpace {
                site: rows.site.clone(),
                output_rows: rows.output_rows.clone(),
                shape: [d_out, d_in],
                coordinates,
            }
        };
        let kind = config.plan().coordinates;
        let n_weights = |rows: &SiteRows| rows.rows.len() / rows.rows.len_of(Axis(0)).max(1);
        let n_total = rows.iter().map(n_weights).sum();
        let coordinates = |rows: &SiteRows| -> Result<Coordinates> {
            Ok(match kind {
                CoordinateKind::Weights => Coordinates::Weights,
                CoordinateKind::Sketch => {
                    let projection = config.projection.ok_or_else(|| Error::empty("random projection"))?;
                    let n = n_weights(rows);
                    Coordinates::Sketch(Sketch::new(projection.share(n, n_total), projection.seed, &rows.site, n))
                }
                CoordinateKind::Kronecker => {
                    let basis = bases.get(&rows.site);
                    let basis = basis.ok_or_else(|| Error::empty(format!("Kronecker basis of `{}`", rows.site)))?;
                    Coordinates::Kronecker(basis.clone())
                }
                CoordinateKind::Core => Coordinates::Core(CoreSpace::new(self.adapter, &rows.site.module)?),
            })
        };
        rows.iter().filter(|rows| kind.speaks_of(&rows.site)).map(|rows| Ok(space(rows, coordinates(rows)?))).collect()
    }

    fn blocks(&self, config: &CurvatureConfig, rows: &[SiteRows]) -> Result<Vec<JointSum>> {
        let spaces = self.of(config, &BTreeMap::new(), rows)?;
        let (groups, held): (Vec<Vec<SiteSpace>>, Held) = match config.plan().coupling {
            Coupling::None => return Err(Error::empty("coupling of a joint sum")),
            Coupling::Site(held) => (spaces.into_iter().map(|space| vec![space]).collect(), held),
            Coupling::All(held) => (vec![spaces], held),
        };
        let sums = groups.into_iter().map(|spaces| {
            let width: usize = spaces.iter().map(SiteSpace::width).sum();
            let as_rows = match held {
                Held::Matrix => false,
                Held::Rows => true,
                Held::Smaller => self.n_rows < width,
            };
            JointSum::new(spaces, as_rows)
        });
        Ok(sums.collect())
    }
}
