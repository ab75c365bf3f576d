//! A killed fit loses nothing: a small model is trained and fitted in a process that is killed at random moments, or whose disk is full, and
//! what comes out in the end is, byte by byte, that of a run that nobody disturbed.
//!
//! `BAYES_LORA_KILLS` says how often it is killed, 5 times by default. `BAYES_LORA_SMALL_DISK` names a directory on a file system of some
//! 3 MB that may be filled up: `mount -t tmpfs -o size=3m tmpfs DIR` makes one. Without it the test of the full disk says so and passes.

use super::{LIMITS, bare_model, finish, questions, start, told};
use bayes_lora::BayesLoraConfig;
use bayes_lora::checkpoints::Checkpoints;
use bayes_lora::curvature::{CurvatureConfig, CurvatureStructure};
use bayes_lora::lora::LoraConfig;
use bayes_lora::progress::Control;
use bayes_lora::tensor_file::TensorFile;
use bayes_lora::train::TrainerConfig;
use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant};

const TEST: &str = "processes::killed::a_fit_that_is_killed_again_and_again_ends_in_the_same_bytes";
const RESULTS: [&str; 3] = ["adapter_config.json", "adapter_model.safetensors", "posterior.safetensors"];
/// Where a child says how many saves of unfinished work failed.
const FAILURES: &str = "failures";

/// A child: the whole job, with everything unfinished kept in `work` after every step and batch.
fn fit(work: &Path, out: &Path) {
    let data = questions("train", 64, 0);
    let lora = LoraConfig::new(4).with_dropout(0.1).with_target_modules(["q_proj", "v_proj"]);
    let trainer = TrainerConfig::default()
        .with_epochs(3)
        .with_learning_rate(2e-3)
        .with_limits(LIMITS)
        .with_log(work.join("train.jsonl"));
    let checkpoints = Checkpoints::new(work).with_every(Duration::ZERO);
    let control = Control::silent().with_checkpoints(checkpoints).unwrap();
    let bayes = BayesLoraConfig::new(lora)
        .with_trainer(trainer)
        .with_curvature(CurvatureConfig::new(CurvatureStructure::Ekfac).with_limits(LIMITS))
        .init()
        .unwrap();
    let fitted = bayes.fit_with(bare_model(&data), &data, Some(&data), &control).unwrap();
    fitted.save(out, "stories260K").unwrap();
    fs::write(out.join(FAILURES), control.save_failures().count.to_string()).unwrap();
}

fn begin(work: &Path, out: &Path) -> Child {
    fs::create_dir_all(work).unwrap();
    start(TEST, work, out)
}

/// What a fit leaves that nobody disturbs, and how long it takes.
fn undisturbed(dir: &Path) -> (Vec<Vec<u8>>, Duration) {
    let clock = Instant::now();
    finish(begin(&dir.join("undisturbed"), &dir.join("expected")));
    let alone = clock.elapsed();
    (results(&dir.join("expected")).unwrap(), alone)
}

fn results(out: &Path) -> std::io::Result<Vec<Vec<u8>>> {
    RESULTS.iter().map(|name| fs::read(out.join(name))).collect()
}

fn assert_same(out: &Path, expected: &[Vec<u8>]) {
    for ((name, found), expected) in RESULTS.iter().zip(results(out).unwrap()).zip(expected) {
        assert!(found == *expected, "{} differs from the undisturbed run's", out.join(name).display());
    }
}

/// Reads all files of a directory tree back, but those that a killed writer had not given their names yet: none may be damaged.
fn check_files(dir: &Path) -> usize {
    let mut count = 0;
    for entry in fs::read_dir(dir).into_iter().flatten() {
        let path = entry.unwrap().path();
        let extension = path.extension().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            count += check_files(&path);
        } else if extension == "safetensors" {
            TensorFile::open(&path).unwrap().check_all().unwrap();
            count += 1;
        } else if extension == "json" {
            serde_json::from_slice::<serde_json::Value>(&fs::read(&path).unwrap()).unwrap();
            count += 1;
        }
    }
    count
}

#[test]
fn a_fit_that_is_killed_again_and_again_ends_in_the_same_bytes() {
    if let Some((work, out)) = told() {
        return fit(Path::new(&work), &out);
    }
    let kills: usize = std::env::var("BAYES_LORA_KILLS").map_or(5, |text| text.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let (expected, alone) = undisturbed(dir.path());
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    // in training, and in the curvature pass or later
    let (mut finished, mut files, mut killed) = (0, 0, [0, 0]);
    let place =
        |finished: usize| (dir.path().join(format!("work-{finished}")), dir.path().join(format!("result-{finished}")));
    while killed.iter().sum::<usize>() < kills {
        let (work, result) = place(finished);
        let mut child = begin(&work, &result);
        // a fifth of the whole on average: a run is killed several times, anywhere in it
        std::thread::sleep(alone.mul_f64(rng.random_range(0.0..0.4)));
        if child.try_wait().unwrap().is_none() {
            child.kill().unwrap();
            killed[usize::from(work.join("curvature").exists())] += 1;
        }
        child.wait().unwrap();
        files += check_files(&work) + check_files(&result);
        if results(&result).is_ok_and(|found| found == expected) {
            finished += 1;
        }
    }
    let (work, result) = place(finished);
    finish(begin(&work, &result));
    assert_same(&result, &expected);
    let [training, later] = killed;
    println!("{training} kills in training and {later} after it; {files} files read back, none damaged");
}

#[test]
fn a_fit_on_a_full_disk_ends_in_the_same_bytes() {
    let Some(full) = std::env::var_os("BAYES_LORA_SMALL_DISK") else {
        println!("without the full disk: BAYES_LORA_SMALL_DISK names none");
        return;
    };
    let (work, filler) = (Path::new(&full).join("work"), Path::new(&full).join("filler"));
    let dir = tempfile::tempdir().unwrap();
    let (expected, _) = undisturbed(dir.path());
    // an interrupted run first, so that there is something to lose
    let mut child = begin(&work, &dir.path().join("full"));
    while !work.join("train/step-00000001.safetensors").exists() {
        assert!(child.try_wait().unwrap().is_none(), "it ended before its first checkpoint");
        std::thread::sleep(Duration::from_millis(2));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let mut file = fs::File::create(&filler).unwrap();
    while file.write_all(&[0; 4096]).is_ok() {}
    drop(file);

    let failures = |out: &Path| -> usize { fs::read_to_string(out.join(FAILURES)).unwrap().parse().unwrap() };
    let out = dir.path().join("full");
    finish(begin(&work, &out));
    assert_same(&out, &expected);
    let on_full = failures(&out);
    assert!(on_full > 0, "the disk was not full");
    check_files(&work);
    fs::remove_file(&filler).unwrap();
    let out = dir.path().join("freed");
    finish(begin(&work, &out));
    assert_same(&out, &expected);
    // the last saves of all may not find the room that the file system has
    assert!(failures(&out) < on_full, "{} saves failed with room again, {on_full} without", failures(&out));
    check_files(&work);
    fs::remove_dir_all(&work).unwrap();
}
