//! The whole path on tiny models: training, posterior, prediction, files, cancellation.

use crate::support::points::{LIMITS, Watched, blobs, distance, mlp, nll, quick, train};
use crate::support::{Fixture, logits, relative_error};
use bayes_lora::bayes_lora::{BayesLora, BayesLoraConfig, FitError, FittedBayesLora};
use bayes_lora::belief::LogitBelief;
use bayes_lora::curvature::{CurvatureConfig, CurvatureStructure, fit_curvature};
use bayes_lora::data::{BatchLimits, BatchOrder, EncodedDataset};
use bayes_lora::error::{Error, Result};
use bayes_lora::lora::{LoraConfig, attach, load_peft, merge, read_adapter, save_peft, summarize};
use bayes_lora::models::{Classifier, Dataset, Mlp, PromptClassifier};
use bayes_lora::posterior::{Laplace, LaplaceConfig};
use bayes_lora::predict::{Predictive, predict};
use bayes_lora::prior::{PriorGrouping, PriorPrecision};
use bayes_lora::progress::Control;
use bayes_lora::train::Trainer;
use burn::tensor::{DType, Device};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const NAME: &str = "tiny_llama";

// ---- three calls -------------------------------------------------------------------------------------------------

fn bayes(seed: u64) -> BayesLora {
    let lora = LoraConfig::new(2).with_target_pattern(".*layers.*(q_proj|v_proj|[01])");
    let config = BayesLoraConfig::new(lora).with_trainer(quick(12)).with_limits(LIMITS).with_seed(seed);
    // labels of noise, whose leave-one-out temperature makes all answers uniform: by evidence there is something to compare
    config.with_laplace(LaplaceConfig::default()).init().unwrap()
}

fn check_pipeline<M: Classifier, D: Dataset<Input = M::Input>>(model: &M, data: &D, test: &D) {
    let before = nll(model, data);
    let fitted = bayes(1).fit(model.clone(), data).unwrap();
    let after = nll(&fitted.model, data);
    assert!(after < 0.8 * before, "{before} nats before training, {after} after");
    let report = fitted.report.as_ref().unwrap();
    assert_eq!((report.epochs.len(), report.items), (12, 12 * data.n_items()));
    assert!(report.epochs[11].train_nll < report.epochs[0].train_nll);

    let answer = fitted.predict_calibrated(test).unwrap();
    let c = model.n_classes();
    assert_eq!(answer.probabilities.dim(), (test.n_items(), c));
    for (i, p) in answer.probabilities.outer_iter().enumerate() {
        assert!((p.sum() - 1.0).abs() < 1e-12 && p.iter().all(|v| *v > 0.0)); // rounding of a few terms
        let parts = &answer.entropy;
        assert!(parts.epistemic[i] > 0.0 && parts.expected[i] > 0.0 && parts.total[i] <= (c as f64).ln() + 1e-12);
        assert!((parts.total[i] - parts.expected[i] - parts.epistemic[i]).abs() < 1e-12);
    }
    // weights and probabilities are the same bits for the same seed, and others for another
    let again = bayes(1).fit(model.clone(), data).unwrap();
    assert_eq!(read_adapter(&again.model).unwrap(), read_adapter(&fitted.model).unwrap());
    assert_eq!(again.laplace.prior_precisions(), fitted.laplace.prior_precisions());
    assert_eq!(again.predict_calibrated(test).unwrap(), answer);
    let other = bayes(2).fit(model.clone(), data).unwrap();
    assert!(distance(&read_adapter(&other.model).unwrap(), &read_adapter(&fitted.model).unwrap()) > 0.1);
    assert_ne!(other.predict_calibrated(test).unwrap().probabilities, answer.probabilities);

    // every way of predicting is about the same network: linearised and sampled means differ by the noise of 200 draws
    let by = |how| fitted.predict(test, how, &Control::silent()).unwrap().probabilities;
    let sampled = by(Predictive::Sampled { n_samples: 200, seed: 0 });
    let map = by(Predictive::Map);
    assert!(map.iter().zip(&answer.probabilities).any(|(a, b)| (a - b).abs() > 1e-3));
    assert_eq!(sampled.dim(), map.dim());

    // a posterior for the adapter already trained is the same posterior
    let only = bayes(1).fit_laplace(fitted.model.clone(), data).unwrap();
    assert!(only.report.is_none());
    assert_eq!(only.predict_calibrated(test).unwrap(), answer);
}

