//! Runs the passes over the training data that sum curvature.

use super::batch_sums::{BatchSums, Wanted, batch_sums};
use super::config::CurvatureConfig;
use super::coordinates::{Coordinates, SiteSpace};
use super::core_space::CoreSpace;
use super::curvature::{Curvature, CurvatureSums};
use super::diagonal::DiagonalSum;
use super::estimate::{CurvatureCost, estimate_cost};
use super::joint::JointSum;
use super::kron::KroneckerFactors;
use super::kron_basis::KroneckerBasis;
use super::probe::repetitions;
use super::site_rows::SiteRows;
use super::structure::CurvatureStructure;
use crate::batches::for_each_batch;
use crate::data::BatchOrder;
use crate::error::{Error, Result};
use crate::lora::{AdapterWeights, read_adapter};
use crate::models::{Classifier, Dataset, batch_for};
use crate::progress::Control;
use crate::tape::{LoraMatrix, Site};
use burn::tensor::DType;
use std::collections::BTreeMap;

/// Sums the curvature of the adapter on `data` in the structure of `config`; dropout is off, pads count for nothing.
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
    let mut all = fit_curvatures(model, data, &[config.structure], config, control)?;
    Ok(all.swap_remove(0))
}

/// The same for several structures at once, which share every forward and backward pass.
///
/// # Errors
/// As [`fit_curvature`].
pub fn fit_curvatures<M: Classifier, D: Dataset<Input = M::Input>>(
    model: &M,
    data: &D,
    structures: &[CurvatureStructure],
    config: &CurvatureConfig,
    control: &Control,
) -> Result<Vec<Curvature>> {
    for &structure in structures {
        CurvatureConfig { structure, ..config.clone() }.validate()?;
    }
    let costs: Vec<CurvatureCost> =
        structures.iter().map(|&s| estimate_cost(model, data, s, config)).collect::<Result<_>>()?;
    check_memory(&costs, config.memory_limit)?;
    let corrects = structures.contains(&CurvatureStructure::Ekfac);
    let mut first: Vec<CurvatureStructure> = Vec::new();
    for &structure in structures {
        let structure = if structure == CurvatureStructure::Ekfac { CurvatureStructure::Kronecker } else { structure };
        if !first.contains(&structure) {
            first.push(structure);
        }
    }
    let mut fitted = one_pass(model, data, &first, config, &BTreeMap::new(), control)?;
    if corrects {
        let kronecker = fitted.iter().find(|c| c.config.structure == CurvatureStructure::Kronecker);
        let kronecker = kronecker.ok_or_else(|| Error::empty("Kronecker curvature"))?;
        fitted.push(correct_eigenvalues(model, data, kronecker, control)?);
    }
    let find = |structure| fitted.iter().find(|c| c.config.structure == structure).cloned();
    structures.iter().map(|&s| find(s).ok_or_else(|| Error::empty(format!("{s} curvature")))).collect()
}

/// Second pass of EKFAC: the true second moments of the data in the eigenbases of `kronecker`.
///
/// Shards of the data are corrected in the bases of their merged factors, and their sums then merge.
///
/// # Errors
/// As [`fit_curvature`]; if `kronecker` is of another structure.
pub fn correct_eigenvalues<M: Classifier, D: Dataset<Input = M::Input>>(
    model: &M,
    data: &D,
    kronecker: &Curvature,
    control: &Control,
) -> Result<Curvature> {
    let bases = kronecker
        .kronecker_factors()?
        .iter()
        .map(|factors| Ok((factors.site.clone(), KroneckerBasis::new(factors, kronecker.normalizer(factors))?)));
    let bases = bases.collect::<Result<BTreeMap<_, _>>>()?;
    let mut fitted = one_pass(model, data, &[CurvatureStructure::Ekfac], &kronecker.config, &bases, control)?;
    Ok(fitted.swap_remove(0))
}

fn check_memory(costs: &[CurvatureCost], limit: Option<u64>) -> Result<()> {
    let needed: u64 = costs.iter().map(|cost| cost.bytes).sum();
    match limit {
        Some(limit) if needed > limit => {
            let parts: Vec<String> = costs.iter().map(ToString::to_string).collect();
            Err(Error::config("memory_limit", format!("at least {needed} bytes for {}", parts.join("; ")), limit))
        }
        _ => Ok(()),
    }
}

