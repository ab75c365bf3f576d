//! Training runs: taken up after any step, cancelled, damaged, on a disk that refuses, with losses that are not finite.

use super::{files, seldom};
use crate::support::points::{LIMITS, Watched, adapted, blobs, flipped, log_lines, mlp, quick, values};
use bayes_lora::checkpoints::Checkpoints;
use bayes_lora::curvature::{CurvatureConfig, fit_curvature};
use bayes_lora::data::{BatchLimits, BatchOrder};
use bayes_lora::error::{Error, Result};
use bayes_lora::lora::{LoraConfig, attach, read_adapter, write_adapter};
use bayes_lora::models::{Dataset, Mlp, Points, PointsBatch};
use bayes_lora::posterior::{Laplace, LaplaceConfig, PosteriorPrior};
use bayes_lora::prior::{PriorMean, PriorPrecision};
use bayes_lora::progress::Control;
use bayes_lora::train::{Objective, Snapshots, TrainOutcome, TrainReport, Trainer, TrainerConfig, TrainingMode};
use burn::tensor::{DType, Device};
use ndarray::Array2;
use std::path::Path;
use std::time::Duration;

/// Saves in `dir` after every step.
fn always(dir: &Path) -> Control {
    Control::silent().with_checkpoints(Checkpoints::new(dir).with_every(Duration::ZERO).with_keep(1000)).unwrap()
}

/// A directory with one file at `train/`.
fn with_one(file: &Path) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("train")).unwrap();
    std::fs::copy(file, dir.path().join("train").join(file.file_name().unwrap())).unwrap();
    dir
}

/// Dropout, accumulation, clipping, snapshots, three epochs of 3 steps: everything that has a state.
fn eventful() -> TrainerConfig {
    quick(3).with_accumulation(2).with_weight_decay(0.01).with_snapshots(Snapshots { count: 3, from: 0.3 })
}

fn fit(config: &TrainerConfig, model: Mlp, data: &Points, control: &Control) -> Result<TrainOutcome<Mlp>> {
    Trainer::new(config.clone()).unwrap().fit(model, data, Some(&blobs(30, 2)), control)
}

fn without_time(report: &TrainReport) -> TrainReport {
    TrainReport { seconds: 0.0, resumed_after: None, ..report.clone() }
}

