//! Everything the library computes on the tiny fixtures equals what PyTorch and PEFT computed in f64.
//!
//! `tests/fixtures/README.md` defines the keys; the program that made them calls no Laplace library.
//! f32 is held to 1e-3 relative. f64 (CPU only) is held to 1e-5: transformers computes its rotary tables in f32 even in an
//! f64 model, which is 3e-7 in the logits; the host algebra on given factors is held to 1e-9.

mod support;

use bayes_lora::curvature::{
    Cotangents, Curvature, CurvatureConfig, CurvatureSums, FactorSum, KroneckerFactors, TokenTreatment, fit_curvature,
    probe,
};
use bayes_lora::data::{BatchLimits, BatchOrder};
use bayes_lora::likelihood::{Categorical, Target};
use bayes_lora::lora::{adapter_fingerprint, read_adapter};
use bayes_lora::models::{Classifier, ClassifierInput, Dataset};
use bayes_lora::posterior::{Laplace, LaplaceConfig};
use bayes_lora::prior::PriorPrecision;
use bayes_lora::progress::Control;
use bayes_lora::tape::{LoraMatrix, Site, Tape};
use bayes_lora::train::{TrainingMode, negative_log_likelihood, set_trainable};
use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::DType;
use ndarray::{Array2, Array3, Array4};
use std::collections::BTreeSet;
use support::{FIXTURES, Fixture, flat, has_f64, relative_error};

/// Element types to test with the tolerance each deserves.
fn precisions() -> Vec<(DType, f64)> {
    let mut all = vec![(DType::F32, 1e-3)];
    if has_f64() {
        all.push((DType::F64, 1e-5));
    }
    all
}

const ALL: BatchLimits = BatchLimits { max_items: 5, max_tokens: 1000 };

fn site_key(site: &Site) -> String {
    site.to_string()
}

fn fit(fixture: &Fixture, dtype: DType, treatment: TokenTreatment) -> (Laplace, Curvature) {
    let model = fixture.model(dtype);
    let config = CurvatureConfig::default().with_treatment(treatment).with_limits(ALL);
    let curvature = fit_curvature(&model, &fixture.train, &config, &Control::silent()).unwrap();
    let fixed = LaplaceConfig::default().with_prior_precision(PriorPrecision::new(1.0).unwrap());
    (Laplace::new(&model, &curvature, &fixed).unwrap(), curvature)
}

const TREATMENTS: [(TokenTreatment, &str); 3] =
    [(TokenTreatment::Expand, "expand"), (TokenTreatment::Reduce, "reduce"), (TokenTreatment::Last, "last")];
const LAMBDAS: [(f64, &str); 3] = [(0.1, "0.1"), (1.0, "1.0"), (10.0, "10.0")];

#[test]
fn logits_and_jacobians_equal_those_of_pytorch() {
    for name in FIXTURES {
        let fixture = Fixture::load(name);
        for (dtype, tolerance) in precisions() {
            let model = fixture.model(dtype);
            for (data, key) in [(&fixture.train, "train"), (&fixture.test, "test")] {
                let logits = fixture.matrix(&format!("{key}_logits"));
                let expected = fixture.jacobians(&format!("{key}_jacobian"));
                let mut found: Vec<Array4<f64>> = expected.iter().map(|j| j * f64::NAN).collect();
                for indices in data.plan(ALL, BatchOrder::ByLength).unwrap() {
                    let input = data.batch(&indices, &model.device(), dtype).unwrap();
                    let pass = probe(&model, &input, Cotangents::Classes).unwrap();
                    for (site, found) in pass.sites.iter().zip(&mut found) {
                        let jacobians = site.jacobians().unwrap();
                        for (k, &item) in indices.iter().enumerate() {
                            found
                                .index_axis_mut(ndarray::Axis(0), item)
                                .assign(&jacobians.index_axis(ndarray::Axis(0), k));
                        }
                    }
                    for (k, &item) in indices.iter().enumerate() {
                        let error = relative_error(&pass.logits.row(k).to_owned(), &logits.row(item).to_owned());
                        assert!(error < tolerance, "{name} {dtype:?} {key} logits: {error:e}");
                    }
                }
                for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
                    let error = relative_error(found, expected);
                    println!("{name} {dtype:?} {key} Jacobian of {}: {error:.1e}", fixture.parameter_order[i]);
                    assert!(error < tolerance, "{name} {dtype:?} {key} Jacobian {i}: {error:e}");
                }
            }
        }
    }
}

