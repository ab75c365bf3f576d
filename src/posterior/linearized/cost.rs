//! Foretells what the linearised model of a set of items will take, before anything runs.

use super::config::{Extent, LinearizedConfig};
use super::rows::number_bytes;
use crate::belief::{LinkApprox, LogitGauge};
use crate::curvature::{CurvatureConfig, CurvatureStructure, RandomProjection, estimate_cost};
use crate::error::Result;
use crate::models::{Classifier, Dataset};
use crate::number::{bytes_text, significant};
use crate::posterior::jacobians::{combinations_in, repetitions_in};

/// Factorisations that the matched prior takes, about: 15 to 25 were counted in function space, 7 to 13 in weights (`studies
/// leave-one-out-cost` of 200 to 1,000 items).
const FACTORISATIONS: f64 = 20.0;

/// What the linearised model of the training items will take.
#[derive(Debug, Clone, PartialEq)]
pub struct LinearizedCost {
    /// Items that it is about: all, or as many as are drawn.
    pub n_items: u64,
    /// Combinations of outputs over these, M.
    pub n_rows: u64,
    /// Numbers that are kept of the Jacobian of each: weights, entries of cores, or random sums.
    pub width: u64,
    /// The random projection that they go through, where there is one.
    pub projection: Option<RandomProjection>,
    /// Bytes of the Jacobians; on disk, too, where unfinished work is kept.
    pub row_bytes: u64,
    /// Bytes of the kernel `[M, M]`, or of the features `[M, width]` where these are fewer.
    pub kernel_bytes: u64,
    /// Most bytes held at once: Jacobians beside the kernel that is made from them, or the kernel with what leaving out needs.
    pub peak_bytes: u64,
    /// Rows of the network that are run forward and backward once each, repetitions counted in.
    pub network_rows: u64,
    /// Multiplications in f64 on the host, about: the kernel, Newton's steps under the priors that are tried, leaving out.
    pub multiplications: f64,
}

impl std::fmt::Display for LinearizedCost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "linearised model of {} items: {} of Jacobians ({} rows of {} {}), {} at most with its kernel, {} rows forward and \
             backward, about {} multiplications on the host",
            self.n_items,
            bytes_text(self.row_bytes),
            self.n_rows,
            self.width,
            if self.projection.is_some() { "random sums" } else { "numbers" },
            bytes_text(self.peak_bytes),
            self.network_rows,
            significant(self.multiplications)
        )
    }
}

/// Says what the linearised model over the weights (or cores) of `curvature` will take on `data`: memory, rows through the network, and
/// work on the host for a matched prior and for leaving out.
///
/// # Errors
/// If a setting is out of bounds, the model has no adapter, the subset selects nothing, or core space meets an untrained adapter.
pub fn estimate_linearized<M: Classifier, D: Dataset<Input = M::Input>>(
    model: &M,
    data: &D,
    curvature: &CurvatureConfig,
    config: &LinearizedConfig,
) -> Result<LinearizedCost> {
    config.validate()?;
    let is_shift_invariant = curvature.likelihood_or_default().is_shift_invariant();
    let gauge = if is_shift_invariant { LogitGauge::of(LinkApprox::default()) } else { LogitGauge::Raw };
    let is_of_cores = curvature.plan().coordinates.is_of_modules();
    let width_of = |projection: Option<RandomProjection>| {
        let structure = if is_of_cores { curvature.structure } else { CurvatureStructure::FunctionSpace };
        let like = CurvatureConfig { structure, projection, ..curvature.clone() };
        Ok(estimate_cost(model, data, &like)?.n_unknowns)
    };
    let (k, number) = (combinations_in(gauge, data, model.n_classes()), number_bytes(model));
    let whole = width_of(None)?;
    let extent = config.extent(data.n_items(), k, whole as usize, number);
    let projection = match extent {
        Extent::Projected(projection) if !is_of_cores => Some(projection),
        _ => None,
    };
    let width = if projection.is_some() { width_of(projection)? } else { whole };
    let n_items = if let Extent::Some(most, _) = extent { most } else { data.n_items() };
    let (n_items, n_rows) = (n_items as u64, (n_items * k) as u64);
    let row_bytes = number as u64 * n_rows * width;
    let least = n_rows.min(width);
    let kernel_bytes = 8 * n_rows * least;
    // a factorisation holds its matrix three times, and leaving out as much of the kernel's size again
    let at_mode = if width < n_rows { kernel_bytes + 3 * 8 * width * width } else { 7 * kernel_bytes };
    let rows_per_item = if data.rows_are_choices() { model.n_classes() } else { 1 };
    let network_rows = n_items * (rows_per_item * repetitions_in(gauge, data, model.n_classes())) as u64;
    let (rows, wide, square) = (n_rows as f64, width as f64, least as f64);
    let cube = square.powi(3) / 6.0;
    let step = if width < n_rows { 0.5 * rows * wide * wide + cube } else { cube };
    let kernel = if width < n_rows { 0.0 } else { 0.5 * rows * rows * wide };
    Ok(LinearizedCost {
        n_items,
        n_rows,
        width,
        projection,
        row_bytes,
        kernel_bytes,
        peak_bytes: (row_bytes + kernel_bytes).max(at_mode),
        network_rows,
        multiplications: kernel + FACTORISATIONS * step + rows * square * square,
    })
}
