//! Lists what trains of an adapted model, by site.

use super::attach::Adaptable;
use crate::error::Result;
use crate::tape::{LoraMatrix, Site};
use burn::module::Param;
use burn::tensor::Tensor;

/// A matrix that trains.
pub(crate) struct TrainedMatrix<'a> {
    pub(crate) site: Site,
    pub(crate) param: &'a Param<Tensor<2>>,
    /// As it was before training, if known.
    pub(crate) initial: Option<&'a Tensor<2>>,
}

/// A and B of every adapter, then the heads, in forward order.
pub(crate) fn trained_matrices<M: Adaptable>(model: &M) -> Vec<TrainedMatrix<'_>> {
    let mut all = Vec::new();
    for linear in model.linears() {
        let Some(adapter) = &linear.adapter else { continue };
        let site = |matrix| Site { module: linear.path.clone(), matrix };
        let initial = |index: usize| adapter.initial.as_ref().map(|both| &both[index]);
        all.push(TrainedMatrix { site: site(LoraMatrix::A), param: &adapter.a, initial: initial(0) });
        all.push(TrainedMatrix { site: site(LoraMatrix::B), param: &adapter.b, initial: initial(1) });
    }
    for head in model.heads() {
        let site = Site { module: head.path.clone(), matrix: LoraMatrix::Whole };
        all.push(TrainedMatrix { site, param: &head.weight, initial: head.initial.as_ref() });
    }
    all
}

/// Changes every one of them, in the same order.
///
/// # Errors
/// Those of `change`, at which it stops.
pub(super) fn change_trained<M: Adaptable>(
    model: &mut M,
    mut change: impl FnMut(Site, &mut Param<Tensor<2>>) -> Result<()>,
) -> Result<()> {
    for linear in model.linears_mut() {
        let Some(adapter) = &mut linear.adapter else { continue };
        for (matrix, param) in [(LoraMatrix::A, &mut adapter.a), (LoraMatrix::B, &mut adapter.b)] {
            change(Site { module: linear.path.clone(), matrix }, param)?;
        }
    }
    for head in model.heads_mut() {
        change(Site { module: head.path.clone(), matrix: LoraMatrix::Whole }, &mut head.weight)?;
    }
    Ok(())
}
