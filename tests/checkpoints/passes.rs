//! Curvature passes and predictions: taken up after any batch, and never for others than they are about.

use super::{files, seldom};
use crate::support::points::{adapted, blobs, quick, train};
use crate::support::{FIXTURES, Fixture, f64_or_skip};
use bayes_lora::belief::LinkApprox;
use bayes_lora::checkpoints::Checkpoints;
use bayes_lora::curvature::{
    Curvature, CurvatureConfig, CurvatureStructure, RandomProjection, fit_curvature, fit_curvatures,
};
use bayes_lora::data::BatchLimits;
use bayes_lora::error::Error;
use bayes_lora::models::Points;
use bayes_lora::posterior::{Beyond, JacobianRows, Laplace, LaplaceConfig, LinearizedConfig};
use bayes_lora::predict::{Predictive, predict};
use bayes_lora::prior::PriorPrecision;
use bayes_lora::progress::Control;
use burn::tensor::DType;
use std::path::Path;
use std::time::Duration;

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

/// Rows, outputs and `J(θ* − μ)` as bits.
fn bits(rows: &JacobianRows) -> Vec<u64> {
    let numbers = rows.gram().into_iter().chain(rows.to_matrix());
    let beside = rows.items.outputs.iter().chain(&rows.items.drift).copied();
    numbers.chain(beside).map(f64::to_bits).collect()
}

/// Calls until one is not cut off by a cancelled control, which ends after a batch; with the number of those that were.
fn until_done<T>(dir: &Path, mut call: impl FnMut(&Control) -> Result<T, Error>) -> (T, usize) {
    for interruptions in 0..100 {
        let cancelled = seldom(dir);
        cancelled.cancel();
        match call(&cancelled) {
            Ok(done) => return (done, interruptions),
            Err(error) => assert!(matches!(error, Error::Cancelled { .. }), "{error}"),
        }
        assert_eq!(cancelled.save_failures().count, 0);
    }
    panic!("no progress")
}

#[test]
fn jacobians_taken_up_after_any_batch_are_the_same_bits_in_files_that_hold_every_row_once() {
    let data = blobs(700, 1);
    let model = train(quick(1), adapted(0.0), &data, None).model;
    let curvature = fit_curvature(&model, &data, &CurvatureConfig::default(), &Control::silent()).unwrap();
    let laplace = Laplace::new(&model, &curvature, &LaplaceConfig::default()).unwrap();
    // 25 batches of all items, whose rows lie in three blocks
    let limits = BatchLimits { max_items: 28, max_tokens: 1000 };
    let exact = LinearizedConfig::default().with_limits(limits);
    let projection = RandomProjection { width: 20, seed: 1 };
    let subset = exact.with_exact_rows(300).with_beyond(Beyond::Subset { seed: 1 });
    for config in [exact, exact.with_exact_rows(0).with_projection(projection), subset] {
        let dir = tempfile::tempdir().unwrap();
        let of = |control: &Control| JacobianRows::of(&model, &laplace, &data, &config, control);
        let whole = bits(&of(&Control::silent()).unwrap());
        let (rows, interruptions) = until_done(dir.path(), of);
        assert!(interruptions > 10, "{interruptions} interruptions only");
        assert!(bits(&rows) == whole, "{config:?}");
        // workers ahead of the batch that was counted leave nothing behind
        let parts = files(&dir.path().join("jacobians"));
        assert_eq!(parts.len(), interruptions);
        let bytes: u64 = parts.iter().map(|part| part.metadata().unwrap().len()).sum();
        // outputs, J(θ* − μ) and a header beside the rows, each once
        let beside = 24 * rows.n_rows() + 2000 * parts.len();
        assert!(bytes as usize <= rows.bytes() + beside, "{bytes} for {}", rows.bytes());

        // a pass that is never cut off saves when that is due, and the next one reads all of it
        let dir = tempfile::tempdir().unwrap();
        let often = Checkpoints::new(dir.path()).with_every(Duration::ZERO);
        let often = Control::silent().with_checkpoints(often).unwrap();
        for _ in 0..2 {
            assert!(bits(&of(&often).unwrap()) == whole);
        }
        assert_eq!(files(&dir.path().join("jacobians")).len(), parts.len());
    }
}

#[test]
fn unfinished_jacobians_of_another_posterior_are_not_taken_up_and_damaged_ones_are_refused() {
    let data = blobs(60, 1);
    let model = adapted(0.0);
    let curvature = fit_curvature(&model, &data, &CurvatureConfig::default(), &Control::silent()).unwrap();
    let config = LinearizedConfig::default();
    let dir = tempfile::tempdir().unwrap();
    let often = Checkpoints::new(dir.path()).with_every(Duration::ZERO);
    let often = Control::silent().with_checkpoints(often).unwrap();
    for (n, precision) in [1.0, 4.0].into_iter().enumerate() {
        let laplace = LaplaceConfig::default().with_prior_precision(PriorPrecision::new(precision).unwrap());
        let laplace = Laplace::new(&model, &curvature, &laplace).unwrap();
        let of = |control: &Control| JacobianRows::of(&model, &laplace, &data, &config, control);
        assert!(bits(&of(&often).unwrap()) == bits(&of(&Control::silent()).unwrap()));
        assert_eq!(files(&dir.path().join("jacobians")).len(), (n + 1) * 60usize.div_ceil(8));
    }
    for file in files(&dir.path().join("jacobians")) {
        let mut bytes = std::fs::read(&file).unwrap();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        std::fs::write(&file, bytes).unwrap();
    }
    let laplace = LaplaceConfig::default().with_prior_precision(PriorPrecision::new(1.0).unwrap());
    let laplace = Laplace::new(&model, &curvature, &laplace).unwrap();
    let error = JacobianRows::of(&model, &laplace, &data, &config, &often).unwrap_err().to_string();
    assert!(error.contains("damaged") && error.contains("jacobians"), "{error}");
}

#[test]
fn a_posterior_whose_prior_needs_the_training_items_ends_in_the_same_bits_however_often_it_is_cut_off() {
    let data = blobs(60, 3);
    let model = train(quick(10), adapted(0.0), &data, None).model;
    let curvature = fit_curvature(&model, &data, &CurvatureConfig::default(), &Control::silent()).unwrap();
    let limits = BatchLimits { max_items: 8, max_tokens: 1000 };
    let config = LaplaceConfig::without_labels();
    let fit = |control: &Control| Laplace::fit(&model, &curvature, &data, &config, &limits, control);
    let whole = fit(&Control::silent()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (found, interruptions) = until_done(dir.path(), fit);
    assert!(interruptions > 5, "{interruptions} interruptions only");
    assert_eq!(found.prior_precisions(), whole.prior_precisions());
    assert_eq!(found.prior_searches(), whole.prior_searches());
    assert_eq!(found.answer_temperatures(), whole.answer_temperatures());
}
