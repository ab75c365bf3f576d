//! The whole path on tiny models: training, posterior, prediction, files, cancellation, and a user's own module.

mod support;

use bayes_lora::bayes_lora::{BayesLora, BayesLoraConfig, FittedBayesLora};
use bayes_lora::belief::log_softmax;
use bayes_lora::curvature::{CurvatureConfig, fit_curvature};
use bayes_lora::data::{BatchLimits, BatchOrder, EncodedDataset};
use bayes_lora::error::{Error, Result};
use bayes_lora::lora::{
    Adaptable, AdapterWeights, LoraConfig, LoraLinear, attach, initial_weights, load_peft, merge, read_adapter,
    save_peft, summarize,
};
use bayes_lora::models::{Classifier, ClassifierInput, Dataset, Mlp, MlpConfig, Points, PromptClassifier};
use bayes_lora::posterior::{Laplace, LaplaceConfig};
use bayes_lora::predict::{Predictive, predict};
use bayes_lora::prior::{PriorMean, PriorPrecision};
use bayes_lora::progress::Control;
use bayes_lora::tape::Tape;
use bayes_lora::train::{
    Decay, Objective, TrainOutcome, TrainReport, Trainer, TrainerConfig, TrainingMode, nll_sum, set_trainable,
};
use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{DType, Device, Tensor, TensorData};
use ndarray::Array2;
use rand::{SeedableRng, rngs::ChaCha8Rng};
use rand_distr::{Distribution, StandardNormal};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use support::{Fixture, central_difference, device, has_f64, logits, relative_error};

const NAME: &str = "tiny_llama";
const LIMITS: BatchLimits = BatchLimits { max_items: 8, max_tokens: 1000 };

// ---- material ---------------------------------------------------------------------------------------------------

/// Two Gaussian blobs of unit variance, 3 apart: about 7 % of the points lie on the wrong side.
fn blobs(n: usize, seed: u64) -> Points {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let labels: Vec<usize> = (0..n).map(|i| i % 2).collect();
    let features = Array2::from_shape_fn((n, 2), |(i, _)| {
        let z: f64 = StandardNormal.sample(&mut rng);
        z + if labels[i] == 0 { -1.06 } else { 1.06 }
    });
    Points::new(features, labels).unwrap()
}

fn flipped(points: &Points) -> Points {
    Points { labels: points.labels.iter().map(|y| 1 - y).collect(), ..points.clone() }
}

fn mlp() -> Mlp {
    MlpConfig::new([2, 8, 2]).init(&device()).unwrap()
}

fn adapted(dropout: f64) -> Mlp {
    attach(mlp(), &LoraConfig::new(2).with_dropout(dropout), 3).unwrap()
}

fn quick(epochs: usize) -> TrainerConfig {
    TrainerConfig { epochs, learning_rate: 0.01, limits: LIMITS, ..TrainerConfig::default() }
}

fn train<M: Classifier, D: Dataset<Input = M::Input>>(
    config: TrainerConfig,
    model: M,
    data: &D,
    validation: Option<&D>,
) -> TrainOutcome<M> {
    Trainer::new(config).unwrap().fit(model, data, validation, &Control::silent()).unwrap()
}

/// Mean NLL in nats.
fn nll<M: Classifier, D: Dataset<Input = M::Input>>(model: &M, data: &D) -> f64 {
    let log_p = log_softmax(logits(model, data).view());
    -(0..data.n_items()).map(|i| log_p[[i, data.label(i).unwrap()]]).sum::<f64>() / data.n_items() as f64
}

fn distance(a: &AdapterWeights, b: &AdapterWeights) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().map(|(site, w)| (w - &b[site]).mapv(|v| v * v).sum()).sum::<f64>().sqrt()
}

/// All values of a model by path.
#[derive(Default)]
struct Values {
    path: Vec<String>,
    found: BTreeMap<String, Vec<f64>>,
}

impl ModuleVisitor for Values {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.into());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let values = param.val().into_data().convert::<f64>().try_into_vec::<f64>().unwrap();
        self.found.insert(self.path.join("."), values);
    }
}

fn values<M: Module>(model: &M) -> BTreeMap<String, Vec<f64>> {
    let mut visitor = Values::default();
    model.visit(&mut visitor);
    visitor.found
}

