//! Shows that a killed fit loses nothing: trains and fits a small model in a child process, kills it at random moments,
//! fills its disk, and compares what comes out in the end, byte by byte, with a run that nobody disturbed. Offline.
//!
//! ```sh
//! cargo run --release --example kill_test -- --kills 30 --out target/kill_test
//! # and on a file system of 3 MB, which the parent fills up before the child begins (the program needs no root, mount does)
//! sudo mount -t tmpfs -o size=3m tmpfs /mnt/small
//! cargo run --release --example kill_test -- --kills 30 --out target/kill_test --full /mnt/small
//! ```
//!
//! After every kill all files are read back: none may be damaged or half written. The exit status is not zero if one is, or
//! if a result differs.

mod offline;

use bayes_lora::BayesLoraConfig;
use bayes_lora::checkpoints::Checkpoints;
use bayes_lora::curvature::{CurvatureConfig, CurvatureStructure};
use bayes_lora::lora::LoraConfig;
use bayes_lora::number::significant;
use bayes_lora::outputs::{claim_dir, save_or_rescue};
use bayes_lora::progress::Control;
use bayes_lora::tensor_file::TensorFile;
use bayes_lora::train::TrainerConfig;
use clap::Parser;
use offline::{LIMITS, bare_model, questions};
use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};
use std::error::Error;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const N_TRAIN: usize = 64;
const RESULTS: [&str; 3] = ["adapter_config.json", "adapter_model.safetensors", "posterior.safetensors"];

#[derive(Parser)]
#[command(about = "Kill a fit at random moments, and compare its result with that of an undisturbed one")]
struct Arguments {
    /// Number of kills.
    #[arg(long, default_value_t = 30)]
    kills: usize,
    /// Seed of the moments.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[arg(long, default_value = "target/kill_test")]
    out: PathBuf,
    /// A directory on a small file system that may be filled up.
    #[arg(long)]
    full: Option<PathBuf>,
    /// Fit with the unfinished work in this directory; the parent starts its children with this.
    #[arg(long)]
    work: Option<PathBuf>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    match &arguments.work {
        Some(work) => fit(work, &arguments.out),
        None => parent(&arguments),
    }
}

/// A child: the whole job, with everything unfinished kept after every step and batch.
fn fit(work: &Path, out: &Path) -> Result<(), Box<dyn Error>> {
    claim_dir(out, 0)?;
    let data = questions("train.jsonl.gz", N_TRAIN, 0)?;
    let lora = LoraConfig::new(4).with_dropout(0.1).with_target_modules(["q_proj", "v_proj"]);
    let trainer = TrainerConfig::default()
        .with_epochs(3)
        .with_learning_rate(2e-3)
        .with_limits(LIMITS)
        .with_log(work.join("train.jsonl"));
    let control = Control::silent().with_checkpoints(Checkpoints::new(work).with_every(Duration::ZERO))?;
    let bayes = BayesLoraConfig::new(lora)
        .with_trainer(trainer)
        .with_curvature(CurvatureConfig::new(CurvatureStructure::Ekfac).with_limits(LIMITS))
        .init()?;
    let fitted = match bayes.fit_with(bare_model(&data)?, &data, Some(&data), &control) {
        Ok(fitted) => fitted,
        Err(error) => {
            if let Some(trained) = &error.trained {
                save_or_rescue(out, |dir| trained.save(dir, "stories260K"))?;
            }
            return Err(error.into());
        }
    };
    save_or_rescue(out, |dir| fitted.save(dir, "stories260K"))?;
    let steps = fitted.report.map_or(0, |report| report.steps);
    println!("{steps} steps, {}", control.save_failures());
    Ok(())
}

fn start(work: &Path, out: &Path) -> std::io::Result<Child> {
    fs::create_dir_all(work)?;
    let mut child = Command::new(std::env::current_exe()?);
    child.arg("--work").arg(work).arg("--out").arg(out).stdout(Stdio::piped()).spawn()
}

/// Waits for a child that nobody kills; what it says.
fn finish(child: Child) -> Result<String, Box<dyn Error>> {
    let ended = child.wait_with_output()?;
    if !ended.status.success() {
        return Err(format!("a child that was not killed failed: {}", ended.status).into());
    }
    Ok(String::from_utf8_lossy(&ended.stdout).trim().to_string())
}