#[test]
fn an_mlp_goes_the_whole_path_reproducibly() {
    check_pipeline(&mlp(), &blobs(60, 1), &blobs(20, 2));
}

#[test]
fn a_language_model_goes_the_whole_path_reproducibly() {
    let fixture = Fixture::load(NAME);
    check_pipeline(&fixture.bare(DType::F32), &fixture.train, &fixture.test);
}

#[test]
fn fitted_objects_are_send_and_sync() {
    fn check<T: Send + Sync>() {}
    check::<FittedBayesLora<PromptClassifier>>();
    check::<FittedBayesLora<Mlp>>();
    check::<(BayesLora, Laplace, Control, Error)>();
    // and do work elsewhere
    let fitted = bayes(1).fit(mlp(), &blobs(16, 1)).unwrap();
    let here = fitted.predict_calibrated(&blobs(4, 2)).unwrap();
    let there = std::thread::scope(|s| s.spawn(|| fitted.predict_calibrated(&blobs(4, 2)).unwrap()).join().unwrap());
    assert_eq!(there, here);
}

const PAUSE: Duration = Duration::from_millis(300);

#[test]
fn seconds_of_the_curvature_are_not_those_of_the_diagnosis_after_it() {
    let model = train(quick(2), attach(mlp(), &LoraConfig::new(2), 0).unwrap(), &blobs(20, 1), None).model;
    let curvature = CurvatureConfig::new(CurvatureStructure::Diagonal);
    let whole = BatchLimits { max_items: 100, max_tokens: 1000 };
    let bayes = BayesLoraConfig::new(LoraConfig::new(2)).with_curvature(curvature).with_limits(whole).init().unwrap();
    let n_batches = AtomicUsize::new(0);
    // the curvature's own is not held up
    let before_batch = || {
        if n_batches.fetch_add(1, Ordering::Relaxed) > 0 {
            std::thread::sleep(PAUSE);
        }
    };
    let (clock, data) = (Instant::now(), Watched { points: blobs(20, 1), has_labels: true, before_batch });
    let fitted = bayes.fit_laplace(model, &data).unwrap();
    // one batch each, for the curvature, the Jacobians and the diagnosis
    assert_eq!((n_batches.load(Ordering::Relaxed), fitted.training_fit.is_some()), (3, true));
    assert!(fitted.training_fit_seconds >= PAUSE.as_secs_f64());
    assert!(fitted.curvature_seconds > 0.0);
    assert!(fitted.curvature_seconds + fitted.training_fit_seconds <= clock.elapsed().as_secs_f64());
}

// ---- the default prior and temperature --------------------------------------------------------------------------

#[test]
fn the_default_reads_the_training_items_alone_and_comes_back_from_its_file() {
    let (data, test) = (blobs(60, 1), blobs(40, 2));
    let lora = LoraConfig::new(2);
    let bayes = BayesLoraConfig::new(lora.clone()).with_trainer(quick(40)).with_limits(LIMITS).init().unwrap();
    let fitted = bayes.fit(mlp(), &data).unwrap();
    let answers = fitted.laplace.answer_temperatures().expect("labels of classes have a temperature").clone();
    for search in [&answers.network, &answers.posterior] {
        assert!(search.value > 0.0 && search.value <= 1.0, "{search}");
    }
    let of_network = fitted.predict(&test, Predictive::Map, &Control::silent()).unwrap().belief;
    let raw = LogitBelief::Point { logits: logits(&fitted.model, &test) };
    assert!(relative_error(&of_network.moments().0, &raw.tempered(answers.network.value).moments().0) < 1e-6); // f32
    let dir = tempfile::tempdir().unwrap();
    fitted.save(dir.path(), "base").unwrap();
    let loaded = FittedBayesLora::load(mlp(), dir.path(), LIMITS).unwrap();
    assert_eq!(loaded.predict_calibrated(&test).unwrap(), fitted.predict_calibrated(&test).unwrap());
    // held-out labels that choose the prior leave no temperature of the training items behind
    let tuned = fitted.tune_prior(&test, &Control::silent()).unwrap();
    assert_eq!(tuned.laplace.answer_temperatures(), None);
    // unlabelled items have no fit to match: by evidence, and it says so
    let data = Watched { points: data, has_labels: false, before_batch: || {} };
    let unlabelled = bayes.fit_laplace(tuned.model, &data).unwrap();
    assert!(
        unlabelled.remarks().iter().any(|r| r.contains("a training item has no label")),
        "{:?}",
        unlabelled.remarks()
    );
}

// ---- a posterior that fails --------------------------------------------------------------------------------------