fn changed<M: Module>(before: &M, after: &M) -> BTreeSet<String> {
    let after = values(after);
    values(before).into_iter().filter(|(path, v)| after[path] != *v).map(|(path, _)| path).collect()
}

fn log_lines(path: &std::path::Path) -> Vec<serde_json::Value> {
    std::fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

// ---- three calls -------------------------------------------------------------------------------------------------

fn bayes(seed: u64) -> BayesLora {
    let lora = LoraConfig::new(2).with_target_pattern(".*layers.*(q_proj|v_proj|[01])");
    BayesLoraConfig::new(lora).with_trainer(quick(12)).with_limits(LIMITS).with_seed(seed).init().unwrap()
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

// ---- training ----------------------------------------------------------------------------------------------------

#[test]
fn validation_keeps_the_best_epoch_and_early_stopping_stops() {
    let data = blobs(40, 1);
    // against flipped labels every epoch of training is for the worse
    let validation = flipped(&blobs(20, 2));
    let run = |patience| train(TrainerConfig { patience, ..quick(10) }, adapted(0.0), &data, Some(&validation));
    let outcome = run(None);
    let scores: Vec<f64> = outcome.report.epochs.iter().map(|e| e.validation_nll.unwrap()).collect();
    assert_eq!((scores.len(), outcome.report.best_epoch), (10, Some(1)));
    assert!(scores[9] > scores[0]);
    let best = outcome.best.unwrap();
    // the trainer's own figures, which it took in other batches in f32
    assert!((nll(&best, &validation) - scores[0]).abs() < 1e-5);
    assert!((nll(&outcome.model, &validation) - scores[9]).abs() < 1e-5);

    let stopped = run(Some(3));
    assert_eq!(stopped.report.epochs.len(), 4);
    assert_eq!(stopped.report.steps, 4 * 5);
    assert_eq!(stopped.report.epochs[..], outcome.report.epochs[..4]);
    assert_eq!(read_adapter(&stopped.best.unwrap()).unwrap(), read_adapter(&best).unwrap());

    // where training helps, the last epochs are the best ones and nothing stops early
    let helpful = train(TrainerConfig { patience: Some(3), ..quick(10) }, adapted(0.0), &data, Some(&blobs(20, 2)));
    let scores: Vec<f64> = helpful.report.epochs.iter().map(|e| e.validation_nll.unwrap()).collect();
    let lowest = (0..scores.len()).min_by(|a, b| scores[*a].total_cmp(&scores[*b])).unwrap();
    assert_eq!(helpful.report.best_epoch, Some(lowest + 1));
    assert!(lowest > 3);
}

#[test]
fn two_batches_of_four_accumulate_to_one_of_eight() {
    let dir = tempfile::tempdir().unwrap();
    let run = |max_items, accumulation| {
        let log = dir.path().join(format!("{max_items}.jsonl"));
        let config = TrainerConfig {
            accumulation,
            limits: BatchLimits { max_items, max_tokens: 100 },
            log: Some(log.clone()),
            ..quick(1)
        };
        let outcome = train(config, adapted(0.0), &blobs(8, 1), None);
        assert_eq!(outcome.report.steps, 1);
        (read_adapter(&outcome.model).unwrap(), log_lines(&log).swap_remove(0))
    };
    let ((weights, record), (accumulated, other)) = (run(8, 1), run(4, 2));
    let start = read_adapter(&adapted(0.0)).unwrap();
    assert!(distance(&weights, &start) > 0.01);
    // f32 rounding of sums of eight terms; Adam's first step is the sign of the gradient times the rate
    assert!(distance(&weights, &accumulated) < 1e-6);
    for field in ["gradient_norm", "mean_nll"] {
        let (a, b) = (record[field].as_f64().unwrap(), other[field].as_f64().unwrap());
        assert!(a > 0.0 && (a / b - 1.0).abs() < 1e-5, "{field}: {a} and {b}");
    }
}

#[test]
fn a_prior_holds_the_adapter_the_nearer_to_its_centre_the_stronger_it_is() {
    let data = blobs(40, 1);
    let run = |objective| {
        let outcome = train(TrainerConfig { objective, ..quick(20) }, adapted(0.0), &data, None);
        distance(&read_adapter(&outcome.model).unwrap(), &initial_weights(&outcome.model).unwrap())
    };
    let map = |lambda| Objective::MaximumAPosteriori {
        precision: PriorPrecision::new(lambda).unwrap(),
        mean: PriorMean::Initial,
    };
    let free = run(Objective::MaximumLikelihood);
    let held = [0.1, 10.0, 1e6].map(|lambda| run(map(lambda)));
    println!("distances: free {free}, held {held:?}");
    assert!(free > held[0] && held[0] > held[1] && held[1] > held[2]);
    // AdamW's first step follows the likelihood alone; the prior brings it back, and the overshoot fades with the rate
    assert!(held[2] < 0.01 * free, "{} of {free}", held[2]);
}

#[test]
fn a_maximum_a_posteriori_is_stationary_for_the_sum_over_the_data() {
    let (data, lambda) = (blobs(40, 1), 2.0);
    let objective =
        Objective::MaximumAPosteriori { precision: PriorPrecision::new(lambda).unwrap(), mean: PriorMean::Initial };
    // two micro-batches a step: the prior must count once
    let limits = BatchLimits { max_items: 20, max_tokens: 100 };
    let config =
        TrainerConfig { objective, accumulation: 2, limits, max_grad_norm: None, decay: Decay::Cosine, ..quick(1500) };
    let model = train(config, adapted(0.0), &data, None).model;
    let centre = initial_weights(&model).unwrap();
    let model = set_trainable(model, &TrainingMode::Lora).unwrap().train();
    let items: Vec<usize> = (0..data.n_items()).collect();
    let input = data.batch(&items, &model.device(), model.dtype()).unwrap();
    let loss = nll_sum(model.logits(&input, &mut Tape::off()), &data.labels, None);
    let gradients = GradientsParams::from_grads(loss.backward(), &model);
    let (mut pull, mut rest) = (0.0, 0.0);
    let weights = read_adapter(&model).unwrap();
    for linear in model.linears() {
        let adapter = linear.adapter.as_ref().unwrap();
        for (site, w) in weights.iter().filter(|(site, _)| site.module == linear.path) {
            let param = if site.to_string().ends_with('A') { &adapter.a } else { &adapter.b };
            let gradient = gradients.get::<2>(param.id).unwrap();
            let gradient = gradient.into_data().convert::<f64>().try_into_vec::<f64>().unwrap();
            let prior = (w - &centre[site]) * lambda;
            pull += prior.mapv(|v| v * v).sum();
            rest += prior.iter().zip(&gradient).map(|(p, g)| (p + g).powi(2)).sum::<f64>();
        }
    }
    println!("prior's pull {:.4}, remainder {:.4}", pull.sqrt(), rest.sqrt());
    // what 1,500 steps of a decaying rate leave; a prior counted twice, or divided by another count, leaves half or more
    assert!(pull.sqrt() > 0.1 && rest.sqrt() < 0.1 * pull.sqrt());
}

#[test]
fn each_training_mode_moves_exactly_its_parameters() {
    let fixture = Fixture::load(NAME);
    let targets = LoraConfig::new(2).with_target_modules(["q_proj"]);
    let model = attach(fixture.bare(DType::F32), &targets, 0).unwrap();
    let everything: BTreeSet<String> = values(&model).into_keys().collect();
    let matching = |parts: &[&str]| -> BTreeSet<String> {
        everything.iter().filter(|path| parts.iter().any(|part| path.contains(part))).cloned().collect()
    };
    let adapters = matching(&["adapter"]);
    assert_eq!((everything.len(), adapters.len()), (3 + 2 * 9 + 4, 4));
    let partial = |patterns: &[&str]| TrainingMode::Partial(patterns.iter().map(|p| p.to_string()).collect());
    let cases = [
        (TrainingMode::Lora, adapters),
        (TrainingMode::Full, everything.clone()),
        (partial(&[r"blocks\.1\.up_proj", "embedding"]), matching(&["blocks.1.up_proj", "embedding"])),
        (partial(&[r"blocks\.0\..*norm"]), matching(&["blocks.0.input_norm", "blocks.0.mlp_norm"])),
    ];
    for (mode, expected) in cases {
        assert!(!expected.is_empty());
        let outcome = train(TrainerConfig { mode: mode.clone(), ..quick(3) }, model.clone(), &fixture.train, None);
        assert_eq!(changed(&model, &outcome.model), expected, "{mode:?}");
        assert!(nll(&outcome.model, &fixture.train) < nll(&model, &fixture.train), "{mode:?} did not learn");
    }
}

#[test]
fn dropout_acts_in_training_and_nowhere_else() {
    let data = blobs(40, 1);
    let run = |dropout| train(quick(5), adapted(dropout), &data, None).model;
    let (with, without) = (run(0.4), run(0.0));
    assert!(distance(&read_adapter(&with).unwrap(), &read_adapter(&without).unwrap()) > 1e-3);
    assert_eq!(read_adapter(&run(0.4)).unwrap(), read_adapter(&with).unwrap());
    assert!(nll(&with, &data) < nll(&adapted(0.4), &data));

    assert_eq!(logits(&with, &data), logits(&with, &data));
    let mut off = with.clone();
    off.linears_mut().into_iter().for_each(|linear| linear.adapter.as_mut().unwrap().dropout = 0.0);
    assert_eq!(logits(&off, &data), logits(&with, &data));
    let fit = |model: &Mlp| fit_curvature(model, &data, &CurvatureConfig::default(), &Control::silent()).unwrap();
    assert_eq!(fit(&off), fit(&with));
}

#[test]
fn the_log_has_one_line_a_step_and_one_an_epoch() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("train.jsonl");
    let (data, validation) = (blobs(20, 1), blobs(10, 2));
    let config = TrainerConfig { log: Some(path.clone()), warmup_fraction: 0.3, ..quick(4) };
    let TrainReport { steps, epochs, .. } = train(config, adapted(0.0), &data, Some(&validation)).report;
    let lines = log_lines(&path);
    let of_steps: Vec<_> = lines.iter().filter(|l| l.get("step").is_some()).collect();
    assert_eq!((steps, of_steps.len(), lines.len()), (12, 12, 12 + 4)); // 20 points in batches of 8, four times
    for (i, line) in of_steps.iter().enumerate() {
        assert_eq!((line["step"].as_u64(), line["epoch"].as_u64()), (Some(i as u64 + 1), Some(i as u64 / 3 + 1)));
        for field in ["mean_nll", "learning_rate", "gradient_norm", "tokens_per_second"] {
            assert!(line[field].as_f64().unwrap() > 0.0, "{field} of step {i}");
        }
    }
    // warm-up over 4 of 12 steps, the peak after it
    let rates: Vec<f64> = of_steps.iter().map(|l| l["learning_rate"].as_f64().unwrap()).collect();
    assert!(rates[0] < rates[3] && rates[4] == 0.01 && rates[11] < 0.002);
    let of_epochs: Vec<_> = lines.iter().filter(|l| l.get("step").is_none()).collect();
    for (line, record) in of_epochs.iter().zip(&epochs) {
        assert_eq!(line["epoch"].as_u64(), Some(record.epoch as u64));
        assert_eq!(line["validation_nll"].as_f64(), record.validation_nll);
    }
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
    let prior_precision = Some(PriorPrecision::new(1.0).unwrap());
    let laplace =
        Laplace::new(&model, &curvature, &LaplaceConfig { prior_precision, ..LaplaceConfig::default() }).unwrap();
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
            let config = TrainerConfig { limits: one, ..quick(2) };
            Trainer::new(config)?.fit(model.clone(), data, None, control).map(|_| ())
        });
        check("curvature", 12, &|data, control| {
            let config = CurvatureConfig { limits: one, ..CurvatureConfig::default() };
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
            config.init()?.fit_with(fixture.bare(DType::F32), data, None, control).map(|_| ())
        });
    }
}

