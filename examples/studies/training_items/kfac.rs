//! Influence by the Kronecker posterior, for comparison: `−J(x) (H + λ)⁻¹ J_tᵀ ∇log p(y_t)` at the trained adapter, all items in H.

use super::bench::Linearized;
use crate::Outcome;
use bayes_lora::belief::LogitGauge;
use bayes_lora::data::EncodedDataset;
use bayes_lora::likelihood::{Categorical, Likelihood, Target};
use bayes_lora::memory::ActivationBudget;
use bayes_lora::models::PromptClassifier;
use bayes_lora::posterior::LogitJacobians;
use bayes_lora::prior::PriorPrecisions;
use bayes_lora::tape::Site;
use ndarray::{Array1, Array2, Array4, Axis, concatenate, s};
use std::collections::BTreeMap;

/// Items a pass.
const BATCH: usize = 8;

/// Change of every test item's loss to first order if a training item had been left out, `[n_train, n_test]`; under each prior.
pub fn loss_changes(
    (adapted, linearized): (&PromptClassifier, &Linearized),
    train: &EncodedDataset,
    test: &EncodedDataset,
    priors: &[PriorPrecisions],
) -> Outcome<Vec<Array2<f64>>> {
    let laplace = &linearized.laplace;
    let sites = laplace.sites();
    let mut jacobians: BTreeMap<Site, Vec<Array4<f64>>> = BTreeMap::new();
    let mut scores = Vec::new();
    for data in [train, test] {
        let labels = data.labels()?;
        let all: Vec<usize> = (0..data.len()).collect();
        for items in all.chunks(BATCH) {
            let batch = LogitJacobians::new(
                adapted,
                data,
                items,
                LogitGauge::Centred,
                (&sites, &ActivationBudget::unlimited()),
            )?;
            for (outputs, item) in batch.logits.outer_iter().zip(items) {
                scores.push(Categorical.score(outputs, &Target::Class(labels[*item])));
            }
            // every combination of every item as one of a single item, so that the covariance is joint
            for (site, own) in batch.sites {
                let (b, k, d_out, d_in) = own.dim();
                let own = own.as_standard_layout().into_owned().into_shape_with_order((1, b * k, d_out, d_in))?;
                jacobians.entry(site).or_default().push(own);
            }
        }
    }
    let mut joined = BTreeMap::new();
    for (site, parts) in jacobians {
        let views: Vec<_> = parts.iter().map(|part| part.view()).collect();
        joined.insert(site, concatenate(Axis(1), &views)?);
    }
    let projections = laplace.project_jacobians(&joined)?;
    let of_prior = |precisions: &PriorPrecisions| {
        let covariance = laplace.covariance(&projections, precisions.clone())?;
        let covariance = covariance.index_axis(Axis(0), 0);
        let k = covariance.nrows() / scores.len();
        let score = |item: usize| -> Array1<f64> { scores[item].slice(s![1..]).to_owned() };
        Ok(Array2::from_shape_fn((train.len(), test.len()), |(t, x)| {
            let x = train.len() + x;
            let between = covariance.slice(s![x * k..(x + 1) * k, t * k..(t + 1) * k]);
            // the loss rises by −gᵀΔf, and Δf = −S g
            score(x).dot(&between.dot(&score(t)))
        }))
    };
    priors.iter().map(of_prior).collect()
}