#[test]
fn the_gradient_of_the_mean_nll_equals_that_of_pytorch() {
    for name in FIXTURES {
        let fixture = Fixture::load(name);
        for (dtype, tolerance) in precisions() {
            let model = set_trainable(fixture.model(dtype), &TrainingMode::Lora).unwrap().train();
            let indices: Vec<usize> = (0..fixture.train.len()).collect();
            let input = fixture.train.batch(&indices, &model.device(), dtype).unwrap();
            let targets: Vec<Target> = indices.iter().map(|&i| fixture.train.target(i).unwrap()).collect();
            let outputs = model.logits(&input, &mut Tape::off());
            let loss = negative_log_likelihood(outputs, &Categorical, &targets, input.class_mask()).unwrap();
            assert!((loss.nats / fixture.scalar("train_nll_sum") - 1.0).abs() < tolerance);
            let gradients =
                GradientsParams::from_grads(loss.differentiable.div_scalar(indices.len() as f64).backward(), &model);
            let mut parts = Vec::new();
            for linear in bayes_lora::lora::Adaptable::linears(&model) {
                let Some(adapter) = &linear.adapter else { continue };
                for param in [&adapter.a, &adapter.b] {
                    let gradient = gradients.get::<2>(param.id).unwrap();
                    let dims = gradient.dims();
                    let values = gradient.into_data().convert::<f64>().try_into_vec::<f64>().unwrap();
                    parts.push(Array2::from_shape_vec(dims, values).unwrap());
                }
            }
            let expected = fixture.expected("mean_nll_gradient").into_dimensionality().unwrap();
            let error = relative_error(&flat(&parts), &expected);
            println!("{name} {dtype:?} gradient: {error:.1e}");
            assert!(error < tolerance, "{name} {dtype:?}: {error:e}");
        }
    }
}

#[test]
fn kronecker_sums_equal_those_of_pytorch() {
    for name in FIXTURES {
        let fixture = Fixture::load(name);
        for (dtype, tolerance) in precisions() {
            for (treatment, label) in TREATMENTS {
                let (_, curvature) = fit(&fixture, dtype, treatment);
                assert_eq!(curvature.kronecker_factors().unwrap().len(), fixture.parameter_order.len());
                let mut worst = 0.0f64;
                for factors in curvature.kronecker_factors().unwrap() {
                    for (sum, suffix) in [(&factors.activation, "aa"), (&factors.gradient, "gg")] {
                        let FactorSum::Dense(sum) = sum else { panic!("dense factors were asked for") };
                        let key = format!("site.{}.{label}_{suffix}", site_key(&factors.site));
                        worst = worst.max(relative_error(sum, &fixture.matrix(&key)));
                    }
                }
                println!("{name} {dtype:?} {label} sums: {worst:.1e}");
                assert!(worst < tolerance, "{name} {dtype:?} {label}: {worst:e}");
                let fit = curvature.log_likelihood.unwrap() / -fixture.scalar("train_nll_sum");
                assert!((fit - 1.0).abs() < tolerance);
            }
        }
    }
}

/// Covariances of raw logits at one λ from Jacobians given site by site.
fn covariance(laplace: &Laplace, jacobians: &[Array4<f64>], lambda: f64) -> Array3<f64> {
    let sites = laplace.blocks().iter().map(|block| block.spaces()[0].site.clone());
    let projections = laplace.project_jacobians(&sites.zip(jacobians.iter().cloned()).collect()).unwrap();
    laplace.covariance(&projections, PriorPrecision::new(lambda).unwrap()).unwrap()
}

