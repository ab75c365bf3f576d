//! One posterior from two processes: each sums the curvature of half of the data, the sums are saved, loaded and merged.
//! Offline, in seconds.
//!
//! stories260K (a 1 MB Llama) learns to route 64 MMLU questions to their areas for one epoch. The parent saves the adapter in
//! PEFT's files and starts itself twice; each child loads the adapter, sums the curvature of every second question and saves
//! `shard-K-STRUCTURE.safetensors`. The parent merges them and compares the posterior with that of one process. The exit
//! status is not zero if they differ by more than 1e-4: the network runs in f32, and batches of other sizes round otherwise.
//!
//! ```sh
//! cargo run --release --example sharded_fit -- --out target/sharded_fit
//! ```

mod offline;

use bayes_lora::belief::LogitBelief;
use bayes_lora::curvature::{Curvature, CurvatureConfig, CurvatureStructure, fit_curvature};
use bayes_lora::data::EncodedDataset;
use bayes_lora::lora::{LoraConfig, attach, load_peft, save_peft};
use bayes_lora::models::PromptClassifier;
use bayes_lora::outputs::{claim_dir, save_or_rescue};
use bayes_lora::posterior::{Laplace, LaplaceConfig};
use bayes_lora::predict::{Predictive, predict};
use bayes_lora::progress::Control;
use bayes_lora::train::{Trainer, TrainerConfig};
use clap::Parser;
use ndarray::Array3;
use offline::{LIMITS, bare_model, questions};
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::str::FromStr;

const N_TRAIN: usize = 64;
const N_TEST: usize = 32;
const N_SHARDS: usize = 2;
/// Largest relative difference that sums in f32 batches of other sizes may leave in the posterior.
const TOLERANCE: f64 = 1e-4;
const STRUCTURES: [(CurvatureStructure, &str); 3] = [
    (CurvatureStructure::Kronecker, "kronecker"),
    (CurvatureStructure::Core, "core"),
    (CurvatureStructure::FunctionSpace, "function_space"),
];

#[derive(Parser)]
#[command(about = "Fit one posterior in two processes, and compare it with that of one")]
struct Arguments {
    /// Seed of the items, the adapter's start and the shuffles.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Directory for the adapter and the sums.
    #[arg(long, default_value = "target/sharded_fit")]
    out: PathBuf,
    /// Sum one shard only, such as 0/2; the parent starts its children with this.
    #[arg(long)]
    shard: Option<Shard>,
}

