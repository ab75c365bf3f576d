//! Texts with a number each.

use super::{LIMITS, adapter, dataset, decoder, encoder, expected_gradient, json, pairs, precisions};
use crate::support::{f64_or_skip, logits, relative_error};
use bayes_lora::curvature::{AdapterSubset, CurvatureConfig, CurvatureStructure};
use bayes_lora::data::{EncodedDataset, EncodedItem, ResolvedAnswers, ValuedDataset};
use bayes_lora::likelihood::Gaussian;
use bayes_lora::linalg::eigh;
use bayes_lora::lora::{LoraConfig, load_peft, read_adapter};
use bayes_lora::models::{Classifier, Dataset, Encoder, LanguageModel, SequenceClassifier};
use bayes_lora::posterior::{Laplace, LaplaceConfig, log_likelihood_gradient};
use bayes_lora::predict::{Predictive, predict_targets};
use bayes_lora::prior::PriorMean;
use bayes_lora::progress::Control;
use bayes_lora::tape::Tape;
use bayes_lora::train::TrainerConfig;
use bayes_lora::{BayesLoraConfig, FittedBayesLora};
use burn::tensor::DType;
use ndarray::{Array1, Array2, Axis, concatenate};
use std::f64::consts::TAU;

/// The eight texts of the pairs with their numbers.
fn data() -> ValuedDataset {
    let values: Vec<[f64; 2]> = serde_json::from_value(json("values")).unwrap();
    let rows = pairs().items.into_iter().flat_map(|item| item.rows);
    let item = |(i, row)| EncodedItem { id: format!("text {i}"), rows: vec![row], label: None, n_choices: 1 };
    let encoded = dataset(rows.enumerate().map(item).collect(), ResolvedAnswers::Value, 1);
    ValuedDataset::new(encoded, values.concat().into_iter().map(Some).collect()).unwrap()
}

fn model<L: LanguageModel>(network: L, name: &str) -> SequenceClassifier<L> {
    load_peft(SequenceClassifier::new(network, data().encoded(), 0).unwrap(), adapter(name)).unwrap().0
}

fn equals_torch<L: LanguageModel>(network: L, name: &str, tolerance: f64) {
    let (model, data) = (model(network, name), data());
    let likelihood = Gaussian { noise_variance: json("noise").as_f64().unwrap() };
    let expected = super::expected(name, "rewards").unwrap();
    let found = logits(&model, &data).into_shape_with_order((4, 2)).unwrap().into_dyn();
    assert!(relative_error(&found, &expected) < tolerance, "{name}");
    let gradient = log_likelihood_gradient(&model, &data, &likelihood, &LIMITS, &Control::silent()).unwrap();
    assert_eq!(gradient.len(), 9);
    for (site, gradient) in gradient {
        let error = relative_error(&-gradient, &expected_gradient(name, "value", &site));
        // rotary tables of f32
        assert!(error < 2.0 * tolerance, "{name}: gradient at {site} {error:e}");
    }
}

#[test]
fn numbers_and_gradients_of_their_squares_equal_those_of_transformers_and_peft() {
    for (dtype, tolerance) in precisions() {
        equals_torch(encoder(dtype), "bert", tolerance);
        equals_torch(decoder(dtype), "llama", tolerance);
    }
}

/// `ln N(r; 0, ΦΦᵀ/λ + σ²I)`
fn log_evidence(features: &Array2<f64>, residuals: &Array1<f64>, lambda: f64, noise: f64) -> f64 {
    let covariance = features.dot(&features.t()) / lambda + Array2::<f64>::eye(residuals.len()) * noise;
    let eigen = eigh(covariance.view()).unwrap();
    let rotated = eigen.vectors.t().dot(residuals);
    -0.5 * rotated.iter().zip(&eigen.values).map(|(r, v)| r * r / v + (TAU * v).ln()).sum::<f64>()
}

/// The output is linear in the head: noise and prior are those with the most evidence of Bayesian linear regression on the features, which
/// is computed densely here, and so are means and deviations.
#[test]
fn the_posterior_of_a_head_is_that_of_linear_regression_with_its_noise_by_evidence() {
    if !f64_or_skip("a regression's head in f64") {
        return;
    }
    let (model, data) = (model(encoder(DType::F64), "bert"), data());
    let n = data.n_items();
    let input = data.batch(&(0..n).collect::<Vec<_>>(), &model.device(), model.dtype()).unwrap();
    let features = model.valid_features(&input);
    let ones = Array2::ones((n, 1));
    let features = concatenate(Axis(1), &[features.view(), ones.view()]).unwrap();
    // eight outputs of 33 weights: fewer numbers by a projection of the truth, so that there is noise to find
    let weights = Array1::from_shape_fn(features.ncols(), |k| ((k * 7 % 5) as f64 - 2.0) / 6.0);
    let noise = Array1::from_vec(vec![0.31, -0.12, -0.25, 0.18, 0.22, -0.33, 0.05, -0.07]);
    let y = features.dot(&weights) + noise;
    let data = ValuedDataset::new(data.encoded().clone(), y.iter().copied().map(Some).collect()).unwrap();

    let curvature = CurvatureConfig::default()
        .with_structure(CurvatureStructure::Full)
        .with_subset(AdapterSubset::Pattern("classifier".into()))
        .with_limits(LIMITS);
    let config = LaplaceConfig::default().with_prior_mean(PriorMean::Zero);
    let control = Control::silent();
    let (laplace, found) = Laplace::fit_noise(&model, &data, (&curvature, &config), &LIMITS, &control).unwrap();
    let (lambda, noise) = (found.precisions.values()[0].value(), found.noise_variance);
    let best = log_evidence(&features, &y, lambda, noise);
    assert!((found.log_marginal_likelihood - best).abs() < 1e-7, "{found:?} against {best}"); // the error function's part
    for (a, b) in [(0.05, 0.0), (-0.05, 0.0), (0.0, 0.05), (0.0, -0.05), (1.0, -1.0), (-1.0, 1.0)] {
        let moved = log_evidence(&features, &y, lambda * f64::exp(a), noise * f64::exp(b));
        assert!(moved < best, "{a}, {b}: {moved} above {best}");
    }
    assert_eq!(laplace.likelihood().to_string(), format!("gaussian, noise_variance {noise}"));

    let answer = predict_targets(&model, &laplace, &data, Predictive::default(), &LIMITS, &control).unwrap();
    let gram = features.t().dot(&features) / noise + Array2::<f64>::eye(features.ncols()) * lambda;
    let eigen = eigh(gram.view()).unwrap();
    let covariance = (&eigen.vectors / &eigen.values).dot(&eigen.vectors.t());
    let dense = features.dot(&covariance).dot(&features.t());
    let (mean, without) = answer.belief.moments();
    assert!(relative_error(&mean, &logits(&model, &data)) < 1e-12);
    for item in 0..n {
        assert!((without[[item, 0, 0]] / dense[[item, item]] - 1.0).abs() < 1e-6);
        let with = answer.moments.covariance[[item, 0, 0]];
        assert!((with - without[[item, 0, 0]] - noise).abs() < 1e-12); // one sum
    }
}

