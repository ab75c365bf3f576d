//! The element types that a base may be read in.

use super::{Tensors, load, refused, reweigh, tiny};
use crate::support::{FIXTURES, Fixture, continuation_dataset, device, logits, relative_error};
use bayes_lora::data::{BatchLimits, PaddingSide};
use bayes_lora::likelihood::{Categorical, Target};
use bayes_lora::lora::{Adaptable, read_adapter};
use bayes_lora::models::{Classifier, Dataset, MlpConfig, Points, TokenBatch};
use bayes_lora::progress::Control;
use bayes_lora::tape::Tape;
use bayes_lora::train::{Trainer, TrainerConfig, negative_log_likelihood};
use burn::tensor::{DType, Tensor};
use ndarray::{Array2, Axis, array};

/// Thirty-two times the rounding of one number to f16's 11 bits, for the depth of the tiny models.
const BOUND: f64 = 32.0 / 2048.0;

fn has_f16() -> bool {
    let has = device().supports_dtype(DType::F16);
    if !has {
        println!("SKIPPED: the device under test has no f16");
    }
    has
}

#[test]
fn an_element_type_that_is_no_float_is_an_error() {
    for dtype in [DType::I32, DType::U8, DType::Bool(burn::tensor::BoolStore::Native)] {
        refused(load(tiny().path(), dtype), &["element type", &format!("{dtype:?}"), "F64, F32, F16, BF16"]);
    }
    let data = continuation_dataset();
    let batch = TokenBatch::new(&data, &[0], PaddingSide::Right, &device(), DType::I32);
    refused(batch, &["element type", "I32"]);
    let points = Points::new(array![[0.0, 1.0]], vec![]).unwrap();
    refused(points.batch(&[0], &device(), DType::I32), &["element type", "I32"]);
    let perceptron = MlpConfig::new([2, 3]).with_dtype(DType::I32);
    refused(perceptron.init(&device()), &["element type", "I32"]);
}

#[test]
fn values_beyond_the_element_type_are_named() {
    let dir = tiny();
    let name = "model.layers.1.mlp.up_proj.weight";
    reweigh(dir.path(), |tensors: &mut Tensors| {
        tensors.get_mut(name).unwrap().2[..4].copy_from_slice(&7e4f32.to_le_bytes());
    });
    assert!(load(dir.path(), DType::F32).is_ok());
    if has_f16() {
        refused(load(dir.path(), DType::F16), &[name, "stored in F32 and read in F16", "1 of 1536"]);
    }
}

#[test]
fn an_f16_base_gives_the_logits_of_f32_whichever_side_is_padded() {
    if !has_f16() {
        return;
    }
    for name in FIXTURES {
        let fixture = Fixture::load(name);
        let (half, full) = (fixture.model(DType::F16), fixture.model(DType::F32));
        let expected = logits(&full, &fixture.test);
        let error = relative_error(&logits(&half, &fixture.test), &expected);
        println!("{name}: logits differ by {error:.1e} from f32");
        assert!(error > 1e-6 && error < BOUND, "{error}");
        // rows of pads alone see no key at all
        let all: Vec<usize> = (0..fixture.test.len()).collect();
        let batch = TokenBatch::new(&fixture.test, &all, PaddingSide::Left, &device(), DType::F16).unwrap();
        let found = half.logits(&batch, &mut Tape::off()).into_data().convert::<f64>().try_into_vec::<f64>().unwrap();
        let found = Array2::from_shape_vec(expected.dim(), found).unwrap();
        let error = relative_error(&found, &expected);
        assert!(error < BOUND, "{error}");
    }
    let data = continuation_dataset();
    let fixture = Fixture::load(FIXTURES[0]);
    let scores = |dtype| {
        let present = logits(&fixture.model_for(&data, dtype), &data);
        present.iter().copied().filter(|v| v.is_finite()).collect::<ndarray::Array1<f64>>()
    };
    let error = relative_error(&scores(DType::F16), &scores(DType::F32));
    assert!(error < BOUND, "{error}");
}

#[test]
fn an_adapter_on_an_f16_base_is_trained_as_on_f32() {
    if !has_f16() {
        return;
    }
    let fixture = Fixture::load(FIXTURES[0]);
    let config = TrainerConfig::default().with_epochs(2).with_limits(BatchLimits { max_items: 4, max_tokens: 1000 });
    let trained = |dtype| {
        let run = Trainer::new(config.clone()).unwrap();
        run.fit(fixture.model(dtype), &fixture.train, None, &Control::silent()).unwrap().model
    };
    let start = read_adapter(&fixture.model(DType::F32)).unwrap();
    let (half, full) = (trained(DType::F16), trained(DType::F32));
    assert!(half.linears().iter().all(|linear| linear.weight.val().dtype() == DType::F16));
    let (half, full) = (read_adapter(&half).unwrap(), read_adapter(&full).unwrap());
    let distance = |a: &Array2<f64>, b: &Array2<f64>| (a - b).mapv(|v| v * v).sum();
    let (mut apart, mut moved) = (0.0, 0.0);
    for (site, weights) in &full {
        apart += distance(&half[site], weights);
        moved += distance(&start[site], weights);
    }
    println!("steps differ by {:.1e} of their length", (apart / moved).sqrt());
    assert!((apart / moved).sqrt() < 0.1); // AdamW takes the sign of gradients that are nearly zero
}

#[test]
fn a_class_that_an_item_lacks_costs_nothing_in_any_element_type() {
    let mask = array![[true, true, false], [true, true, true]];
    for dtype in [DType::F32, DType::F16, DType::BF16].into_iter().filter(|dtype| device().supports_dtype(*dtype)) {
        let values = [[0.5f32, -0.25, 3.0], [1.0, 2.0, -1.0]];
        let logits = Tensor::<2>::from_data(values, (&device().autodiff(), dtype)).require_grad();
        let targets = [Target::Class(1), Target::Class(1)];
        let loss = negative_log_likelihood(logits.clone(), &Categorical, &targets, Some(&mask)).unwrap().differentiable;
        let gradient =
            logits.grad(&loss.backward()).unwrap().into_data().convert::<f64>().try_into_vec::<f64>().unwrap();
        let gradient = Array2::from_shape_vec((2, 3), gradient).unwrap();
        assert!(gradient.iter().all(|v| v.is_finite()), "{dtype:?}: {gradient}");
        assert_eq!(gradient[[0, 2]], 0.0);
        // σ(0.75), to the rounding of bf16's 8 bits, a few times over
        assert!((gradient[[0, 0]] - 0.679).abs() < 0.02, "{dtype:?}: {gradient}");
        assert!(gradient.sum_axis(Axis(1)).iter().all(|sum| sum.abs() < 0.02));
    }
}