/// Fits, and checks that the error has the adapter that training alone gives, and that it can be saved.
fn check_handed_back(config: BayesLoraConfig, data: &EncodedDataset, fixture: &Fixture, words: &str) {
    let bare = fixture.model_for(data, DType::F32);
    let start = attach(bare.clone(), &config.lora, config.seed).unwrap();
    let alone = train(config.resolved().trainer, start, data, Some(data));
    let error = config.init().unwrap().fit_with(bare.clone(), data, Some(data), &Control::silent()).err().unwrap();
    let text = error.to_string();
    assert!(text.contains("the adapter is trained") && text.contains(words), "{text}");
    let trained = error.trained.expect("the adapter was trained by then");
    assert_eq!(read_adapter(&trained.model).unwrap(), read_adapter(&alone.model).unwrap());
    assert_eq!(trained.report.as_ref().unwrap().steps, alone.report.steps);
    assert!(trained.best_validation.is_some());
    let dir = tempfile::tempdir().unwrap();
    trained.save(dir.path(), "tiny").unwrap();
    let (loaded, lora) = load_peft(bare, dir.path()).unwrap();
    assert_eq!((read_adapter(&loaded).unwrap(), lora), (read_adapter(&trained.model).unwrap(), trained.lora));
}

#[test]
fn a_trained_adapter_is_handed_back_when_its_posterior_fails() {
    let fixture = Fixture::load(NAME);
    let lora = || LoraConfig::new(2).with_target_modules(["q_proj", "v_proj"]);
    let config = || BayesLoraConfig::new(lora()).with_trainer(quick(2)).with_limits(LIMITS).with_seed(1);
    // with one choice an item there is nothing to learn, and nothing that the curvature could say
    let mut certain = fixture.train.clone();
    certain.items.iter_mut().for_each(|item| (item.n_choices, item.label) = (1, Some(0)));
    check_handed_back(config(), &certain, &fixture, "curvature");
    let curvature = CurvatureConfig::default().with_memory_limit(1);
    check_handed_back(config().with_curvature(curvature), &fixture.train, &fixture, "memory_limit");
    // the curvature is there, and no posterior can be made of it
    let curvature = CurvatureConfig::new(CurvatureStructure::Full);
    let laplace = LaplaceConfig::default().with_prior_grouping(PriorGrouping::PerMatrix);
    check_handed_back(
        config().with_curvature(curvature).with_laplace(laplace),
        &fixture.train,
        &fixture,
        "one prior precision",
    );

    // an adapter that is there already comes back, too, and one that is not trained does not
    let tight = || config().with_curvature(CurvatureConfig::default().with_memory_limit(1));
    let model = fixture.model(DType::F32);
    let error = tight().init().unwrap().fit_laplace(model.clone(), &fixture.train).err().unwrap();
    assert_eq!(read_adapter(&error.trained.unwrap().model).unwrap(), read_adapter(&model).unwrap());
    let unknown = BayesLoraConfig::new(LoraConfig::new(2).with_target_modules(["nothing"])).init().unwrap();
    let error = unknown.fit(fixture.bare(DType::F32), &fixture.train).err().unwrap();
    assert!(error.trained.is_none() && matches!(error.into_reason(), Error::NoModuleMatches { .. }));
}

// ---- merging and files -------------------------------------------------------------------------------------------

#[test]
fn merging_keeps_the_logits_and_removes_the_adapter() {
    let fixture = Fixture::load(NAME);
    let model = fixture.model(DType::F32);
    let expected = logits(&model, &fixture.test);
    assert!(relative_error(&logits(&fixture.bare(DType::F32), &fixture.test), &expected) > 0.01);
    assert_eq!((summarize(&model).n_modules, summarize(&model).n_adapter), (4, 896));
    let merged = merge(model);
    assert!(relative_error(&logits(&merged, &fixture.test), &expected) < 1e-4); // f32: W₀ + sBA is rounded once
    assert_eq!((summarize(&merged).n_modules, summarize(&merged).n_adapter), (0, 0));
    assert!(read_adapter(&merged).is_err());
    // a merged model takes a fresh adapter, which changes nothing at first
    let again = attach(merged.clone(), &LoraConfig::new(2), 0).unwrap();
    assert_eq!(logits(&again, &fixture.test), logits(&merged, &fixture.test));
}