trait Features {
    fn valid_features(&self, input: &bayes_lora::models::TokenBatch) -> Array2<f64>;
}

impl Features for SequenceClassifier<Encoder> {
    fn valid_features(&self, input: &bayes_lora::models::TokenBatch) -> Array2<f64> {
        use burn::module::Module;
        let pooled = self.valid().network.pooled(input, &mut Tape::off());
        let [rows, width] = pooled.dims();
        Array2::from_shape_vec((rows, width), pooled.into_data().iter::<f64>().collect()).unwrap()
    }
}

/// Every text twice, with numbers that differ: no weights fit them all.
fn twice() -> ValuedDataset {
    let data = data();
    let (mut encoded, mut values) = (data.encoded().clone(), data.values().to_vec());
    for (place, item) in data.encoded().items.iter().enumerate() {
        encoded.items.push(EncodedItem { id: format!("{} again", item.id), ..item.clone() });
        values.push(data.values()[place].map(|value| value + [0.6, -0.9, 0.4][place % 3]));
    }
    ValuedDataset::new(encoded, values).unwrap()
}

#[test]
fn a_regression_is_trained_given_its_noise_saved_and_loaded() {
    let data = twice();
    let trainer = TrainerConfig::default().with_epochs(60).with_learning_rate(2e-2).with_limits(LIMITS);
    let lora = LoraConfig::new(2).with_target_modules(["query", "value"]);
    let bayes = BayesLoraConfig::new(lora)
        .with_trainer(trainer)
        .with_likelihood(Gaussian { noise_variance: 1.0 })
        .with_limits(LIMITS)
        .init()
        .unwrap();
    let fresh = |seed| SequenceClassifier::new(encoder(DType::F32), data.encoded(), seed).unwrap();
    let mut fitted = bayes.fit(fresh(0), &data).unwrap();
    let squares = |model: &SequenceClassifier<Encoder>| {
        logits(model, &data).iter().zip(data.values()).map(|(f, y)| (f - y.unwrap()).powi(2)).sum::<f64>()
    };
    assert!(squares(&fitted.model) < 0.5 * squares(&fresh(0)), "{}", squares(&fitted.model));
    let (curvature, config) = (CurvatureConfig::default().with_limits(LIMITS), LaplaceConfig::default());
    let noise = Laplace::fit_noise(&fitted.model, &data, (&curvature, &config), &LIMITS, &Control::silent());
    let (laplace, noise) = noise.unwrap();
    assert!(noise.search.is_inside() && noise.noise_variance > 0.0);
    fitted.laplace = laplace;
    let answer = fitted.predict_targets(&data).unwrap();
    assert!(answer.moments.covariance.iter().all(|variance| *variance > noise.noise_variance));

    let out = tempfile::tempdir().unwrap();
    fitted.save(out.path(), "tiny_bert").unwrap();
    let again = FittedBayesLora::load(fresh(5), out.path(), LIMITS).unwrap();
    assert_eq!(again.predict_targets(&data).unwrap(), answer);
    assert_eq!(read_adapter(&again.model).unwrap(), read_adapter(&fitted.model).unwrap());
    let error = again.predict_calibrated(&data).unwrap_err().to_string();
    assert!(error.contains("predict_targets"), "{error}");
}

#[test]
fn numbers_and_heads_for_classes_are_refused_with_both_counts() {
    let data = data();
    let labels = EncodedDataset { answers: ResolvedAnswers::Labels, n_classes: 2, ..data.encoded().clone() };
    let two = SequenceClassifier::new(encoder(DType::F32), &labels, 0).unwrap().head;
    let error = SequenceClassifier::with_head(encoder(DType::F32), two, data.encoded()).unwrap_err().to_string();
    assert!(error.contains("expected 1, found 2"), "{error}");
    // numbers with a likelihood for classes
    let model = SequenceClassifier::new(encoder(DType::F32), data.encoded(), 0).unwrap();
    let lora = LoraConfig::new(2).with_target_modules(["query"]);
    let error = BayesLoraConfig::new(lora).init().unwrap().fit(model, &data).unwrap_err().to_string();
    assert!(error.contains("categorical") && error.contains("text 0"), "{error}");
    let error = ValuedDataset::new(labels, vec![None; 8]).unwrap_err().to_string();
    assert!(error.contains("AnswerForm::Value"), "{error}");
}