/// Sums all `structures` in one pass.
fn one_pass<M: Classifier, D: Dataset<Input = M::Input>>(
    model: &M,
    data: &D,
    structures: &[CurvatureStructure],
    config: &CurvatureConfig,
    bases: &BTreeMap<Site, KroneckerBasis>,
    control: &Control,
) -> Result<Vec<Curvature>> {
    let model = model.valid();
    let adapter = read_adapter(&model)?;
    let wanted = Wanted {
        sites: config.subset.select(&adapted_sites(&model))?.into_iter().collect(),
        factors: structures.contains(&CurvatureStructure::Kronecker),
        rows: structures.iter().any(|s| s.reads_jacobians()),
    };
    let columns = config.fisher.n_columns(config.likelihood, model.n_classes());
    let spaces = Spaces {
        adapter: &adapter,
        bases,
        n_rows: data.n_items() * if data.rows_are_choices() { model.n_classes() } else { columns },
        in_f64: model.dtype() == DType::F64,
    };
    let mut curvatures: Vec<Curvature> =
        structures.iter().map(|&structure| Curvature::empty(CurvatureConfig { structure, ..config.clone() })).collect();
    let batches = data.plan(config.limits.shared_by(repetitions(data, columns)), BatchOrder::ByLength)?;
    let work = |indices: &[usize]| {
        let input = batch_for(&model, data, indices)?;
        let ids: Vec<String> = indices.iter().map(|&i| data.item_id(i)).collect();
        let labels: Vec<Option<usize>> = indices.iter().map(|&i| data.label(i)).collect();
        batch_sums(&model, &input, &ids, &labels, config, &wanted)
    };
    for_each_batch("curvature", &batches, control, work, |_, mut batch| {
        curvatures.iter_mut().try_for_each(|curvature| spaces.add(curvature, &mut batch))
    })?;
    Ok(curvatures)
}

/// Every adapted matrix, in forward order.
pub(super) fn adapted_sites<M: Classifier>(model: &M) -> Vec<Site> {
    let adapted = model.linears().into_iter().filter(|linear| linear.adapter.is_some());
    adapted
        .flat_map(|linear| [LoraMatrix::A, LoraMatrix::B].map(|matrix| Site { module: linear.path.clone(), matrix }))
        .collect()
}

/// What the first batch's sums are made from.
struct Spaces<'a> {
    adapter: &'a AdapterWeights,
    bases: &'a BTreeMap<Site, KroneckerBasis>,
    /// Weighted Jacobians that all batches will give.
    n_rows: usize,
    in_f64: bool,
}

impl Spaces<'_> {
    fn add(&self, curvature: &mut Curvature, batch: &mut BatchSums) -> Result<()> {
        let structure = curvature.config.structure;
        match &mut curvature.sums {
            CurvatureSums::Kronecker(factors) => {
                // the only structure that takes them
                let increments = std::mem::take(&mut batch.factors);
                if factors.is_empty() {
                    let low_rank = curvature.config.low_rank;
                    let start = |new| KroneckerFactors::start(new, low_rank);
                    *factors = increments.into_iter().map(start).collect::<Result<_>>()?;
                } else {
                    factors.iter_mut().zip(increments).try_for_each(|(sum, new)| sum.add(new))?;
                }
            }
            CurvatureSums::Diagonal(sums) => {
                if sums.is_empty() {
                    let spaces = self.of(structure, &batch.rows)?;
                    *sums = spaces.into_iter().map(DiagonalSum::new).collect();
                }
                sums.iter_mut().zip(&batch.rows).try_for_each(|(sum, rows)| sum.add(rows))?;
            }
            CurvatureSums::Joint(blocks) => {
                if blocks.is_empty() {
                    *blocks = self.blocks(structure, &batch.rows)?;
                }
                blocks.iter_mut().try_for_each(|block| block.add(&batch.rows, self.in_f64))?;
            }
        }
        curvature.count(batch.n_data, batch.log_likelihood);
        Ok(())
    }

    /// The coordinates of every site that the structure speaks of.
    fn of(&self, structure: CurvatureStructure, rows: &[SiteRows]) -> Result<Vec<SiteSpace>> {
        let space = |rows: &SiteRows, coordinates| {
            let (_, d_out, d_in) = rows.rows.dim();
            SiteSpace {
                site: rows.site.clone(),
                output_rows: rows.output_rows.clone(),
                shape: [d_out, d_in],
                coordinates,
            }
        };
        let coordinates = |rows: &SiteRows| match structure {
            CurvatureStructure::Ekfac => {
                let basis = self.bases.get(&rows.site);
                let basis = basis.ok_or_else(|| Error::empty(format!("Kronecker basis of `{}`", rows.site)))?;
                Ok(Coordinates::Kronecker(basis.clone()))
            }
            CurvatureStructure::Core => Ok(Coordinates::Core(CoreSpace::new(self.adapter, &rows.site.module)?)),
            _ => Ok(Coordinates::Weights),
        };
        let speaks = |rows: &&SiteRows| structure != CurvatureStructure::Core || rows.site.matrix == LoraMatrix::A;
        rows.iter().filter(speaks).map(|rows| Ok(space(rows, coordinates(rows)?))).collect()
    }

    fn blocks(&self, structure: CurvatureStructure, rows: &[SiteRows]) -> Result<Vec<JointSum>> {
        let spaces = self.of(structure, rows)?;
        let groups: Vec<Vec<SiteSpace>> = match structure {
            CurvatureStructure::SiteBlock => spaces.into_iter().map(|space| vec![space]).collect(),
            _ => vec![spaces],
        };
        let sums = groups.into_iter().map(|spaces| {
            let width: usize = spaces.iter().map(SiteSpace::width).sum();
            let as_rows = match structure {
                CurvatureStructure::Full => false,
                CurvatureStructure::FunctionSpace => true,
                _ => self.n_rows < width,
            };
            JointSum::new(spaces, as_rows)
        });
        Ok(sums.collect())
    }
}