// ---- a user's own module -----------------------------------------------------------------------------------------

/// A network that the library does not know: `f(x) = V sin(Ux) + skip`, with inputs of its own.
#[derive(Module, Debug)]
struct SineNet {
    first: LoraLinear,
    second: LoraLinear,
}

impl SineNet {
    fn new(dtype: DType) -> Self {
        let weight = |rows: usize, columns: usize| {
            let values: Vec<f64> = (0..rows * columns).map(|i| (1.0 + 2.7 * i as f64).sin()).collect();
            Tensor::<2>::from_data(TensorData::new(values, [rows, columns]), (&device(), dtype))
        };
        Self {
            first: LoraLinear::new("first", weight(2, 6), None),
            second: LoraLinear::new("second", weight(6, 3), None),
        }
    }
}

impl Adaptable for SineNet {
    fn linears(&self) -> Vec<&LoraLinear> {
        vec![&self.first, &self.second]
    }

    fn linears_mut(&mut self) -> Vec<&mut LoraLinear> {
        vec![&mut self.first, &mut self.second]
    }
}

impl Classifier for SineNet {
    type Input = Rows;

    fn n_classes(&self) -> usize {
        3
    }

    fn logits(&self, input: &Rows, tape: &mut Tape) -> Tensor<2> {
        let hidden = self.first.forward(input.0.clone(), tape).sin();
        self.second.forward(hidden, tape)
    }
}

