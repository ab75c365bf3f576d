//! Curvature that cannot be fitted, and posteriors of another model.

use super::{LIMITS, NAME, adapted_mlp, check, mlp, points, silent};
use crate::support::{Fixture, continuation_dataset, device};
use bayes_lora::curvature::{
    Cotangents, CurvatureConfig, CurvatureStructure, CurvatureSums, FactorSum, FisherKind, GramSum, TokenTreatment,
    fit_curvature, probe,
};
use bayes_lora::data::BatchLimits;
use bayes_lora::error::Result;
use bayes_lora::likelihood::Gaussian;
use bayes_lora::lora::{LoraConfig, attach};
use bayes_lora::memory::available_bytes;
use bayes_lora::models::{Classifier, Dataset, Mlp, MlpConfig, Points};
use bayes_lora::posterior::{Laplace, LaplaceConfig};
use bayes_lora::predict::{Predictive, predict};
use bayes_lora::prior::PriorPrecision;
use burn::tensor::DType;
use ndarray::Array2;

fn labelless() -> Points {
    Points { labels: vec![], ..points() }
}

fn curvature_with(config: CurvatureConfig, data: &Points) -> Result<()> {
    fit_curvature(&adapted_mlp(2), data, &config, &silent()).map(|_| ())
}

fn fixed_prior() -> LaplaceConfig {
    LaplaceConfig::default().with_prior_precision(PriorPrecision::new(1.0).unwrap())
}

fn posterior_of(model: &Mlp) -> Laplace {
    let curvature = fit_curvature(model, &points(), &CurvatureConfig::default(), &silent()).unwrap();
    Laplace::new(model, &curvature, &fixed_prior()).unwrap()
}

#[test]
fn a_bad_curvature_is_refused_by_name_and_numbers() {
    check(&[
        (
            "`last` with continuations",
            || {
                let data = continuation_dataset();
                let model = attach(Fixture::load(NAME).model_for(&data, DType::F32), &LoraConfig::new(2), 0)?;
                let config = CurvatureConfig::default().with_treatment(TokenTreatment::Last);
                fit_curvature(&model, &data, &config, &silent()).map(|_| ())
            },
            &["last", "continuation"],
        ),
        (
            "items with one choice",
            || {
                let model = attach(MlpConfig::new([2, 5, 1]).init(&device())?, &LoraConfig::new(2), 0)?;
                let data = Points { labels: vec![0; 3], ..points() };
                fit_curvature(&model, &data, &CurvatureConfig::default(), &silent()).map(|_| ())
            },
            &["none of the 3 items", "two choices"],
        ),
        (
            "a sum that is not finite",
            || {
                let model = adapted_mlp(2);
                let mut curvature = fit_curvature(&model, &points(), &CurvatureConfig::default(), &silent())?;
                let CurvatureSums::Kronecker(factors) = &mut curvature.sums else { return Ok(()) };
                factors[1].gradient = FactorSum::Dense(Array2::from_elem((5, 5), f64::NAN));
                Laplace::new(&model, &curvature, &fixed_prior()).map(|_| ())
            },
            &["gradient factor of `layers.0", "25 of 25"],
        ),
        (
            "a joint sum that is not finite",
            || {
                let model = adapted_mlp(2);
                let config = CurvatureConfig::new(CurvatureStructure::Full);
                let mut curvature = fit_curvature(&model, &points(), &config, &silent())?;
                let CurvatureSums::Joint(blocks) = &mut curvature.sums else { return Ok(()) };
                let GramSum::Matrix(matrix) = &mut blocks[0].sum else { return Ok(()) };
                matrix[[0, 0]] = f64::INFINITY;
                Laplace::new(&model, &curvature, &fixed_prior()).map(|_| ())
            },
            &["`layers.0", "`layers.1", "1 of "],
        ),
        (
            "an empirical Fisher without labels",
            || curvature_with(CurvatureConfig::default().with_fisher(FisherKind::Empirical), &labelless()),
            &["empirical", "label", "point 0"],
        ),
        (
            "a sampled Fisher without samples",
            || curvature_with(CurvatureConfig::default().with_fisher(FisherKind::Sampled { n: 0, seed: 0 }), &points()),
            &["labels", "at least 1", "got 0"],
        ),
        (
            "negative noise",
            || {
                let likelihood = Gaussian { noise_variance: -1.0 };
                curvature_with(CurvatureConfig::default().with_likelihood(likelihood), &points())
            },
            &["noise_variance", "positive", "got -1"],
        ),
    ]);
}

