//! Encoders and heads: logits, gradients and Jacobians are those of transformers and PEFT in f64, adapters with heads are read and written,
//! and everything that is done with an adapter is done with its head.

use crate::support::heads::{self, LIMITS, assert_parity, precisions};
use crate::support::{Padded, device, logits, relative_error, root};
use bayes_lora::belief::{LinkApprox, LogitGauge};
use bayes_lora::curvature::{AdapterSubset, CurvatureConfig, CurvatureStructure, fit_curvature};
use bayes_lora::data::{EncodedDataset, PaddingSide, ResolvedAnswers};
use bayes_lora::lora::{LoraConfig, attach, load_peft, read_adapter, save_peft, write_adapter};
use bayes_lora::models::{
    Classifier, Dataset, Encoder, LanguageModel, LoadedEncoder, Pooling, Pretrained, PretrainedEncoder,
    SequenceClassifier,
};
use bayes_lora::posterior::{Laplace, LaplaceConfig};
use bayes_lora::predict::{Predictive, predict, predict_linearized};
use bayes_lora::prior::PriorPrecision;
use bayes_lora::progress::Control;
use bayes_lora::tape::{LoraMatrix, Site, Tape};
use bayes_lora::train::{Trainer, TrainerConfig};
use bayes_lora::{BayesLoraConfig, FittedBayesLora};
use burn::module::Module;
use burn::tensor::DType;
use ndarray::{ArrayD, Axis, IxDyn, concatenate, s};
use safetensors::SafeTensors;
use std::path::PathBuf;

fn dir() -> PathBuf {
    heads::dir("tiny_bert")
}

fn data() -> EncodedDataset {
    heads::data("tiny_bert")
}

fn loaded(dtype: DType) -> LoadedEncoder {
    heads::loaded(&dir().join("base"), dtype)
}

fn model(dtype: DType) -> SequenceClassifier<Encoder> {
    heads::adapted(&dir().join("base"), &dir().join("adapter"), &data(), dtype)
}

fn expected(key: &str) -> ArrayD<f64> {
    heads::expected(&dir().join("expected.safetensors"), key)
}

#[test]
fn logits_gradients_and_jacobians_equal_those_of_transformers_and_peft() {
    for (dtype, tolerance) in precisions() {
        // A and B of two matrices in two layers, and the head
        assert_parity((&model(dtype), &data()), "tiny_bert", (9, 0), (dtype, tolerance));
    }
}

#[test]
fn pads_change_nothing_on_either_side_and_means_are_over_tokens() {
    let (dtype, tolerance) = *precisions().last().unwrap();
    let (model, data) = (model(dtype), data());
    let left = logits(&model, &Padded(&data, PaddingSide::Left));
    assert!(relative_error(&left, &logits(&model, &data)) < tolerance);

    let pretrained = PretrainedEncoder::from_dir(dir().join("base")).unwrap().with_dtype(dtype);
    let other = pretrained.with_pooling(Pooling::Mean).load(&device()).unwrap().encoder;
    let with_mean = SequenceClassifier::with_head(other, model.head.clone(), &data).unwrap();
    let mean = load_peft(with_mean, dir().join("adapter")).unwrap().0.network;
    for side in [PaddingSide::Left, PaddingSide::Right] {
        let batch = Padded(&data, side).batch(&[0, 1, 2, 3], &device(), dtype).unwrap();
        let pooled = mean.valid().pooled(&batch, &mut Tape::off());
        let dims = pooled.dims();
        let values: Vec<f64> = pooled.into_data().iter::<f64>().collect();
        let pooled = ArrayD::from_shape_vec(IxDyn(&dims), values).unwrap();
        let error = relative_error(&pooled, &expected("mean_pooled"));
        assert!(error < tolerance, "{side:?}: {error:e}");
    }
}

