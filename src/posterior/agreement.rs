//! Checks that a curvature is about the matrices of an adapter.

use super::block::Block;
use crate::curvature::{Coordinates, Curvature, SiteSpace};
use crate::error::{Error, Result};
use crate::lora::AdapterWeights;
use crate::tape::{LoraMatrix, Site};

/// Checks that the curvature was fitted at the adapter `map`.
///
/// # Errors
/// Names a matrix that differs in shape or is missing, or both fingerprints.
pub(super) fn check_fits(curvature: &Curvature, blocks: &[Block], map: &AdapterWeights) -> Result<()> {
    check_shapes(blocks, map)?;
    curvature.check_fitted_at(map)
}

/// Checks that the blocks are about matrices of the adapter `map`.
///
/// # Errors
/// Names a matrix that differs in shape or is missing.
pub(super) fn check_shapes(blocks: &[Block], map: &AdapterWeights) -> Result<()> {
    blocks.iter().flat_map(Block::spaces).try_for_each(|space| check_shape(space, map))
}

fn check_shape(space: &SiteSpace, map: &AdapterWeights) -> Result<()> {
    let Some(weight) = map.get(&space.site) else {
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
    if let Coordinates::Core(core) = &space.coordinates {
        let of_b = Site { module: core.module.clone(), matrix: LoraMatrix::B };
        let (d_out, d_in) = (map.get(&of_b).map_or(0, |b| b.nrows()), weight.ncols());
        let (expected, found) = ([d_out, d_in], [core.column_basis.nrows(), core.row_basis.nrows()]);
        if expected != found || core.module != space.site.module || core.trained.ncols() > weight.nrows() {
            return Err(Error::Shape {
                what: format!("core of `{}`", core.module),
                expected: expected.to_vec(),
                found: found.to_vec(),
            });
        }
    }
    Ok(())
}
