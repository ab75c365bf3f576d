//! Foretells what a curvature fit will take, before anything runs.

use super::config::CurvatureConfig;
use super::core_space::CoreSpace;
use super::plan::{CoordinateKind, Coupling, Held, Source};
use super::probe::{adapted_sites, jacobians_per_item, repetitions};
use super::structure::CurvatureStructure;
use crate::data::BatchOrder;
use crate::error::{Error, Result};
use crate::linalg::LowRankSum;
use crate::lora::read_adapter;
use crate::models::{Classifier, ClassifierInput, Dataset, batch_for};
use crate::number::bytes_text;
use burn::tensor::DType;
use std::collections::BTreeMap;

/// What one structure will take.
#[derive(Debug, Clone, PartialEq)]
pub struct CurvatureCost {
    /// The structure.
    pub structure: CurvatureStructure,
    /// Bytes of its sums at the end of the pass.
    pub bytes: u64,
    /// Unknowns: weights, random sums of them, or entries of cores.
    pub n_unknowns: u64,
    /// Weighted Jacobians that the data give, N·(C − 1) for the exact Fisher of class tokens; at most N·C where rows are
    /// choices.
    pub n_rows: u64,
    /// Rows of the network that are run forward and backward once each, repetitions and passes counted in.
    pub network_rows: u64,
}

impl std::fmt::Display for CurvatureCost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{}: {} of sums over {} unknowns, {} rows forward and backward",
            self.structure,
            bytes_text(self.bytes),
            self.n_unknowns,
            self.network_rows
        )
    }
}

/// Says what the structure of `config` will take on `data`: bytes of the sums and rows through the network.
///
/// The rows of an adapted output head are counted as if the model used all of them.
///
/// # Errors
/// If the model has no adapter, the subset selects nothing, or core space meets an untrained adapter.
pub fn estimate_cost<M: Classifier, D: Dataset<Input = M::Input>>(
    model: &M,
    data: &D,
    config: &CurvatureConfig,
) -> Result<CurvatureCost> {
    let config = &with_dense_limit(model, data, config)?;
    let adapter = read_adapter(model)?;
    let sites = config.subset.select(&adapted_sites(model))?;
    let columns = config.fisher.n_columns(&*config.likelihood_or_default(), model.n_classes());
    let copies = repetitions(data, columns);
    let n_rows = (data.n_items() * jacobians_per_item(data, model.n_classes(), columns)) as u64;
    let element = if model.dtype() == DType::F64 { 8 } else { 4 };
    let shapes: Vec<(u64, u64)> =
        sites.iter().filter_map(|s| adapter.get(s)).map(|w| (w.nrows() as u64, w.ncols() as u64)).collect();
    let n_weights: u64 = shapes.iter().map(|(rows, columns)| rows * columns).sum();
    let factor = |width: u64, other: u64| {
        let dense = config.is_dense(width as usize, other as usize);
        8 * width * if dense { width } else { (config.low_rank as u64).min(width) }
    };
    let factors = || shapes.iter().map(|&(d_out, d_in)| factor(d_in, d_out) + factor(d_out, d_in)).sum::<u64>();
    let plan = config.plan();
    let widths: Vec<u64> = match plan.coordinates {
        CoordinateKind::Weights | CoordinateKind::Kronecker => shapes.iter().map(|(r, c)| r * c).collect(),
        CoordinateKind::Sketch => {
            let projection = config.projection.ok_or_else(|| Error::empty("random projection"))?;
            let share = |(r, c): &(u64, u64)| projection.share((r * c) as usize, n_weights as usize) as u64;
            shapes.iter().map(share).collect()
        }
        CoordinateKind::Core => {
            let modules = sites.iter().filter(|site| plan.coordinates.speaks_of(site)).map(|site| &site.module);
            let unknowns = modules.map(|module| Ok(CoreSpace::new(&adapter, module)?.n_unknowns() as u64));
            unknowns.collect::<Result<_>>()?
        }
    };
    let n_unknowns: u64 = widths.iter().sum();
    let joint = |held: Held, n: u64| match held {
        Held::Rows => element * n_rows * n,
        Held::Smaller if n_rows < n => element * n_rows * n,
        Held::Matrix | Held::Smaller => n.saturating_mul(n).saturating_mul(8),
    };
    let mut bytes = if plan.coordinates == CoordinateKind::Kronecker { factors() } else { 0 };
    if plan.source == Source::Jacobians {
        bytes += match plan.coupling {
            Coupling::None => 8 * n_unknowns,
            Coupling::Site(held) => widths.into_iter().map(|n| joint(held, n)).sum(),
            Coupling::All(held) => joint(held, n_unknowns),
        };
    }
    let rows_per_item = if data.rows_are_choices() { model.n_classes() } else { 1 };
    let network_rows = (data.n_items() * rows_per_item * copies * plan.passes()) as u64;
    Ok(CurvatureCost { structure: config.structure, bytes, n_unknowns, n_rows, network_rows })
}

