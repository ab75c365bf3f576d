//! A posterior that is saved comes back bit by bit, and a damaged or foreign one is refused.

mod support;

use bayes_lora::bayes_lora::{BayesLoraConfig, FittedBayesLora};
use bayes_lora::belief::LogitGauge;
use bayes_lora::curvature::{CurvatureConfig, CurvatureStructure, RandomProjection, fit_curvature};
use bayes_lora::data::BatchLimits;
use bayes_lora::likelihood::Likelihood;
use bayes_lora::lora::{LoraConfig, attach, base_fingerprint, load_peft, read_adapter, write_adapter};
use bayes_lora::models::{Mlp, MlpConfig, Points};
use bayes_lora::posterior::{Laplace, LaplaceConfig, POSTERIOR_FILE, log_likelihood_gradient};
use bayes_lora::predict::{Predictive, predict_linearized};
use bayes_lora::prior::PriorGrouping;
use bayes_lora::progress::Control;
use burn::tensor::DType;
use ndarray::{Array2, Axis};
use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};
use std::path::Path;
use support::{FIXTURES, Fixture, device};

const LIMITS: BatchLimits = BatchLimits { max_items: 8, max_tokens: 4096 };

fn config(structure: CurvatureStructure) -> CurvatureConfig {
    CurvatureConfig { limits: LIMITS, ..CurvatureConfig::with_structure(structure) }
}

/// A small perceptron with an adapter that has left its start, and its points.
fn small() -> (Mlp, Points) {
    let model = attach(MlpConfig::new([3, 4, 2]).init(&device()).unwrap(), &LoraConfig::new(1), 0).unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut weights = read_adapter(&model).unwrap();
    weights.values_mut().for_each(|w| w.mapv_inplace(|_| f64::from(rng.random_range(-1.0f32..1.0))));
    let features = Array2::from_shape_fn((6, 3), |_| rng.random_range(-1.0..1.0));
    (write_adapter(model, &weights).unwrap(), Points::new(features, vec![0, 1, 0, 1, 1, 0]).unwrap())
}

/// Saves the posterior of that perceptron, and gives the model.
fn save_small(structure: CurvatureStructure, path: &Path) -> Mlp {
    let (model, points) = small();
    let curvature = fit_curvature(&model, &points, &config(structure), &Control::silent()).unwrap();
    Laplace::new(&model, &curvature, &LaplaceConfig::default()).unwrap().save(path, &model).unwrap();
    model
}

#[test]
fn what_is_loaded_predicts_and_draws_as_what_was_saved() {
    let fixture = Fixture::load(FIXTURES[0]);
    let model = fixture.model(DType::F32);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(POSTERIOR_FILE);
    let cut = CurvatureConfig { dense_limit: Some(0), low_rank: 3, ..config(CurvatureStructure::Kronecker) };
    let sketched = CurvatureConfig {
        projection: Some(RandomProjection { width: 100, seed: 3 }),
        ..config(CurvatureStructure::FunctionSpace)
    };
    for config in CurvatureStructure::ALL.map(config).into_iter().chain([cut, sketched]) {
        let curvature = fit_curvature(&model, &fixture.train, &config, &Control::silent()).unwrap();
        let prior_grouping = match config.structure {
            CurvatureStructure::Kronecker => PriorGrouping::PerMatrix,
            _ => PriorGrouping::Scalar,
        };
        let settings = LaplaceConfig { prior_grouping, temperature: 0.7, ..LaplaceConfig::default() };
        let mut saved = Laplace::new(&model, &curvature, &settings).unwrap();
        if config.structure == CurvatureStructure::Core {
            let gradient =
                log_likelihood_gradient(&model, &fixture.train, Likelihood::Categorical, &LIMITS, &Control::silent());
            saved = saved.with_gradient(&gradient.unwrap()).unwrap().with_optimal_prior().unwrap();
        }
        saved.save(&path, &model).unwrap();
        let loaded = Laplace::load(&path, &model).unwrap();
        let beliefs = [&saved, &loaded].map(|laplace| {
            predict_linearized(&model, laplace, &fixture.test, LogitGauge::Centred, &LIMITS, &Control::silent())
                .unwrap()
        });
        assert_eq!(beliefs[0].moments(), beliefs[1].moments(), "{config:?}");
        assert_eq!(saved.sample(3, 1), loaded.sample(3, 1), "{config:?}");
        let numbers = |laplace: &Laplace| {
            let precisions = laplace.prior_precisions().clone();
            (laplace.log_marginal_likelihood(&precisions).unwrap(), laplace.groups().to_vec(), precisions)
        };
        assert_eq!(numbers(&saved), numbers(&loaded), "{config:?}");
        assert_eq!(saved.optimize_prior().unwrap(), loaded.optimize_prior().unwrap(), "{config:?}");
        assert_eq!(saved.fitted_on(), loaded.fitted_on());
    }
}

