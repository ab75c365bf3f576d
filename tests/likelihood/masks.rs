//! What an item lacks counts for nothing, under any likelihood: its items are those of a model with fewer outputs.

use super::LIMITS;
use crate::support::{FIXTURES, Fixture, device, f64_or_skip, relative_error};
use bayes_lora::curvature::{CurvatureConfig, CurvatureStructure, CurvatureSums, FisherKind, fit_curvature};
use bayes_lora::data::{EncodedDataset, ResolvedAnswers};
use bayes_lora::likelihood::{Categorical, Gaussian, SharedLikelihood, Target};
use bayes_lora::lora::load_peft;
use bayes_lora::models::{PromptClassifier, mask_absent};
use bayes_lora::posterior::log_likelihood_gradient;
use bayes_lora::progress::Control;
use bayes_lora::train::negative_log_likelihood;
use burn::tensor::{DType, Tensor, TensorData};
use ndarray::{Array1, arr2};

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

#[test]
fn the_loss_that_training_differentiates_has_no_number_in_place_of_what_is_lacking() {
    let on_host = arr2(&[[0.5, -0.25, 3.0, 7.0], [1.0, 0.75, -2.0, 0.125]]);
    let mask = arr2(&[[true, true, false, false], [true, true, true, true]]);
    let targets = [Target::Class(1), Target::Class(0)];
    for dtype in [DType::F32, DType::F16, DType::BF16] {
        if !device().supports_dtype(dtype) {
            println!("{dtype:?}: skipped, this device has no such numbers");
            continue;
        }
        for likelihood in likelihoods() {
            let values = TensorData::new(on_host.iter().copied().collect::<Vec<f64>>(), [2, 4]);
            let outputs = Tensor::<2>::from_data(values, (&device().autodiff(), dtype)).require_grad();
            let loss = negative_log_likelihood(outputs.clone(), &*likelihood, &targets, Some(&mask)).unwrap();
            let gradients = loss.differentiable.backward();
            let found = outputs.grad(&gradients).unwrap().into_data().convert::<f64>().try_into_vec::<f64>().unwrap();
            let mut nats = 0.0;
            for (i, (row, target)) in mask_absent(on_host.clone(), Some(&mask)).outer_iter().zip(&targets).enumerate() {
                nats -= likelihood.log_density(row, target);
                for (c, score) in likelihood.score(row, target).iter().enumerate() {
                    // half precision has no 1e9; bf16 keeps 8 bits of the score
                    let error = (found[4 * i + c] + score).abs();
                    assert!(error <= 2f64.powi(-8) * score.abs(), "{dtype:?} {likelihood} {i} {c}: {found:?}");
                }
            }
            // these outputs are exact in every one of the element types, and the sum is taken in f64
            assert_eq!(loss.nats, nats, "{dtype:?} {likelihood}");
        }
    }
    // an output that overflowed is not one that is lacking
    let values = TensorData::new(vec![f32::NEG_INFINITY, 0.0, 0.0, 0.0], [1, 4]);
    let outputs = Tensor::<2>::from_data(values, (&device(), DType::F32));
    for likelihood in likelihoods() {
        let loss = negative_log_likelihood(outputs.clone(), &*likelihood, &targets[..1], None).unwrap();
        assert!(loss.nats.is_nan(), "{likelihood}: {}", loss.nats);
    }
}
