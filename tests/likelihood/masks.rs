//! What an item lacks counts for nothing, under any likelihood: its items are those of a model with fewer outputs.

use super::LIMITS;
use crate::support::{FIXTURES, Fixture, f64_or_skip, relative_error};
use bayes_lora::curvature::{CurvatureConfig, CurvatureStructure, CurvatureSums, FisherKind, fit_curvature};
use bayes_lora::data::{EncodedDataset, ResolvedAnswers};
use bayes_lora::likelihood::{Categorical, Gaussian, SharedLikelihood};
use bayes_lora::lora::load_peft;
use bayes_lora::models::PromptClassifier;
use bayes_lora::posterior::log_likelihood_gradient;
use bayes_lora::progress::Control;
use burn::tensor::DType;
use ndarray::Array1;

/// Items with two of four classes, and the same items with two classes in all.
fn masked_and_fewer(fixture: &Fixture) -> (EncodedDataset, EncodedDataset) {
    let mut masked = fixture.train.clone();
    for item in &mut masked.items {
        item.n_choices = 2;
        item.label = item.label.map(|label| label % 2);
    }
    let mut fewer = masked.clone();
    let ResolvedAnswers::ClassTokens(ids) = &mut fewer.answers else { panic!("class tokens are expected") };
    ids.truncate(2);
    fewer.n_classes = 2;
    (masked, fewer)
}

fn model_for(fixture: &Fixture, data: &EncodedDataset, dtype: DType) -> PromptClassifier {
    load_peft(fixture.model_for(data, dtype), fixture.dir().join("adapter")).unwrap().0
}

fn likelihoods() -> [SharedLikelihood; 2] {
    [Categorical.into(), Gaussian { noise_variance: 0.3 }.into()]
}

#[test]
fn items_with_fewer_classes_are_those_of_a_model_with_fewer_outputs() {
    if !f64_or_skip("items with fewer classes") {
        return;
    }
    let fixture = Fixture::load(FIXTURES[0]);
    let (masked, fewer) = masked_and_fewer(&fixture);
    let of = |data: &EncodedDataset, likelihood: &SharedLikelihood, fisher| {
        let model = model_for(&fixture, data, DType::F64);
        let config = CurvatureConfig::new(CurvatureStructure::Diagonal)
            .with_likelihood(likelihood.clone())
            .with_fisher(fisher)
            .with_limits(LIMITS);
        let curvature = fit_curvature(&model, data, &config, &Control::silent()).unwrap();
        let CurvatureSums::Diagonal(sums) = &curvature.sums else { panic!("a diagonal is expected") };
        let diagonal: Array1<f64> = sums.iter().flat_map(|sum| sum.kept.iter().copied()).collect();
        let gradient = log_likelihood_gradient(&model, data, &**likelihood, &LIMITS, &Control::silent()).unwrap();
        let gradient: Array1<f64> = gradient.values().flat_map(|w| w.iter().copied()).collect();
        (diagonal, curvature.log_likelihood.unwrap(), gradient)
    };
    for likelihood in likelihoods() {
        for fisher in [FisherKind::Exact, FisherKind::Empirical] {
            let (found, expected) = (of(&masked, &likelihood, fisher), of(&fewer, &likelihood, fisher));
            let traces = (found.0.sum(), expected.0.sum());
            println!("{likelihood} {fisher:?}: traces {traces:?}, log-likelihoods {} {}", found.1, expected.1);
            // the same sums over batches of other shapes
            assert!((traces.0 / traces.1 - 1.0).abs() < 1e-10, "{likelihood} {fisher:?}: {traces:?}");
            assert!(relative_error(&found.0, &expected.0) < 1e-10, "{likelihood} {fisher:?}");
            assert!((found.1 / expected.1 - 1.0).abs() < 1e-12, "{likelihood} {fisher:?}");
            assert!(relative_error(&found.2, &expected.2) < 1e-10, "{likelihood} {fisher:?}");
        }
    }
}
