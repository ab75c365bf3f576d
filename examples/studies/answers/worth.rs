//! What a score of doubt is worth.

use crate::Outcome;
use bayes_lora::metrics::{BayesianBootstrap, Estimate, auroc_estimate, prediction_rejection_estimate};
use serde::Serialize;

/// How well a score tells wrong answers from right ones.
#[derive(Serialize)]
pub struct Worth {
    /// That a wrong answer scores above a right one.
    pub auroc: Estimate,
    /// Prediction rejection ratio.
    pub rejection: Estimate,
}

/// Of answers of which some are right and some are wrong.
pub fn worth(values: &[f64], right: &[bool]) -> Outcome<Option<Worth>> {
    if right.iter().all(|r| *r == right[0]) {
        return Ok(None);
    }
    let wrong: Vec<bool> = right.iter().map(|right| !right).collect();
    let confidence: Vec<f64> = values.iter().map(|value| -value).collect();
    let rejection = prediction_rejection_estimate(&confidence, right, &BayesianBootstrap::default())?;
    Ok(Some(Worth { auroc: auroc_above(values, &wrong)?, rejection }))
}

/// That one of `above` scores above one of the others.
pub fn auroc_above(values: &[f64], above: &[bool]) -> Outcome<Estimate> {
    let of = |kind: bool| -> Vec<f64> {
        values.iter().zip(above).filter(|(_, is_above)| **is_above == kind).map(|(value, _)| *value).collect()
    };
    Ok(auroc_estimate(&of(true), &of(false), &BayesianBootstrap::default())?)
}

/// How much more the AUROC of `values` is than that of `plain`, items drawn for both together; none where they are the same.
pub fn more_than(values: &[f64], plain: &[f64], above: &[bool]) -> Outcome<Option<Estimate>> {
    if values == plain {
        return Ok(None);
    }
    let difference = |w: &[f64]| weighted_auroc(values, above, w) - weighted_auroc(plain, above, w);
    Ok(Some(BayesianBootstrap::default().estimate(values.len(), difference)?))
}

/// Weight of the pairs in which a positive value lies above another, ties counting half.
fn weighted_auroc(values: &[f64], positive: &[bool], weights: &[f64]) -> f64 {
    let (mut above, mut all) = (0.0, 0.0);
    for i in (0..values.len()).filter(|&i| positive[i]) {
        for j in (0..values.len()).filter(|&j| !positive[j]) {
            let pair = weights[i] * weights[j];
            all += pair;
            above += pair * if values[i] == values[j] { 0.5 } else { f64::from(u8::from(values[i] > values[j])) };
        }
    }
    above / all
}