/// Items `index`, `index + of`, `index + 2·of`, …
#[derive(Clone, Copy)]
struct Shard {
    index: usize,
    of: usize,
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('/').and_then(|(index, of)| Some((index.parse().ok()?, of.parse().ok()?)));
        match parts {
            Some((index, of)) if index < of => Ok(Self { index, of }),
            _ => Err(format!("a shard is K/N with K < N, such as 0/2, not `{text}`")),
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let Arguments { seed, out, shard } = Arguments::parse();
    claim_dir(&out, 0)?;
    let (train, test) = (questions("train.jsonl.gz", N_TRAIN, seed)?, questions("test.jsonl.gz", N_TEST, seed)?);
    match shard {
        Some(shard) => sum_shard(&train, shard, &out),
        None => parent(&train, &test, seed, &out),
    }
}

/// The model with the adapter that the parent saved.
fn adapted_model(data: &EncodedDataset, out: &Path) -> Result<PromptClassifier, Box<dyn Error>> {
    Ok(load_peft(bare_model(data)?, out.join("adapter"))?.0)
}

fn curvatures(model: &PromptClassifier, data: &EncodedDataset) -> Result<Vec<Curvature>, Box<dyn Error>> {
    let config = |structure| CurvatureConfig::new(structure).with_limits(LIMITS);
    let fit = |(structure, _)| Ok(fit_curvature(model, data, &config(structure), &Control::silent())?);
    STRUCTURES.into_iter().map(fit).collect()
}

fn shard_file(out: &Path, index: usize, structure: &str) -> PathBuf {
    out.join(format!("shard-{index}-{structure}.safetensors"))
}

/// A child: sums one shard at the parent's adapter, and saves.
fn sum_shard(train: &EncodedDataset, shard: Shard, out: &Path) -> Result<(), Box<dyn Error>> {
    let mut part = train.clone();
    part.items = train.items.iter().skip(shard.index).step_by(shard.of).cloned().collect();
    let model = adapted_model(train, out)?;
    for ((_, name), curvature) in STRUCTURES.iter().zip(curvatures(&model, &part)?) {
        save_or_rescue(shard_file(out, shard.index, name), |path| curvature.save(path))?;
    }
    println!("process {}: {} items", std::process::id(), part.len());
    Ok(())
}

fn parent(train: &EncodedDataset, test: &EncodedDataset, seed: u64, out: &Path) -> Result<(), Box<dyn Error>> {
    let lora = LoraConfig::new(4).with_target_modules(["q_proj", "v_proj"]);
    let trainer = TrainerConfig::default().with_epochs(1).with_learning_rate(2e-3).with_limits(LIMITS).with_seed(seed);
    let trained =
        Trainer::new(trainer)?.fit(attach(bare_model(train)?, &lora, seed)?, train, None, &Control::silent())?;
    save_or_rescue(out.join("adapter"), |dir| save_peft(&trained.model, &lora, "stories260K", dir))?;

    let start = |index: usize| {
        let shard = format!("{index}/{N_SHARDS}");
        let mut child = Command::new(std::env::current_exe()?);
        child.args(["--seed", &seed.to_string(), "--shard", &shard]).arg("--out").arg(out).spawn()
    };
    let children: Vec<std::io::Result<Child>> = (0..N_SHARDS).map(start).collect();
    // all are waited for before an error leaves, so that none outlives its parent
    let ended: Vec<_> = children.into_iter().map(|child| child.and_then(|mut child| child.wait())).collect();
    for (index, status) in ended.into_iter().enumerate() {
        let status = status?;
        if !status.success() {
            return Err(format!("the process of shard {index} of {N_SHARDS} failed: {status}").into());
        }
    }

    let model = adapted_model(train, out)?;
    let mut worst = 0.0f64;
    println!("\n{:<16} {:>20} {:>20}", "structure", "covariances", "log evidence");
    for ((structure, name), alone) in STRUCTURES.iter().zip(curvatures(&model, train)?) {
        let mut merged = Curvature::load(shard_file(out, 0, name))?;
        for index in 1..N_SHARDS {
            merged = merged.merge(Curvature::load(shard_file(out, index, name))?)?;
        }
        let (found, expected) = (Posterior::new(&model, &merged, test)?, Posterior::new(&model, &alone, test)?);
        let covariance = found.covariance_difference(&expected);
        let evidence = (found.log_evidence / expected.log_evidence - 1.0).abs();
        println!("{:<16} {covariance:>20.1e} {evidence:>20.1e}", structure.to_string());
        worst = [covariance, evidence].into_iter().fold(worst, larger);
    }
    println!("\nlargest relative difference of two processes to one: {worst:.1e} (at most {TOLERANCE:.0e})");
    if worst <= TOLERANCE { Ok(()) } else { Err(format!("{worst:e} exceeds {TOLERANCE:e}").into()) }
}

/// The larger value, and NaN where one is, which `f64::max` would hide.
fn larger(a: f64, b: f64) -> f64 {
    if a >= b || a.is_nan() { a } else { b }
}

/// What is compared of a posterior at the prior precision of its own largest evidence.
struct Posterior {
    covariance: Array3<f64>,
    log_evidence: f64,
}

impl Posterior {
    fn new(model: &PromptClassifier, curvature: &Curvature, test: &EncodedDataset) -> Result<Self, Box<dyn Error>> {
        let laplace = Laplace::new(model, curvature, &LaplaceConfig::default())?;
        let prediction = predict(model, &laplace, test, Predictive::default(), &LIMITS, &Control::silent())?;
        let LogitBelief::Gaussian { covariance, .. } = prediction.belief else {
            return Err("a linearised prediction is Gaussian".into());
        };
        let log_evidence = laplace.log_marginal_likelihood(laplace.prior_precisions().clone())?;
        Ok(Self { covariance, log_evidence })
    }

    /// Largest difference of an entry, relative to the largest entry.
    fn covariance_difference(&self, expected: &Self) -> f64 {
        let largest = |values: &Array3<f64>| values.iter().map(|v| v.abs()).fold(0.0, larger);
        largest(&(&self.covariance - &expected.covariance)) / largest(&expected.covariance)
    }
}