#[test]
fn a_bad_posterior_is_refused_by_name_and_numbers() {
    check(&[
        (
            "an evidence without labels",
            || {
                let model = adapted_mlp(2);
                let curvature = fit_curvature(&model, &labelless(), &CurvatureConfig::default(), &silent())?;
                Laplace::new(&model, &curvature, &fixed_prior())?
                    .log_marginal_likelihood(PriorPrecision::new(1.0)?)
                    .map(|_| ())
            },
            &["evidence", "labels"],
        ),
        (
            "an evidence at the prior's centre",
            || {
                let model = adapted_mlp(2);
                let curvature = fit_curvature(&model, &points(), &CurvatureConfig::default(), &silent())?;
                Laplace::new(&model, &curvature, &LaplaceConfig::default()).map(|_| ())
            },
            &["evidence", "is 0"],
        ),
        (
            "the posterior of fewer sites",
            || {
                let fewer = attach(mlp(), &LoraConfig::new(2).with_target_modules(["layers.0"]), 0)?;
                let limits = BatchLimits { max_items: 2, max_tokens: 2 };
                predict(&adapted_mlp(2), &posterior_of(&fewer), &points(), Predictive::default(), &limits, &silent())
                    .map(|_| ())
            },
            &["sites", "expected 2", "found 4"],
        ),
        (
            "the posterior of another rank",
            || {
                let other = adapted_mlp(1);
                predict(&adapted_mlp(2), &posterior_of(&other), &points(), Predictive::default(), &LIMITS, &silent())
                    .map(|_| ())
            },
            &["layers.0.lora_A", "[1, 2]", "[2, 2]"],
        ),
        (
            "the posterior of another module",
            || {
                let square = MlpConfig::new([3, 3, 3]).init(&device())?;
                let at = |target: &str| attach(square.clone(), &LoraConfig::new(2).with_target_modules([target]), 0);
                let data = Points::new(Array2::ones((2, 3)), vec![0, 1])?;
                let curvature = fit_curvature(&at("layers.0")?, &data, &CurvatureConfig::default(), &silent())?;
                let laplace = Laplace::new(&at("layers.0")?, &curvature, &fixed_prior())?;
                let model = at("layers.1")?;
                let input = data.batch(&[0, 1], &model.device(), model.dtype())?;
                laplace.project(&probe(&model, &input, Cotangents::Classes)?).map(|_| ())
            },
            &["layers.0.lora_A", "layers.1.lora_A"],
        ),
        (
            "the curvature of another adapter",
            || {
                let curvature = fit_curvature(&adapted_mlp(1), &points(), &CurvatureConfig::default(), &silent())?;
                Laplace::new(&adapted_mlp(2), &curvature, &fixed_prior()).map(|_| ())
            },
            &["layers.0.lora_A", "[2, 2]", "[1, 2]"],
        ),
    ]);
}

#[test]
fn sums_that_the_memory_cannot_hold_are_refused_with_both_numbers() {
    // the matrix of 600,006 weights has 2.9 TB
    let model = MlpConfig::new([2, 300_000, 3]).init(&device()).unwrap();
    let model = attach(model, &LoraConfig::new(1).with_target_modules(["layers.0", "layers.1"]), 1).unwrap();
    let data = Points { labels: vec![0], features: Array2::zeros((1, 2)) };
    let full = CurvatureConfig::new(CurvatureStructure::Full);
    let error = |config: &CurvatureConfig| fit_curvature(&model, &data, config, &silent()).unwrap_err().to_string();
    let needed = bayes_lora::curvature::estimate_cost(&model, &data, &full).unwrap().bytes;
    assert!(needed > 2 << 40, "{needed}");
    let limited = error(&full.clone().with_memory_limit(1000));
    assert!(limited.contains(&needed.to_string()) && limited.ends_with("got 1000"), "{limited}");
    if let Some(free) = available_bytes().filter(|free| *free < needed) {
        let found = error(&full);
        assert!(found.contains("free memory") && found.contains(&needed.to_string()), "{found}");
        // what was free a moment later
        let said: f64 = found.rsplit(' ').next().unwrap().parse().unwrap();
        assert!(said > 0.0 && said / free as f64 > 0.1, "{found}");
    }
}