#[test]
fn an_adapter_survives_its_files_bit_for_bit() {
    let fixture = Fixture::load(NAME);
    let mut config = LoraConfig::new(3).with_alpha(5.0).with_dropout(0.1).with_target_modules(["q_proj", "down_proj"]);
    config.use_rslora = true;
    config.rank_pattern.insert(r"layers\.1\.mlp\.down_proj".into(), 2);
    config.alpha_pattern.insert("q_proj".into(), 7.0);
    let start = attach(fixture.bare(DType::F32), &config, 5).unwrap();
    let model = train(quick(2), start, &fixture.train, None).model;
    let dir = tempfile::tempdir().unwrap();
    save_peft(&model, &config, "tiny", dir.path()).unwrap();
    let (loaded, read) = load_peft(fixture.bare(DType::F32), dir.path()).unwrap();
    assert_eq!(read, config);
    assert_eq!(read_adapter(&loaded).unwrap(), read_adapter(&model).unwrap());
    assert_eq!(logits(&loaded, &fixture.test), logits(&model, &fixture.test));
    // PEFT's own file, too
    let (theirs, config) = load_peft(fixture.bare(DType::F32), fixture.dir().join("adapter")).unwrap();
    save_peft(&theirs, &config, "tiny", dir.path()).unwrap();
    let (again, _) = load_peft(fixture.bare(DType::F32), dir.path()).unwrap();
    assert_eq!(read_adapter(&again).unwrap(), read_adapter(&theirs).unwrap());
}

// ---- cancellation ------------------------------------------------------------------------------------------------

/// Cancels when its third batch is asked for.
struct Impatient<'a> {
    data: &'a EncodedDataset,
    control: Control,
    batches: AtomicUsize,
}

impl Dataset for Impatient<'_> {
    type Input = <EncodedDataset as Dataset>::Input;

    fn n_items(&self) -> usize {
        self.data.n_items()
    }

    fn label(&self, item: usize) -> Option<usize> {
        self.data.label(item)
    }

    fn item_id(&self, item: usize) -> String {
        self.data.item_id(item)
    }

    fn plan(&self, limits: BatchLimits, order: BatchOrder) -> Result<Vec<Vec<usize>>> {
        Dataset::plan(self.data, limits, order)
    }

    fn batch(&self, indices: &[usize], device: &Device, dtype: DType) -> Result<Self::Input> {
        if self.batches.fetch_add(1, Ordering::SeqCst) == 2 {
            self.control.cancel();
        }
        self.data.batch(indices, device, dtype)
    }
}

#[test]
fn long_calls_stop_when_asked_to() {
    let fixture = Fixture::load(NAME);
    let model = fixture.model(DType::F32);
    let curvature = fit_curvature(&model, &fixture.train, &CurvatureConfig::default(), &Control::silent()).unwrap();
    let prior_precision = PriorPrecision::new(1.0).unwrap();
    let laplace =
        Laplace::new(&model, &curvature, &LaplaceConfig::default().with_prior_precision(prior_precision)).unwrap();
    let one = BatchLimits { max_items: 1, max_tokens: 100 };
    for workers in [1, 3] {
        let check = |what: &str, total: usize, call: &dyn Fn(&Impatient, &Control) -> Result<()>| {
            let control = Control::silent().with_workers(workers).unwrap();
            let data = Impatient { data: &fixture.train, control: control.clone(), batches: AtomicUsize::new(0) };
            match call(&data, &control) {
                Err(Error::Cancelled { done, total: planned, .. }) => {
                    assert!((1..=3).contains(&done) && planned == total, "{what}: {done} of {planned}");
                }
                other => panic!("{what} with {workers} workers: {other:?}"),
            }
        };
        check("training", 24, &|data, control| {
            let config = quick(2).with_limits(one);
            Trainer::new(config)?.fit(model.clone(), data, None, control).map(|_| ())
        });
        check("curvature", 12, &|data, control| {
            let config = CurvatureConfig::default().with_limits(one);
            fit_curvature(&model, data, &config, control).map(|_| ())
        });
        for how in [Predictive::Map, Predictive::Sampled { n_samples: 5, seed: 0 }, Predictive::default()] {
            check(&format!("{how:?}"), 12, &|data, control| {
                predict(&model, &laplace, data, how, &one, control).map(|_| ())
            });
        }
        check("the whole path", 12 * 12, &|data, control| {
            let mut config = BayesLoraConfig::new(LoraConfig::new(2)).with_trainer(quick(12));
            config.trainer.limits = one;
            let fitted = config.init()?.fit_with(fixture.bare(DType::F32), data, None, control);
            fitted.map(|_| ()).map_err(FitError::into_reason)
        });
    }
}
