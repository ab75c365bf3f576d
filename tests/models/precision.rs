//! A base in half precision: its weights and activations are rounded, while the adapter, its gradients, the curvature and the
//! logits stay in f32.

use crate::support::points::{nll, quick, train};
use crate::support::{FIXTURES, Fixture, continuation_dataset, device, logits, relative_error};
use bayes_lora::curvature::{CurvatureConfig, FactorSum, fit_curvature};
use bayes_lora::data::BatchLimits;
use bayes_lora::lora::{Adaptable, read_adapter};
use bayes_lora::models::PromptClassifier;
use bayes_lora::posterior::{Laplace, LaplaceConfig};
use bayes_lora::predict::{Predictive, predict, predict_head};
use bayes_lora::progress::Control;
use burn::tensor::DType;
use ndarray::{Array1, Array2};

const LIMITS: BatchLimits = BatchLimits { max_items: 15, max_tokens: 100_000 };

/// Sixteen times the rounding of one number to bf16's 8 bits, for the depth of the tiny models.
const BOUND: f64 = 16.0 / 256.0;

/// Says so where the device has no bf16.
fn has_bf16() -> bool {
    let has = device().supports_dtype(DType::BF16);
    if !has {
        println!("SKIPPED: the device under test has no bf16");
    }
    has
}

fn element_types(model: &PromptClassifier) -> Vec<[DType; 3]> {
    let adapted = model.linears().into_iter().filter_map(|l| l.adapter.as_ref().map(|adapter| (l, adapter)));
    adapted.map(|(l, adapter)| [l.weight.val().dtype(), adapter.a.val().dtype(), adapter.b.val().dtype()]).collect()
}

#[test]
fn a_bf16_base_carries_an_f32_adapter_through_training_curvature_and_prediction() {
    if !has_bf16() {
        return;
    }
    for name in FIXTURES {
        let fixture = Fixture::load(name);
        let (half, full) = (fixture.model(DType::BF16), fixture.model(DType::F32));
        assert!(element_types(&half).iter().all(|types| *types == [DType::BF16, DType::F32, DType::F32]));
        let error = relative_error(&logits(&half, &fixture.test), &logits(&full, &fixture.test));
        println!("{name}: logits differ by {error:.1e} from f32");
        assert!(error > 1e-6 && error < BOUND, "{error}");

        let trained = train(quick(3), half.clone(), &fixture.train, None).model;
        assert!(element_types(&trained).iter().all(|types| *types == [DType::BF16, DType::F32, DType::F32]));
        assert!(nll(&trained, &fixture.train) < nll(&half, &fixture.train));
        let weights = read_adapter(&trained).unwrap();
        let of_bf16 = |v: &f64| f64::from(f32::from_bits((*v as f32).to_bits() & 0xffff_0000)) == *v;
        let n = weights.values().map(|w| w.len()).sum::<usize>();
        let rounded = weights.values().flatten().filter(|v| of_bf16(v)).count();
        assert!(rounded < n / 10, "{rounded} of {n} trained weights are bf16 numbers");

        let config = CurvatureConfig::default().with_limits(LIMITS).with_dense_limit(usize::MAX);
        let fit = |model: &PromptClassifier| fit_curvature(model, &fixture.train, &config, &Control::silent()).unwrap();
        let (curvature, expected) = (fit(&half), fit(&full));
        for (found, expected) in
            curvature.kronecker_factors().unwrap().iter().zip(expected.kronecker_factors().unwrap())
        {
            for (found, expected) in [(&found.activation, &expected.activation), (&found.gradient, &expected.gradient)]
            {
                let (FactorSum::Dense(found), FactorSum::Dense(expected)) = (found, expected) else {
                    panic!("low rank")
                };
                let error = relative_error(found, expected);
                // squares of what is rounded, weighted with probabilities that are too
                assert!(error < 4.0 * BOUND, "{error}");
            }
        }
        let laplace = Laplace::new(&half, &curvature, &LaplaceConfig::default()).unwrap();
        let how = Predictive::default();
        let prediction = predict(&half, &laplace, &fixture.test, how, &LIMITS, &Control::silent()).unwrap();
        let sums = prediction.probabilities.sum_axis(ndarray::Axis(1));
        assert!(sums.iter().all(|sum| (sum - 1.0).abs() < 1e-9));
    }
}

#[test]
fn continuations_are_scored_in_f32_on_a_bf16_base() {
    if !has_bf16() {
        return;
    }
    let fixture = Fixture::load(FIXTURES[0]);
    let data = continuation_dataset();
    let scores = |dtype| logits(&fixture.model_for(&data, dtype), &data);
    let (half, full) = (scores(DType::BF16), scores(DType::F32));
    // items have other numbers of choices
    let present = |all: &Array2<f64>| -> Array1<f64> { all.iter().copied().filter(|v| v.is_finite()).collect() };
    let (half, full) = (present(&half), present(&full));
    assert!(half.len() > 4);
    let error = relative_error(&half, &full);
    println!("scores differ by {error:.1e} from f32");
    assert!(error > 1e-6 && error < BOUND, "{error}");
}

#[test]
fn class_logits_of_a_bf16_base_are_the_product_of_its_features_and_rows_in_f32() {
    if !has_bf16() {
        return;
    }
    for name in FIXTURES {
        let fixture = Fixture::load(name);
        let model = fixture.model(DType::BF16);
        let head = predict_head(&model, &fixture.test, &LIMITS, &Control::silent()).unwrap();
        let product = head.features.dot(&head.weights.t());
        let error = relative_error(&head.logits, &product);
        println!("{name}: {error:.1e}");
        // sums of a few dozen products in f32; in bf16 two thousandths
        assert!(error < 1e-5, "{error}");
    }
}