#[test]
fn an_adapter_is_saved_with_its_head_as_peft_has_it_and_read_again() {
    let (model, data) = (model(DType::F32), data());
    let out = tempfile::tempdir().unwrap();
    let config = LoraConfig::new(2).with_alpha(4.0).with_target_modules(["query", "value"]);
    save_peft(&model, &config, "tiny_bert", out.path()).unwrap();
    let theirs = std::fs::read(dir().join("adapter/adapter_model.safetensors")).unwrap();
    let ours = std::fs::read(out.path().join("adapter_model.safetensors")).unwrap();
    let (theirs, ours) = (SafeTensors::deserialize(&theirs).unwrap(), SafeTensors::deserialize(&ours).unwrap());
    let sorted = |file: &SafeTensors| {
        let mut names: Vec<String> = file.names().into_iter().map(str::to_string).collect();
        names.sort();
        names
    };
    assert_eq!(sorted(&ours), sorted(&theirs));
    for name in ours.names() {
        assert_eq!(ours.tensor(name).unwrap(), theirs.tensor(name).unwrap(), "{name}");
    }
    let text = std::fs::read_to_string(out.path().join("adapter_config.json")).unwrap();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&json["task_type"], &json["modules_to_save"]), (&"SEQ_CLS".into(), &serde_json::json!(["classifier"])));

    let LoadedEncoder { encoder, .. } = loaded(DType::F32);
    let fresh = SequenceClassifier::new(encoder, &data, 7).unwrap();
    assert_ne!(logits(&fresh, &data), logits(&model, &data));
    let again = load_peft(fresh, out.path()).unwrap().0;
    assert_eq!(logits(&again, &data), logits(&model, &data));
    assert_eq!(read_adapter(&again).unwrap(), read_adapter(&model).unwrap());
}

/// A classifier on the bare base, trained for a few steps.
fn trained() -> (SequenceClassifier<Encoder>, EncodedDataset) {
    let data = data();
    let fresh = SequenceClassifier::new(loaded(DType::F32).encoder, &data, 0).unwrap();
    let lora = LoraConfig::new(2).with_target_modules(["query", "value"]);
    let start = attach(fresh, &lora, 0).unwrap();
    let trainer = TrainerConfig::default().with_epochs(6).with_learning_rate(1e-2).with_limits(LIMITS);
    let model = Trainer::new(trainer).unwrap().fit(start.clone(), &data, None, &Control::silent()).unwrap().model;
    let (before, after) = (read_adapter(&start).unwrap(), read_adapter(&model).unwrap());
    assert!(before.iter().all(|(site, w)| after[site] != *w), "something did not train");
    (model, data)
}

#[test]
fn the_posterior_covers_the_head_unless_it_is_left_out() {
    let (model, data) = trained();
    let control = Control::silent();
    let prior = LaplaceConfig::default().with_prior_precision(PriorPrecision::new(2.0).unwrap());
    let head = |site: &Site| site.matrix == LoraMatrix::Whole;
    for (structure, subset, has_head) in [
        (CurvatureStructure::Kronecker, AdapterSubset::All, true),
        (CurvatureStructure::Full, AdapterSubset::All, true),
        (CurvatureStructure::Full, AdapterSubset::WithoutHeads, false),
    ] {
        let config = CurvatureConfig::default().with_structure(structure).with_subset(subset).with_limits(LIMITS);
        let curvature = fit_curvature(&model, &data, &config, &control).unwrap();
        let laplace = Laplace::new(&model, &curvature, &prior).unwrap();
        let drawn = laplace.sample(0, 1);
        for (site, weight) in read_adapter(&model).unwrap() {
            assert_eq!(drawn[&site] != weight, has_head || !head(&site), "{structure}: {site}");
        }
        assert_ne!(logits(&write_adapter(model.clone(), &drawn).unwrap(), &data), logits(&model, &data));
        predict(&model, &laplace, &data, Predictive::default(), &LIMITS, &control).unwrap();
    }
}