#[derive(Clone)]
struct Rows(Tensor<2>);

impl ClassifierInput for Rows {
    fn n_items(&self) -> usize {
        self.0.dims()[0]
    }

    fn token_mask(&self) -> Array2<bool> {
        Array2::from_elem((self.n_items(), 1), true)
    }

    fn repeat(&self, times: usize) -> Result<Self> {
        Ok(Rows(self.0.clone().repeat(&[times, 1])))
    }
}

/// Points on rings: the class is the ring.
struct Rings(usize);

impl Rings {
    fn features(&self, item: usize) -> [f64; 2] {
        let (angle, radius) = (item as f64 * 2.399, 0.4 + 0.8 * (item % 3) as f64);
        [radius * angle.cos(), radius * angle.sin()]
    }
}

impl Dataset for Rings {
    type Input = Rows;

    fn n_items(&self) -> usize {
        self.0
    }

    fn label(&self, item: usize) -> Option<usize> {
        Some(item % 3)
    }

    fn item_id(&self, item: usize) -> String {
        format!("ring point {item}")
    }

    fn plan(&self, limits: BatchLimits, _order: BatchOrder) -> Result<Vec<Vec<usize>>> {
        let items: Vec<usize> = (0..self.0).collect();
        Ok(items.chunks(limits.max_items).map(<[usize]>::to_vec).collect())
    }