/// Operations of a decomposition of width d are about this times d³: 0.04 s at 576, 0.5 s at 1,536 and 18 s at 4,096, where
/// 10¹¹ operations of the pass take a second.
const DECOMPOSITION_OPERATIONS: f64 = 25.0;

/// Share of the pass that the decompositions may take.
const DECOMPOSITION_SHARE: f64 = 0.1;

/// Widest factor that an estimate keeps dense, 2 GB: that of a vocabulary would be tens of GB, and several times that while it is decomposed.
const WIDEST_DENSE: usize = 16_384;

/// Operations that they may take in any case, a tenth of a second.
const DECOMPOSITION_ALLOWANCE: f64 = 1e10;

fn decomposition(width: f64) -> f64 {
    DECOMPOSITION_OPERATIONS * width.powi(3)
}

/// Operations that keep a factor of `width` at low rank over `n_vectors` vectors in `n_batches` batches: a decomposition and
/// two products a chunk.
fn low_rank_updates(width: f64, rank: f64, n_vectors: f64, n_batches: f64) -> f64 {
    let chunk = LowRankSum::CHUNK as f64;
    let columns = chunk.min(n_vectors / n_batches) + rank;
    (n_vectors / chunk).max(n_batches)
        * (decomposition(columns.min(width)) + 4.0 * columns * columns.min(width) * width)
}

/// The settings with a limit on dense factors: theirs, or the widest factor whose decomposition, with all narrower ones, takes
/// less than keeping them at low rank would, or than a tenth of the pass (or of a second), and none above a bound on memory.
///
/// # Errors
/// If the model has no adapter, the subset selects nothing or the data are empty.
pub(super) fn with_dense_limit<M: Classifier, D: Dataset<Input = M::Input>>(
    model: &M,
    data: &D,
    config: &CurvatureConfig,
) -> Result<CurvatureConfig> {
    if config.dense_limit.is_some() || config.plan().coordinates != CoordinateKind::Kronecker {
        return Ok(config.clone());
    }
    let adapter = read_adapter(model)?;
    let sites = config.subset.select(&adapted_sites(model))?;
    let mut widths: BTreeMap<usize, usize> = BTreeMap::new();
    for weight in sites.iter().filter_map(|site| adapter.get(site)) {
        *widths.entry(weight.nrows().max(weight.ncols())).or_default() += 1;
    }
    // a batch of middle length stands for all
    let batches = data.plan(config.limits_or_default(), BatchOrder::ByLength)?;
    let middle = batches.get(batches.len() / 2).ok_or_else(|| Error::empty("plan of batches"))?;
    let mask = batch_for(model, data, middle)?.token_mask();
    let tokens = mask.iter().filter(|real| **real).count() as f64 / middle.len() as f64 * data.n_items() as f64;
    let columns = config.fisher.n_columns(&*config.likelihood_or_default(), model.n_classes());
    // two operations a weight and token, forward and backward
    let pass = 4.0 * model.num_params() as f64 * tokens * repetitions(data, columns) as f64;
    let kept = |width: f64| low_rank_updates(width, config.low_rank as f64, tokens, batches.len() as f64);
    Ok(CurvatureConfig { dense_limit: Some(widest_dense(widths, kept, pass)), ..config.clone() })
}

/// The widest of some factors that is kept dense. `widths` are how many there are of each, `low_rank` the operations that keep one of a width
/// at low rank, `pass` those of the pass.
fn widest_dense(widths: BTreeMap<usize, usize>, low_rank: impl Fn(f64) -> f64, pass: f64) -> usize {
    let (mut dense, mut kept, mut limit) = (0.0, 0.0, 0);
    for (width, count) in widths.into_iter().filter(|(width, _)| *width <= WIDEST_DENSE) {
        let (d, count) = (width as f64, count as f64);
        dense += count * decomposition(d);
        kept += count * low_rank(d);
        if dense > kept.max(DECOMPOSITION_ALLOWANCE).max(DECOMPOSITION_SHARE * pass) {
            break;
        }
        limit = width;
    }
    limit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_factor_is_dense_where_it_costs_little_of_the_pass_but_never_as_wide_as_a_vocabulary() {
        let widths = || BTreeMap::from([(576, 60), (1536, 30), (49_152, 1)]);
        let free = |_: f64| 0.0;
        // 60 · 25 · 576³ = 2.9e11, and 30 · 25 · 1536³ = 2.7e12 more
        for (pass, expected) in [(1e12, 0), (1e13, 576), (1e14, 1536), (1e30, 1536)] {
            assert_eq!(widest_dense(widths(), free, pass), expected, "{pass:e}");
        }
        assert_eq!(widest_dense(widths(), |_| 1e30, 0.0), 1536);
        assert_eq!(widest_dense(BTreeMap::from([(64, 2)]), free, 0.0), 64);
    }
}
