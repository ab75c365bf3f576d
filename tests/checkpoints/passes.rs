//! Curvature passes and predictions: taken up after any batch, and never for others than they are about.

use crate::support::points::{adapted, blobs, quick, train};
use crate::support::{FIXTURES, Fixture, f64_or_skip};
use crate::{files, seldom};
use bayes_lora::belief::LinkApprox;
use bayes_lora::curvature::{Curvature, CurvatureConfig, CurvatureStructure, fit_curvature, fit_curvatures};
use bayes_lora::data::BatchLimits;
use bayes_lora::error::Error;
use bayes_lora::models::Points;
use bayes_lora::posterior::{Laplace, LaplaceConfig};
use bayes_lora::predict::{Predictive, predict};
use bayes_lora::progress::Control;
use burn::tensor::DType;

#[test]
fn a_pass_taken_up_after_any_batch_ends_in_the_same_bits() {
    if !f64_or_skip("a_pass_taken_up_after_any_batch_ends_in_the_same_bits") {
        return;
    }
    let fixture = Fixture::load(FIXTURES[0]);
    let (model, data) = (fixture.model(DType::F64), &fixture.train);
    let limits = BatchLimits { max_items: 15, max_tokens: 100_000 };
    let of = |structure| CurvatureConfig::new(structure).with_limits(limits);
    let low_rank = of(CurvatureStructure::Kronecker).with_dense_limit(0).with_low_rank(3);
    let configs: Vec<CurvatureConfig> = CurvatureStructure::ALL.map(of).into_iter().chain([low_rank]).collect();
    let whole = fit_curvatures(&model, data, &configs, &Control::silent()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let cancelled = seldom(dir.path());
    cancelled.cancel();
    let mut calls = 0;
    while let Err(error) = fit_curvatures(&model, data, &configs, &cancelled) {
        assert!(matches!(error, Error::Cancelled { .. }), "{error}");
        calls += 1;
        assert!(calls < 100, "no progress");
    }
    assert!(calls > 5, "{calls} interruptions only");
    let resumed: Vec<Curvature> = fit_curvatures(&model, data, &configs, &seldom(dir.path())).unwrap();
    for (resumed, whole) in resumed.iter().zip(&whole) {
        assert_eq!(resumed, whole, "{}", whole.config.structure);
    }
    assert_eq!(cancelled.save_failures().count, 0);
}

#[test]
fn other_settings_or_data_begin_a_pass_of_their_own_and_damage_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let model = adapted(0.0);
    let fit = |data: &Points, config: &CurvatureConfig| fit_curvature(&model, data, config, &seldom(dir.path()));
    let diagonal = CurvatureConfig::new(CurvatureStructure::Diagonal);
    let kinds = [
        (blobs(20, 1), CurvatureConfig::default()),
        (blobs(20, 3), CurvatureConfig::default()),
        (blobs(20, 1), diagonal),
    ];
    for (n, (data, config)) in kinds.iter().enumerate() {
        let alone = fit_curvature(&model, data, config, &Control::silent()).unwrap();
        assert_eq!(fit(data, config).unwrap(), alone);
        assert_eq!(files(&dir.path().join("curvature")).len(), n + 1);
    }
    for file in files(&dir.path().join("curvature")) {
        let mut bytes = std::fs::read(&file).unwrap();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        std::fs::write(&file, bytes).unwrap();
    }
    let error = fit(&kinds[0].0, &kinds[0].1).unwrap_err().to_string();
    assert!(error.contains("damaged") && error.contains("curvature"), "{error}");
}

#[test]
fn a_prediction_taken_up_after_any_batch_is_the_same_bits() {
    let (data, test) = (blobs(40, 1), blobs(20, 2));
    let model = train(quick(3), adapted(0.0), &data, None).model;
    let curvature = fit_curvature(&model, &data, &CurvatureConfig::default(), &Control::silent()).unwrap();
    let laplace = Laplace::new(&model, &curvature, &LaplaceConfig::default()).unwrap();
    let limits = BatchLimits { max_items: 4, max_tokens: 100 };
    let run = |laplace: &Laplace, how, control: &Control| predict(&model, laplace, &test, how, &limits, control);
    let dir = tempfile::tempdir().unwrap();
    let ways = [
        (Predictive::Map, 1),
        (Predictive::Linearized(LinkApprox::default()), 2),
        (Predictive::Sampled { n_samples: 3, seed: 1 }, 5),
    ];
    for (how, n_files) in ways {
        let whole = run(&laplace, how, &Control::silent()).unwrap();
        let mut calls = 0;
        loop {
            let cancelled = seldom(dir.path());
            cancelled.cancel();
            match run(&laplace, how, &cancelled) {
                Ok(prediction) => break assert_eq!(prediction, whole),
                Err(error) => assert!(matches!(error, Error::Cancelled { .. }), "{error}"),
            }
            calls += 1;
            assert!(calls < 100, "no progress");
        }
        assert!(calls >= 5, "{calls} interruptions only");
        assert_eq!(run(&laplace, how, &seldom(dir.path())).unwrap(), whole);
        assert_eq!(files(&dir.path().join("predict")).len(), n_files);
    }
    // another posterior does not take up the rows of this one
    let colder = laplace.clone().with_temperature(0.5).unwrap();
    let how = Predictive::Linearized(LinkApprox::default());
    let found = run(&colder, how, &seldom(dir.path())).unwrap();
    assert_eq!(found, run(&colder, how, &Control::silent()).unwrap());
    assert_ne!(found, run(&laplace, how, &Control::silent()).unwrap());
}