    fn batch(&self, indices: &[usize], device: &Device, dtype: DType) -> Result<Rows> {
        let values: Vec<f64> = indices.iter().flat_map(|&i| self.features(i)).collect();
        Ok(Rows(Tensor::from_data(TensorData::new(values, [indices.len(), 2]), (device, dtype))))
    }
}

#[test]
fn a_module_of_ones_own_joins_by_two_traits() {
    let lora = LoraConfig::new(2).with_target_modules(["first", "second"]);
    let bayes = BayesLoraConfig::new(lora.clone()).with_trainer(quick(30)).init().unwrap();
    let (data, model) = (Rings(60), SineNet::new(DType::F32));
    let fitted = bayes.fit(model.clone(), &data).unwrap();
    assert!(nll(&fitted.model, &data) < 0.8 * nll(&model, &data));
    let sites: Vec<String> = fitted.laplace.blocks().iter().map(|block| block.spaces()[0].site.to_string()).collect();
    assert_eq!(sites, ["first.lora_A", "first.lora_B", "second.lora_A", "second.lora_B"]);
    let answer = fitted.predict_calibrated(&Rings(9)).unwrap();
    assert!(answer.entropy.epistemic.iter().all(|v| *v > 0.0));
    assert_eq!(changed(&model, &merge(fitted.model)), BTreeSet::from(["first.weight".into(), "second.weight".into()]));
    if has_f64() {
        // its Jacobians are right without a word about them from the user
        let model = train(quick(2), attach(SineNet::new(DType::F64), &lora, 0).unwrap(), &Rings(9), None).model;
        let input = Rings(9).batch(&[0, 1, 2, 3, 4, 5, 6, 7, 8], &model.device(), DType::F64).unwrap();
        let pass = bayes_lora::curvature::probe(&model, &input, bayes_lora::curvature::Cotangents::Classes).unwrap();
        for site in &pass.sites {
            let found = site.jacobians().unwrap().slice_move(ndarray::s![.., .., 1, 1]);
            let expected = central_difference(&model, &Rings(9), &site.site, [1, 1]);
            assert!(relative_error(&found, &expected) < 1e-7, "{}", site.site); // rounding: see support
        }
    }
}
