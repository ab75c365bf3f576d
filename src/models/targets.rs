//! Reads the targets of a data set, and checks each against its item before anything is computed from it.

use super::classifier::ClassifierInput;
use super::dataset::Dataset;
use crate::error::{Error, Result};
use crate::likelihood::{Likelihood, Target, TargetSpace};
use ndarray::Array2;

/// All targets, each known and one that `likelihood` can be about; what single items lack is only known with their batch.
///
/// # Errors
/// Names the first item whose target is missing or does not fit.
pub(crate) fn known_targets<D: Dataset>(
    data: &D,
    likelihood: &dyn Likelihood,
    n_outputs: usize,
) -> Result<Vec<Target>> {
    let all = vec![true; n_outputs];
    let what = match likelihood.target_space() {
        TargetSpace::Classes => "label",
        _ => "target",
    };
    let known = |item: usize| {
        let id = || data.item_id(item);
        let target = data.target(item).ok_or_else(|| Error::Incompatible(format!("item `{}` has no {what}", id())))?;
        likelihood.check_target(&id(), &target, &all)?;
        Ok(target)
    };
    (0..data.n_items()).map(known).collect()
}

/// The targets of a batch, each one that its item can have; `targets` are all of the data's.
///
/// # Errors
/// As [`check_targets`].
pub(crate) fn batch_targets<D: Dataset>(
    data: &D,
    indices: &[usize],
    input: &D::Input,
    (targets, likelihood): (&[Target], &dyn Likelihood),
    n_outputs: usize,
) -> Result<Vec<Target>> {
    let ids: Vec<String> = indices.iter().map(|&item| data.item_id(item)).collect();
    let known = ids.iter().zip(indices).map(|(id, &item)| (id.as_str(), Some(&targets[item])));
    check_targets(likelihood, known, n_outputs, input.class_mask())?;
    Ok(indices.iter().map(|&item| targets[item].clone()).collect())
}

/// Checks that every known target of a batch is one that its item can have; `items` are their names and targets.
///
/// # Errors
/// As [`Likelihood::check_target`].
pub(crate) fn check_targets<'a>(
    likelihood: &dyn Likelihood,
    items: impl Iterator<Item = (&'a str, Option<&'a Target>)>,
    n_outputs: usize,
    class_mask: Option<&Array2<bool>>,
) -> Result<()> {
    let all = vec![true; n_outputs];
    for (k, (id, target)) in items.enumerate() {
        let Some(target) = target else { continue };
        match class_mask {
            None => likelihood.check_target(id, target, &all)?,
            Some(mask) => likelihood.check_target(id, target, &mask.row(k).to_vec())?,
        }
    }
    Ok(())
}