fn results(out: &Path) -> std::io::Result<Vec<Vec<u8>>> {
    RESULTS.iter().map(|name| fs::read(out.join(name))).collect()
}

fn parent(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let Arguments { kills, seed, out, full, .. } = arguments;
    if out.exists() {
        fs::remove_dir_all(out)?;
    }
    let begin = Instant::now();
    let said = finish(start(&out.join("undisturbed"), &out.join("expected"))?)?;
    let alone = begin.elapsed();
    println!("undisturbed: {said}, {} s", significant(alone.as_secs_f64()));
    let expected = results(&out.join("expected"))?;

    let mut rng = ChaCha8Rng::seed_from_u64(*seed);
    let (mut finished, mut files) = (0, 0);
    // in training, and in the curvature pass or later
    let mut killed = [0, 0];
    while killed.iter().sum::<usize>() < *kills {
        let (work, result) = (out.join(format!("work-{finished}")), out.join(format!("result-{finished}")));
        let mut child = start(&work, &result)?;
        // a fifth of the whole on average: a run is killed several times, anywhere in it
        std::thread::sleep(alone.mul_f64(rng.random_range(0.0..0.4)));
        if child.try_wait()?.is_none() {
            child.kill()?;
            killed[usize::from(work.join("curvature").exists())] += 1;
        }
        child.wait()?;
        files += check_files(&work)? + check_files(&result)?;
        if results(&result).is_ok_and(|found| found == expected) {
            finished += 1;
        }
    }
    let (work, result) = (out.join(format!("work-{finished}")), out.join(format!("result-{finished}")));
    let said = finish(start(&work, &result)?)?;
    compare(&result, &expected)?;
    println!(
        "{} kills in training and {} after it, in {} runs; {files} files read back, none damaged; last run: {said}",
        killed[0],
        killed[1],
        finished + 1
    );

    if let Some(full) = full {
        on_full_disk(full, out, &expected)?;
    }
    println!("every result is the same, byte by byte");
    Ok(())
}

fn compare(result: &Path, expected: &[Vec<u8>]) -> Result<(), Box<dyn Error>> {
    for ((name, found), expected) in RESULTS.iter().zip(results(result)?).zip(expected) {
        if found != *expected {
            return Err(format!("{} differs from the undisturbed run's", result.join(name).display()).into());
        }
    }
    Ok(())
}

/// Reads all files of a directory tree back, but those that a killed writer had not given their names yet.
fn check_files(dir: &Path) -> Result<usize, Box<dyn Error>> {
    let mut count = 0;
    if !dir.exists() {
        return Ok(0);
    }
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let extension = path.extension().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            count += check_files(&path)?;
        } else if extension == "safetensors" {
            TensorFile::open(&path)?.check_all()?;
            count += 1;
        } else if extension == "json" {
            serde_json::from_slice::<serde_json::Value>(&fs::read(&path)?)?;
            count += 1;
        }
    }
    Ok(count)
}

/// Fills the small file system up, fits there, makes room, and fits again.
fn on_full_disk(full: &Path, out: &Path, expected: &[Vec<u8>]) -> Result<(), Box<dyn Error>> {
    let (work, filler) = (full.join("work"), full.join("filler"));
    for old in [&work, &filler] {
        if old.is_dir() {
            fs::remove_dir_all(old)?;
        } else if old.exists() {
            fs::remove_file(old)?;
        }
    }
    // an interrupted run first, so that there is something to lose
    let mut child = start(&work, &out.join("full"))?;
    while !work.join("train/step-00000001.safetensors").exists() {
        if child.try_wait()?.is_some() {
            return Err("the child on the small file system ended before its first checkpoint".into());
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    child.kill()?;
    child.wait()?;
    let mut file = fs::File::create(&filler)?;
    let block = vec![0u8; 4096];
    while file.write_all(&block).is_ok() {}
    drop(file);
    let said = finish(start(&work, &out.join("full"))?)?;
    compare(&out.join("full"), expected)?;
    println!("on a full disk: {said}, {} files read back, none damaged", check_files(&work)?);
    fs::remove_file(&filler)?;
    let said = finish(start(&work, &out.join("freed"))?)?;
    compare(&out.join("freed"), expected)?;
    println!("with room again: {said}, {} files read back, none damaged", check_files(&work)?);
    Ok(())
}
