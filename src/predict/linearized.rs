//! Predicts with the network linearised around the trained adapter: `f* ~ N(f_MAP, J Σ Jᵀ)`.

use super::rows::rows;
use crate::belief::{LogitBelief, LogitGauge};
use crate::data::{BatchLimits, BatchOrder};
use crate::error::{Error, Result};
use crate::hash::{fnv1a, fnv1a_words};
use crate::models::{Classifier, Dataset, activation_budget};
use crate::posterior::{Laplace, LogitJacobians, repetitions_in};
use crate::progress::Control;
use ndarray::{Array2, Array3, Axis, s};

/// Gaussian belief about every item's logits, in the data's order and in the wanted gauge, with the temperature of the posterior's answers
/// where it has one.
///
/// `limits` count the repetitions of a batch for its several Jacobians. The answer of an item is C + C² numbers, and C + kC² under k
/// posteriors: 8 MB an item at C = 1000.
///
/// # Errors
/// If the data are empty, a logit is not finite, the posterior belongs to another adapter or was fitted on questions asked in
/// another way ([`Laplace::with_any_way_of_asking`]), or the caller cancels.
pub fn predict_linearized<M: Classifier, D: Dataset<Input = M::Input>>(
    model: &M,
    laplace: &Laplace,
    data: &D,
    gauge: LogitGauge,
    limits: &BatchLimits,
    control: &Control,
) -> Result<LogitBelief> {
    let mut all = predict_linearized_for_all(model, &[laplace], data, gauge, limits, control)?;
    Ok(all.swap_remove(0))
}

/// The same for several posteriors of one model, which share every pass through the network.
///
/// # Errors
/// As [`predict_linearized`]; if there is no posterior.
pub fn predict_linearized_for_all<M: Classifier, D: Dataset<Input = M::Input>>(
    model: &M,
    laplaces: &[&Laplace],
    data: &D,
    gauge: LogitGauge,
    limits: &BatchLimits,
    control: &Control,
) -> Result<Vec<LogitBelief>> {
    let beliefs = linearized_for_all(model, laplaces, data, gauge, limits, control)?;
    Ok(laplaces.iter().zip(beliefs).map(|(laplace, belief)| laplace.answered(belief)).collect())
}

/// The same as wide as the priors make them: without temperatures of answers.
pub(super) fn linearized_for_all<M: Classifier, D: Dataset<Input = M::Input>>(
    model: &M,
    laplaces: &[&Laplace],
    data: &D,
    gauge: LogitGauge,
    limits: &BatchLimits,
    control: &Control,
) -> Result<Vec<LogitBelief>> {
    if laplaces.is_empty() {
        return Err(Error::empty("list of posteriors"));
    }
    let model = model.valid();
    laplaces.iter().try_for_each(|laplace| laplace.check_answers(&model, data))?;
    let (n, c) = (data.n_items(), model.n_classes());
    let batches = data.plan(limits.shared_by(repetitions_in(gauge, data, c)), BatchOrder::ByLength)?;
    let sites = laplaces.iter().flat_map(|laplace| laplace.sites()).collect();
    let budget = activation_budget(&model, control, "linearised prediction");
    // a row is an item's logits, then their covariance under each posterior
    let width = c + laplaces.len() * c * c;
    let work = |indices: &[usize]| {
        let batch = LogitJacobians::new(&model, data, indices, gauge, (&sites, &budget))?;
        let mut rows = Array2::zeros((indices.len(), width));
        rows.slice_mut(s![.., ..c]).assign(&batch.logits);
        for (k, laplace) in laplaces.iter().enumerate() {
            let projections = laplace.project_jacobians(&batch.sites)?;
            let of_classes = batch.to_classes(laplace.covariance(&projections, laplace.prior_precisions())?);
            for (mut row, covariance) in rows.outer_iter_mut().zip(of_classes.axis_iter(Axis(0))) {
                let start = c + k * c * c;
                let places = row.slice_mut(s![start..start + c * c]);
                places.into_iter().zip(covariance).for_each(|(place, value)| *place = *value);
            }
        }
        Ok(rows)
    };
    let kind = || {
        let posteriors = laplaces.iter().map(|laplace| laplace.fingerprint()).collect::<Result<Vec<_>>>()?;
        Ok(fnv1a_words([fnv1a(format!("{gauge:?}").bytes())].into_iter().chain(posteriors)))
    };
    let rows = rows((&model, data), (width, kind), &batches, control, work)?;
    let mean = rows.slice(s![.., ..c]);
    let of = |k: usize| LogitBelief::Gaussian {
        mean: mean.to_owned(),
        covariance: Array3::from_shape_fn((n, c, c), |(item, a, b)| rows[[item, c + k * c * c + a * c + b]]),
        gauge,
    };
    Ok((0..laplaces.len()).map(of).collect())
}