/// The logits are linear in the head: with the exact matrix over the head alone, the covariance is that of Bayesian logistic regression on
/// the features, computed densely here.
#[test]
fn the_posterior_of_a_head_is_that_of_logistic_regression() {
    let (model, data) = trained();
    let control = Control::silent();
    let lambda = 1.5;
    let config = CurvatureConfig::default()
        .with_structure(CurvatureStructure::Full)
        .with_subset(AdapterSubset::Pattern("classifier".into()))
        .with_limits(LIMITS);
    let curvature = fit_curvature(&model, &data, &config, &control).unwrap();
    let prior = LaplaceConfig::default().with_prior_precision(PriorPrecision::new(lambda).unwrap());
    let laplace = Laplace::new(&model, &curvature, &prior).unwrap();
    let belief = predict_linearized(&model, &laplace, &data, LogitGauge::Raw, &LIMITS, &control).unwrap();
    let (mean, covariance) = belief.moments();

    let input = data.batch(&[0, 1, 2, 3], &model.device(), model.dtype()).unwrap();
    let features = model.valid().head_features(&input).unwrap().features;
    let width = features.dims()[1];
    let values: Vec<f64> = features.into_data().iter::<f64>().collect();
    let features = ndarray::Array2::from_shape_vec((4, width), values).unwrap();
    let ones = ndarray::Array2::ones((4, 1));
    let features = concatenate(Axis(1), &[features.view(), ones.view()]).unwrap();
    let n = 3 * (width + 1);
    let jacobian = |item: usize| {
        let mut jacobian = ndarray::Array2::<f64>::zeros((3, n));
        for c in 0..3 {
            jacobian.slice_mut(s![c, c * (width + 1)..(c + 1) * (width + 1)]).assign(&features.row(item));
        }
        jacobian
    };
    let mut precision = ndarray::Array2::<f64>::eye(n) * lambda;
    for item in 0..4 {
        let p = bayes_lora::belief::softmax(mean.slice(s![item..item + 1, ..])).row(0).to_owned();
        let fisher = ndarray::Array2::from_diag(&p) - p.view().insert_axis(Axis(1)).dot(&p.view().insert_axis(Axis(0)));
        precision += &jacobian(item).t().dot(&fisher).dot(&jacobian(item));
    }
    let decomposition = bayes_lora::linalg::eigh(precision.view()).unwrap();
    let inverse = decomposition.vectors.dot(&ndarray::Array2::from_diag(&decomposition.values.mapv(f64::recip)));
    let inverse = inverse.dot(&decomposition.vectors.t());
    for item in 0..4 {
        let dense = jacobian(item).dot(&inverse).dot(&jacobian(item).t());
        // features in f32
        let error = relative_error(&covariance.index_axis(Axis(0), item).to_owned(), &dense);
        assert!(error < 1e-5, "item {item}: {error:e}");
    }
    let probabilities = belief.probabilities(LinkApprox::default()).unwrap();
    assert!(probabilities.sum_axis(Axis(1)).iter().all(|sum| (sum - 1.0).abs() < 1e-9));
}

#[test]
fn a_fit_is_saved_with_its_head_and_answers_the_same_bits_when_it_is_loaded() {
    let data = data();
    let trainer = TrainerConfig::default().with_epochs(4).with_learning_rate(1e-2);
    let lora = LoraConfig::new(2).with_target_modules(["query", "value"]);
    let bayes = BayesLoraConfig::new(lora).with_trainer(trainer).with_limits(LIMITS).init().unwrap();
    let fresh = |seed| SequenceClassifier::new(loaded(DType::F32).encoder, &data, seed).unwrap();
    let fitted = bayes.fit(fresh(0), &data).unwrap();
    let out = tempfile::tempdir().unwrap();
    fitted.save(out.path(), "tiny_bert").unwrap();
    // its own head is not needed: that of the adapter's files takes its place
    let again = FittedBayesLora::load(fresh(5), out.path(), LIMITS).unwrap();
    let answer = |fitted: &FittedBayesLora<SequenceClassifier<Encoder>>| fitted.predict_calibrated(&data).unwrap();
    assert_eq!(answer(&again).probabilities, answer(&fitted).probabilities);
    assert_ne!(answer(&fitted).probabilities.sum_axis(Axis(0))[0], 0.0);
}