#[test]
fn a_posterior_knows_the_data_that_it_was_fitted_on_in_any_order() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(POSTERIOR_FILE);
    let model = save_small(CurvatureStructure::Diagonal, &path);
    let fitted_on = Laplace::load(&path, &model).unwrap().fitted_on();
    let (_, points) = small();
    let take = |order: &[usize]| {
        let labels = order.iter().map(|&i| points.labels[i]).collect();
        Points::new(points.features.select(Axis(0), order), labels).unwrap()
    };
    fitted_on.check(&points).unwrap();
    fitted_on.check(&take(&[5, 4, 3, 2, 1, 0])).unwrap();
    let error = fitted_on.check(&take(&[0, 1, 2, 3, 4])).unwrap_err().to_string();
    assert!(error.contains("6 items") && error.contains("these are 5"), "{error}");
    assert!(fitted_on.check(&take(&[0, 1, 2, 3, 4, 4])).is_err());
}

#[test]
fn an_adapter_and_its_posterior_share_a_directory() {
    let fixture = Fixture::load(FIXTURES[0]);
    let dir = tempfile::tempdir().unwrap();
    let (model, lora) =
        load_peft(fixture.model_for(&fixture.train, DType::F32), fixture.dir().join("adapter")).unwrap();
    let bayes = BayesLoraConfig::new(lora).with_limits(LIMITS).with_curvature(config(CurvatureStructure::Core));
    let fitted = bayes.init().unwrap().fit_laplace(model, &fixture.train).unwrap();
    fitted.save(dir.path(), "tiny").unwrap();
    let base = fixture.model_for(&fixture.train, DType::F32);
    let loaded = FittedBayesLora::load(base, dir.path(), LIMITS).unwrap();
    for how in [Predictive::default(), Predictive::Sampled { n_samples: 3, seed: 1 }] {
        let [a, b] = [&fitted, &loaded].map(|f| f.predict(&fixture.test, how, &Control::silent()).unwrap());
        assert_eq!(a.probabilities, b.probabilities, "{how:?}");
    }
    let wrong = FittedBayesLora { lora: LoraConfig::new(3), ..loaded };
    let error = wrong.save(dir.path(), "tiny").unwrap_err().to_string();
    assert!(error.contains("rank 3") && error.contains("rank 4"), "{error}");
}

#[test]
fn another_adapter_or_base_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(POSTERIOR_FILE);
    let model = save_small(CurvatureStructure::Kronecker, &path);
    let mut weights = read_adapter(&model).unwrap();
    weights.values_mut().next().unwrap()[[0, 0]] += 0.5;
    let other = write_adapter(model.clone(), &weights).unwrap();
    let error = Laplace::load(&path, &other).unwrap_err().to_string();
    assert!(error.contains("posterior") && error.contains("fingerprints"), "{error}");
    // the same adapter on a base with other weights
    let base =
        attach(MlpConfig { seed: 9, ..MlpConfig::new([3, 4, 2]) }.init(&device()).unwrap(), &LoraConfig::new(1), 0);
    let elsewhere = write_adapter(base.unwrap(), &read_adapter(&model).unwrap()).unwrap();
    let error = Laplace::load(&path, &elsewhere).unwrap_err().to_string();
    assert!(error.contains("another base model") && error.contains("fingerprints"), "{error}");
    // the same matrices at another scale, or under another dropout
    let base = || MlpConfig::new([3, 4, 2]).init(&device()).unwrap();
    for config in [LoraConfig::new(1).with_alpha(32.0), LoraConfig::new(1).with_dropout(0.5)] {
        let scaled = write_adapter(attach(base(), &config, 0).unwrap(), &read_adapter(&model).unwrap()).unwrap();
        let error = Laplace::load(&path, &scaled).unwrap_err().to_string();
        assert!(error.contains("another scale or dropout") && error.contains("fingerprints"), "{error}");
    }
}

#[test]
fn a_base_is_known_whatever_its_adapter() {
    let base = |seed| MlpConfig { seed, ..MlpConfig::new([3, 4, 2]) }.init(&device()).unwrap();
    let plain = base_fingerprint(&base(0)).unwrap();
    assert_eq!(plain, base_fingerprint(&attach(base(0), &LoraConfig::new(1), 0).unwrap()).unwrap());
    assert_eq!(plain, base_fingerprint(&attach(base(0), &LoraConfig::new(2), 7).unwrap()).unwrap());
    assert_ne!(plain, base_fingerprint(&base(1)).unwrap());
}

#[test]
fn every_flipped_byte_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(POSTERIOR_FILE);
    let model = save_small(CurvatureStructure::Core, &path);
    let whole = std::fs::read(&path).unwrap();
    for place in 0..whole.len() {
        for bit in [0x01, 0x10] {
            let mut bytes = whole.clone();
            bytes[place] ^= bit;
            std::fs::write(&path, &bytes).unwrap();
            assert!(Laplace::load(&path, &model).is_err(), "byte {place} of {}, bit {bit:#x}", whole.len());
        }
    }
    std::fs::write(&path, &whole).unwrap();
    Laplace::load(&path, &model).unwrap();
    println!("{} damaged files were refused", 2 * whole.len());
}