#[test]
fn a_run_taken_up_after_any_step_ends_in_the_same_bits() {
    for mode in [TrainingMode::Lora, TrainingMode::Full] {
        let config = eventful().with_mode(mode);
        let data = blobs(44, 1);
        let whole = fit(&config, adapted(0.3), &data, &Control::silent()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let saved = fit(&config, adapted(0.3), &data, &always(dir.path())).unwrap();
        assert_eq!(values(&saved.model), values(&whole.model));
        let files = files(&dir.path().join("train"));
        // 44 items in batches of 8, two a step
        assert_eq!((whole.report.steps, files.len(), whole.snapshots.len()), (9, 9, 3));
        for (index, file) in files.iter().enumerate() {
            let one = with_one(file);
            let resumed = fit(&config, adapted(0.3), &data, &seldom(one.path())).unwrap();
            assert_eq!(resumed.report.resumed_after, Some(index + 1));
            assert_eq!(values(&resumed.model), values(&whole.model), "after step {}", index + 1);
            assert_eq!(values(&resumed.best.unwrap()), values(whole.best.as_ref().unwrap()));
            assert_eq!(resumed.snapshots, whole.snapshots);
            assert_eq!(without_time(&resumed.report), without_time(&whole.report));
        }
        // the state of a finished run is the result: nothing is trained again
        let before = std::fs::read(files.last().unwrap()).unwrap();
        fit(&config, adapted(0.3), &data, &seldom(dir.path())).unwrap();
        assert_eq!(std::fs::read(files.last().unwrap()).unwrap(), before);
    }
}

#[test]
fn early_stopping_and_the_log_survive_an_interruption() {
    let validation = flipped(&blobs(30, 2));
    let dir = tempfile::tempdir().unwrap();
    let run = |name: &str, control: &Control| {
        let config = eventful().with_patience(2).with_log(dir.path().join(name)).with_epochs(8);
        Trainer::new(config).unwrap().fit(adapted(0.3), &blobs(44, 1), Some(&validation), control).unwrap()
    };
    let whole = run("whole.jsonl", &Control::silent());
    assert_eq!((whole.report.best_epoch, whole.report.epochs.len()), (Some(1), 3));
    let kept = tempfile::tempdir().unwrap();
    run("saved.jsonl", &always(kept.path()));
    for file in files(&kept.path().join("train")) {
        let one = with_one(&file);
        // the killed run had logged more than its last checkpoint knows
        std::fs::copy(dir.path().join("saved.jsonl"), dir.path().join("resumed.jsonl")).unwrap();
        let resumed = run("resumed.jsonl", &seldom(one.path()));
        assert_eq!(without_time(&resumed.report), without_time(&whole.report));
        let steps = |name: &str| -> Vec<(Option<u64>, Option<u64>, Option<f64>)> {
            let lines = log_lines(&dir.path().join(name));
            lines.iter().map(|l| (l["step"].as_u64(), l["epoch"].as_u64(), l["mean_nll"].as_f64())).collect()
        };
        assert_eq!(steps("resumed.jsonl"), steps("whole.jsonl"));
    }
}

#[test]
fn a_cancelled_run_is_saved_after_its_step_and_says_where() {
    let dir = tempfile::tempdir().unwrap();
    let data = blobs(44, 1);
    let control = seldom(dir.path());
    control.cancel();
    let train = |control: &Control| Trainer::new(eventful()).unwrap().fit(adapted(0.3), &data, None, control);
    let whole = train(&Control::silent()).unwrap();
    // every call does one step more
    for steps in 1..=9 {
        let error = train(&control).unwrap_err();
        assert!(matches!(error, Error::Cancelled { .. }), "{error}");
        assert!(error.to_string().contains(&dir.path().display().to_string()), "{error}");
        let newest = files(&dir.path().join("train")).pop().unwrap();
        assert!(newest.ends_with(format!("step-{steps:08}.safetensors")), "{}", newest.display());
    }
    let resumed = train(&seldom(dir.path())).unwrap();
    assert_eq!(values(&resumed.model), values(&whole.model));
    // the default keeps two
    assert_eq!(files(&dir.path().join("train")).len(), 2);
}

#[test]
fn a_run_that_is_cancelled_in_its_validation_is_saved_too() {
    /// Points that cancel the call which asks for them.
    struct Treacherous(Points, Control);
    impl Dataset for Treacherous {
        type Input = PointsBatch;

        fn n_items(&self) -> usize {
            self.0.n_items()
        }

        fn label(&self, item: usize) -> Option<usize> {
            self.0.label(item)
        }

        fn item_id(&self, item: usize) -> String {
            self.0.item_id(item)
        }

        fn content_hash(&self, item: usize) -> Option<u64> {
            self.0.content_hash(item)
        }

        fn plan(&self, limits: BatchLimits, order: BatchOrder) -> Result<Vec<Vec<usize>>> {
            self.0.plan(limits, order)
        }

        fn batch(&self, indices: &[usize], device: &Device, dtype: DType) -> Result<PointsBatch> {
            self.1.cancel();
            self.0.batch(indices, device, dtype)
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let (data, control) = (blobs(44, 1), seldom(dir.path()));
    let as_it_is = |control: Control| Treacherous(data.clone(), control);
    let validation = Treacherous(blobs(30, 2), control.clone());
    let train = |validation: &Treacherous, control: &Control| {
        let bystander = as_it_is(Control::silent());
        Trainer::new(eventful()).unwrap().fit(adapted(0.3), &bystander, Some(validation), control)
    };
    assert!(matches!(train(&validation, &control), Err(Error::Cancelled { .. })));
    let newest = files(&dir.path().join("train")).pop().unwrap();
    assert!(newest.ends_with("step-00000003.safetensors"), "{}", newest.display());
    let calm = Treacherous(blobs(30, 2), Control::silent());
    let resumed = train(&calm, &seldom(dir.path())).unwrap();
    assert_eq!(values(&resumed.model), values(&train(&calm, &Control::silent()).unwrap().model));
}

#[test]
fn checkpoints_of_another_run_are_refused_by_what_differs() {
    let dir = tempfile::tempdir().unwrap();
    let (config, data) = (eventful(), blobs(44, 1));
    fit(&config, adapted(0.3), &data, &seldom(dir.path())).unwrap();
    let refused = |config: TrainerConfig, model: Mlp, data: &Points, texts: &[&str]| {
        let error = fit(&config, model, data, &seldom(dir.path())).unwrap_err().to_string();
        texts.iter().for_each(|text| assert!(error.contains(text), "{error}"));
    };
    let other = |change: fn(&mut TrainerConfig)| {
        let mut config = config.clone();
        change(&mut config);
        config
    };
    refused(other(|c| c.learning_rate = 0.5), adapted(0.3), &data, &["learning_rate", "0.01", "0.5"]);
    refused(other(|c| c.epochs = 7), adapted(0.3), &data, &["epochs", "3", "7"]);
    refused(other(|c| c.seed = Some(7)), adapted(0.3), &data, &["seed", "0", "7"]);
    refused(config.clone(), adapted(0.3), &blobs(45, 1), &["training data", "44 items", "45 items"]);
    refused(
        config.clone(),
        attach(mlp(), &LoraConfig::new(2).with_dropout(0.3), 4).unwrap(),
        &data,
        &["weights at the start"],
    );
    refused(config.clone(), adapted(0.2), &data, &["scale and dropout", "0.3", "0.2"]);
    let scaled = attach(mlp(), &LoraConfig::new(2).with_alpha(32.0).with_dropout(0.3), 3).unwrap();
    refused(config.clone(), scaled, &data, &["scale and dropout", "16, 0.3"]);
    let limits = BatchLimits { max_items: 7, ..LIMITS };
    refused(config.clone().with_limits(limits), adapted(0.3), &data, &["limits.max_items", "8", "7"]);
}

#[test]
fn trainings_around_two_centres_of_the_prior_share_no_checkpoint() {
    let (data, dir) = (blobs(44, 1), tempfile::tempdir().unwrap());
    // one point, which two starts have come to
    let weights = read_adapter(&adapted(0.0)).unwrap();
    let came_from = |seed| write_adapter(attach(mlp(), &LoraConfig::new(2), seed).unwrap(), &weights).unwrap();
    let precision = PriorPrecision::new(10.0).unwrap();
    let config = |mean| eventful().with_objective(Objective::MaximumAPosteriori { precision, mean });
    let run = |mean, seed, control: &Control| fit(&config(mean), came_from(seed), &data, control);
    let first = run(PriorMean::Initial, 3, &seldom(dir.path())).unwrap();
    let alone = run(PriorMean::Initial, 4, &Control::silent()).unwrap();
    assert_ne!(values(&first.model), values(&alone.model));
    let error = run(PriorMean::Initial, 4, &seldom(dir.path())).unwrap_err().to_string();
    assert!(error.contains("prior centre"), "{error}");
    assert_eq!(values(&run(PriorMean::Initial, 3, &seldom(dir.path())).unwrap().model), values(&first.model));
    // around zero it does not matter from where they came
    let dir = tempfile::tempdir().unwrap();
    let first = run(PriorMean::Zero, 3, &seldom(dir.path())).unwrap();
    assert_eq!(values(&run(PriorMean::Zero, 4, &seldom(dir.path())).unwrap().model), values(&first.model));
}

#[test]
fn trainings_under_the_posteriors_of_two_tasks_share_no_checkpoint() {
    let (data, dir) = (blobs(44, 1), tempfile::tempdir().unwrap());
    let earlier = |seed, lambda, weight| {
        let curvature =
            fit_curvature(&adapted(0.3), &blobs(20, seed), &CurvatureConfig::default(), &Control::silent()).unwrap();
        let fixed = LaplaceConfig::default().with_prior_precision(PriorPrecision::new(lambda).unwrap());
        let laplace = Laplace::new(&adapted(0.3), &curvature, &fixed).unwrap();
        PosteriorPrior::new(&adapted(0.3), laplace).unwrap().weighted(weight).unwrap()
    };
    let run = |prior, control: &Control| {
        fit(&eventful().with_objective(Objective::under(prior)), adapted(0.3), &data, control)
    };
    let first = run(earlier(7, 1.0, 1.0), &seldom(dir.path())).unwrap();
    for other in [earlier(8, 1.0, 1.0), earlier(7, 2.0, 1.0), earlier(7, 1.0, 2.0)] {
        let error = run(other, &seldom(dir.path())).unwrap_err().to_string();
        assert!(error.contains("objective.UnderPrior.posterior is"), "{error}");
    }
    // the same posterior, fitted again
    let again = run(earlier(7, 1.0, 1.0), &seldom(dir.path())).unwrap();
    assert_eq!(again.report.resumed_after, Some(first.report.steps));
    assert_eq!(values(&again.model), values(&first.model));
}

#[test]
fn a_damaged_checkpoint_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let data = blobs(44, 1);
    fit(&eventful(), adapted(0.0), &data, &seldom(dir.path())).unwrap();
    let file = files(&dir.path().join("train")).pop().unwrap();
    let sound = std::fs::read(&file).unwrap();
    for at in (0..sound.len()).step_by(97).chain([sound.len() - 1]) {
        let mut bytes = sound.clone();
        bytes[at] ^= 0x40;
        std::fs::write(&file, bytes).unwrap();
        let error = fit(&eventful(), adapted(0.0), &data, &seldom(dir.path())).err();
        let error = error.unwrap_or_else(|| panic!("byte {at} of {} went unnoticed", sound.len())).to_string();
        assert!(error.contains("step-00000009.safetensors"), "byte {at}: {error}");
    }
    std::fs::write(&file, &sound[..sound.len() / 2]).unwrap();
    let error = fit(&eventful(), adapted(0.0), &data, &seldom(dir.path())).unwrap_err().to_string();
    assert!(error.contains("truncated"), "{error}");
}

#[test]
fn a_place_for_unfinished_work_that_cannot_be_made_is_refused_before_the_work() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    for place in [file.join("unfinished"), file.clone()] {
        let error = Control::silent().with_checkpoints(Checkpoints::new(&place)).unwrap_err().to_string();
        assert!(error.contains(&file.display().to_string()), "{error}");
    }
    let made = dir.path().join("new/unfinished");
    Control::silent().with_checkpoints(Checkpoints::new(&made)).unwrap();
    assert!(files(&made).is_empty());
}

#[cfg(unix)]
#[test]
fn saves_that_fail_are_counted_and_stop_nothing() {
    let data = blobs(20, 1);
    let curvature = |control: &Control| fit_curvature(&adapted(0.0), &data, &CurvatureConfig::default(), control);
    let whole = fit(&quick(1), adapted(0.0), &data, &Control::silent()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    // a link to nowhere holds nothing and cannot be made a directory
    for name in ["train", "curvature"] {
        std::os::unix::fs::symlink(dir.path().join("nowhere"), dir.path().join(name)).unwrap();
    }
    let control = seldom(dir.path());
    let outcome = fit(&quick(1), adapted(0.0), &data, &control).unwrap();
    assert_eq!(values(&outcome.model), values(&whole.model));
    assert_eq!(control.save_failures().count, 1);
    assert_eq!(curvature(&control).unwrap(), curvature(&Control::silent()).unwrap());
    let failures = control.save_failures();
    assert_eq!(failures.count, 2);
    assert!(failures.last.as_ref().unwrap().contains("curvature"), "{failures:?}");
    let said = failures.to_string();
    assert!(said.starts_with("2 saves") && said.contains("curvature"), "{said}");

    // a log on a full disk
    let config = quick(1).with_log(Some("/dev/full".into()));
    if Path::new("/dev/full").exists() {
        let control = Control::silent();
        let outcome = fit(&config, adapted(0.0), &data, &control).unwrap();
        assert_eq!(values(&outcome.model), values(&whole.model));
        // three steps and an epoch
        assert_eq!(control.save_failures().count, 4);
    }
}

#[test]
fn a_step_that_is_not_finite_changes_nothing_and_too_many_stop_with_its_items() {
    // one point beyond the range of f32
    let mut features = Array2::from_shape_fn((16, 2), |(i, j)| ((3 * i + j) % 5) as f64 - 2.0);
    features[[11, 0]] = 1e39;
    features[[11, 1]] = -1e39;
    let data = Points::new(features, (0..16).map(|i| i % 2).collect()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let run = |max_skipped_steps, epochs| {
        let limits = BatchLimits { max_items: 4, max_tokens: 100 };
        let log = Some(dir.path().join("log.jsonl"));
        let config = quick(epochs).with_max_skipped_steps(max_skipped_steps).with_limits(limits).with_log(log);
        Trainer::new(config).unwrap().fit(adapted(0.0), &data, None, &seldom(&dir.path().join(format!("{epochs}"))))
    };
    let outcome = run(2, 2).unwrap();
    assert_eq!((outcome.report.steps, outcome.report.skipped_steps), (8, 2));
    assert!(outcome.report.epochs.iter().all(|epoch| epoch.train_nll.is_finite()));
    let skipped = log_lines(&dir.path().join("log.jsonl")).iter().filter(|l| l["skipped"] == true).count();
    assert_eq!(skipped, 2);
    let weights = read_adapter(&outcome.model).unwrap();
    assert!(weights.values().flatten().all(|v| v.is_finite()));
    assert_ne!(weights, read_adapter(&adapted(0.0)).unwrap());
    let error = run(2, 3).unwrap_err().to_string();
    for text in ["training step", "after 2 steps skipped", "at most 2", "4 items", "point 11", "last checkpoint"] {
        assert!(error.contains(text), "{error}");
    }
}

#[test]
fn data_that_cannot_tell_what_they_hold_are_refused() {
    let (data, dir) =
        (Watched { points: blobs(10, 1), has_labels: true, before_batch: || {} }, tempfile::tempdir().unwrap());
    let fit = |control: &Control| Trainer::new(quick(1)).unwrap().fit(adapted(0.0), &data, None, control);
    assert!(fit(&Control::silent()).is_ok());
    let error = fit(&seldom(dir.path())).unwrap_err().to_string();
    assert!(error.contains("content_hash") && error.contains("point 0"), "{error}");
}