#[test]
fn a_decoder_classifies_by_a_head_at_its_last_token() {
    let data = data();
    let base = root().join("tests/fixtures/tiny_llama/base");
    let lm = Pretrained::from_dir(&base).unwrap().load(&device()).unwrap();
    let model = SequenceClassifier::new(lm, &data, 0).unwrap();
    assert_eq!((model.head.path.as_str(), model.head.has_bias()), ("score", false));
    let left = logits(&model, &Padded(&data, PaddingSide::Left));
    // f32
    assert!(relative_error(&left, &logits(&model, &data)) < 1e-4);
    let lora = LoraConfig::new(2).with_target_modules(["q_proj"]);
    let start = attach(model, &lora, 0).unwrap();
    let trainer = TrainerConfig::default().with_epochs(1).with_limits(LIMITS);
    let model = Trainer::new(trainer).unwrap().fit(start, &data, None, &Control::silent()).unwrap().model;
    let curvature = fit_curvature(&model, &data, &CurvatureConfig::default(), &Control::silent()).unwrap();
    assert!(Laplace::new(&model, &curvature, &LaplaceConfig::default()).is_ok());
}

#[test]
fn the_head_of_a_decoder_is_read_from_the_adapter_that_peft_saved() {
    let data = data();
    let lm = Pretrained::from_dir(root().join("tests/fixtures/tiny_llama/base")).unwrap().load(&device()).unwrap();
    let adapter = root().join("tests/fixtures/cases/seq_cls_score/adapter");
    let (model, config) = load_peft(SequenceClassifier::new(lm, &data, 0).unwrap(), &adapter).unwrap();
    assert_eq!(config.task_type.as_deref(), Some("SEQ_CLS"));
    let bytes = std::fs::read(adapter.join("adapter_model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let stored = file.tensor("base_model.model.score.weight").unwrap();
    // in f64 there, in f32 here
    let stored: Vec<f64> =
        stored.data().chunks_exact(8).map(|b| f64::from(f64::from_le_bytes(b.try_into().unwrap()) as f32)).collect();
    let head = &read_adapter(&model).unwrap()[&Site { module: "score".into(), matrix: LoraMatrix::Whole }];
    assert_eq!(head.iter().copied().collect::<Vec<_>>(), stored);
    // a prior around the start needs a start that is known
    assert!(bayes_lora::lora::initial_weights(&model).is_err());
}

#[test]
fn models_and_data_of_different_forms_are_refused_in_words() {
    let data = data();
    let refused = |result: bayes_lora::Result<SequenceClassifier<Encoder>>, words: [&str; 2]| {
        let error = result.unwrap_err().to_string();
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
    };
    let tokens = EncodedDataset { answers: ResolvedAnswers::ClassTokens(vec![4, 5, 6]), ..data.clone() };
    refused(SequenceClassifier::new(loaded(DType::F32).encoder, &tokens, 0), ["PromptClassifier", "Labels"]);
    let four = EncodedDataset { n_classes: 4, ..data.clone() };
    let LoadedEncoder { encoder, head, .. } = loaded(DType::F32);
    refused(SequenceClassifier::with_head(encoder, head.unwrap(), &four), ["4", "3"]);
    let mut beyond = data.clone();
    beyond.items[0].rows[0].ids.push(96);
    refused(SequenceClassifier::new(loaded(DType::F32).encoder, &beyond, 0), ["96", "vocabulary"]);
    let mut long = data.clone();
    long.items[0].rows[0].ids = vec![5; 17];
    let model = SequenceClassifier::new(loaded(DType::F32).encoder, &long, 0).unwrap();
    let error = bayes_lora::predict::predict_map(&model, &long, &LIMITS, &Control::silent()).unwrap_err().to_string();
    assert!(error.contains("17") && error.contains("16"), "{error}");
    let error = attach(model, &LoraConfig::new(2).with_target_modules(["classifier"]), 0).unwrap_err().to_string();
    assert!(error.contains("classifier"), "{error}");
}