fn check_posterior(
    fixture: &Fixture,
    laplace: &Laplace,
    jacobians: &[Array4<f64>],
    label: &str,
    tolerance: f64,
    what: &str,
) {
    let norm: f64 = fixture.expected("theta_map").iter().map(|v| v * v).sum();
    for (lambda, suffix) in LAMBDAS {
        let precision = PriorPrecision::new(lambda).unwrap();
        let expected = fixture.expected(&format!("kron_{label}_cov_lambda_{suffix}")).into_dimensionality().unwrap();
        let error = relative_error(&covariance(laplace, jacobians, lambda), &expected);
        let log_det = fixture.scalar(&format!("kron_{label}_log_det_ratio_lambda_{suffix}"));
        let log_det_error = (laplace.log_det_ratio(precision).unwrap() / log_det - 1.0).abs();
        let evidence = -fixture.scalar("train_nll_sum") - 0.5 * lambda * norm - 0.5 * log_det;
        let evidence_error = (laplace.log_marginal_likelihood(precision).unwrap() / evidence - 1.0).abs();
        println!(
            "{} {what} {label} λ = {lambda}: covariance {error:.1e}, log det {log_det_error:.1e}, evidence {evidence_error:.1e}",
            fixture.name
        );
        for error in [error, log_det_error, evidence_error] {
            assert!(error < tolerance, "{} {what} {label} λ = {lambda}: {error:e}", fixture.name);
        }
    }
}

#[test]
fn kronecker_covariances_log_determinants_and_evidence_equal_those_of_pytorch() {
    for name in FIXTURES {
        let fixture = Fixture::load(name);
        for (dtype, tolerance) in precisions() {
            let model = fixture.model(dtype);
            let indices: Vec<usize> = (0..fixture.test.len()).collect();
            let input = fixture.test.batch(&indices, &model.device(), dtype).unwrap();
            let pass = probe(&model, &input, Cotangents::Classes).unwrap();
            let jacobians: Vec<_> = pass.sites.iter().map(|s| s.jacobians().unwrap()).collect();
            for (treatment, label) in TREATMENTS {
                let (laplace, _) = fit(&fixture, dtype, treatment);
                check_posterior(&fixture, &laplace, &jacobians, label, tolerance, &format!("{dtype:?}"));
            }
        }
    }
}

#[test]
fn host_algebra_on_given_factors_equals_that_of_pytorch_to_1e_9() {
    for name in FIXTURES {
        let fixture = Fixture::load(name);
        let model = fixture.model(if has_f64() { DType::F64 } else { DType::F32 });
        let jacobians = fixture.jacobians("test_jacobian");
        for (treatment, label) in TREATMENTS {
            let factors = fixture.parameter_order.iter().map(|parameter| {
                let name = parameter.trim_end_matches(".weight");
                let (module, matrix) = name.rsplit_once('.').unwrap();
                let matrix = if matrix == "lora_A" { LoraMatrix::A } else { LoraMatrix::B };
                let sum = |suffix: &str| FactorSum::Dense(fixture.matrix(&format!("site.{name}.{label}_{suffix}")));
                KroneckerFactors {
                    site: Site { module: module.into(), matrix },
                    output_rows: None,
                    n_vectors: fixture.train.n_tokens(),
                    activation: sum("aa"),
                    gradient: sum("gg"),
                }
            });
            let curvature = Curvature {
                sums: CurvatureSums::Kronecker(factors.collect()),
                config: CurvatureConfig::default().with_treatment(treatment),
                n_data: fixture.train.len(),
                log_likelihood: Some(-fixture.scalar("train_nll_sum")),
                item_keys: BTreeSet::new(),
                adapter_fingerprint: adapter_fingerprint(&read_adapter(&model).unwrap()),
                asked: None,
            };
            let fixed = LaplaceConfig::default().with_prior_precision(PriorPrecision::new(1.0).unwrap());
            let laplace = Laplace::new(&model, &curvature, &fixed).unwrap();
            check_posterior(&fixture, &laplace, &jacobians, label, 1e-9, "given factors");
        }
    }
}
