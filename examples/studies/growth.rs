//! How seconds and memory of every stage grow with tokens, classes, rank, batch and layers, on random weights.
//!
//! ```sh
//! cargo run --release --example studies -- growth --out docs/results/growth.json
//! ```
//!
//! Each measurement is a process of its own, so that its peak is that of one stage; the process is this program with `--point`.

use crate::process::{peak_resident_bytes, reset_peak, resident_bytes};
use crate::{Outcome, json};
use bayes_lora::belief::LogitGauge;
use bayes_lora::curvature::{CurvatureConfig, CurvatureStructure, FisherKind, fit_curvature};
use bayes_lora::data::{BatchLimits, EncodedDataset, EncodedItem, EncodedRow, ResolvedAnswers};
use bayes_lora::lora::{LoraConfig, attach};
use bayes_lora::memory::GradientCheckpointing;
use bayes_lora::models::{DecoderConfig, Pretrained, PromptClassifier};
use bayes_lora::posterior::{Laplace, LaplaceConfig};
use bayes_lora::predict::predict_linearized;
use bayes_lora::prior::PriorPrecision;
use bayes_lora::progress::Control;
use bayes_lora::train::{Trainer, TrainerConfig};
use burn::tensor::Device;
use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

#[derive(Args)]
pub struct Arguments {
    #[arg(long, default_value = "target/growth.json")]
    out: PathBuf,
    /// Runs of each stage, of which the median counts.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Two sizes of each quantity instead of four, on a network of a quarter of the width.
    #[arg(long)]
    quick: bool,
    /// Measure this one alone, as JSON.
    #[arg(long, hide = true)]
    point: Option<String>,
}

#[derive(Clone, Serialize, Deserialize)]
struct Point {
    hidden: usize,
    tokens: usize,
    classes: usize,
    rank: usize,
    batch: usize,
    layers: usize,
    stage: Stage,
    checkpointing: bool,
}

#[derive(Clone, Copy, PartialEq, Serialize, Deserialize)]
enum Stage {
    #[serde(rename = "training step")]
    Training,
    #[serde(rename = "sampled Kronecker pass")]
    Kronecker,
    #[serde(rename = "linearised prediction")]
    Linearised,
}

#[derive(Serialize, Deserialize)]
struct Measured {
    seconds: f64,
    /// Beyond what the process held before the stage.
    bytes: usize,
}

/// A quantity that grows while the others stay.
struct Axis {
    name: &'static str,
    sizes: [usize; 4],
    set: fn(&mut Point, usize),
}

const AXES: [Axis; 5] = [
    Axis { name: "tokens", sizes: [32, 64, 128, 256], set: |point, n| point.tokens = n },
    Axis { name: "classes", sizes: [2, 4, 8, 16], set: |point, n| point.classes = n },
    Axis { name: "rank", sizes: [4, 8, 16, 32], set: |point, n| point.rank = n },
    Axis { name: "batch", sizes: [2, 4, 8, 16], set: |point, n| point.batch = n },
    Axis { name: "layers", sizes: [2, 4, 8, 16], set: |point, n| point.layers = n },
];

/// A stage, and whether its activations are those of one layer at a time.
const STAGES: [(Stage, bool); 4] =
    [(Stage::Training, false), (Stage::Training, true), (Stage::Kronecker, false), (Stage::Linearised, false)];

pub fn run(arguments: &Arguments) -> Outcome<()> {
    if let Some(point) = &arguments.point {
        println!("{}", serde_json::to_string(&measure(&serde_json::from_str(point)?, arguments.runs)?)?);
        return Ok(());
    }
    let (hidden, last) = if arguments.quick { (32, 2) } else { (128, 4) };
    let mut growths = Vec::new();
    for (stage, checkpointing) in STAGES {
        for axis in &AXES {
            let mut points = Vec::new();
            for &size in &axis.sizes[..last] {
                let mut point =
                    Point { hidden, tokens: 64, classes: 4, rank: 8, batch: 4, layers: 4, stage, checkpointing };
                (axis.set)(&mut point, size);
                let Measured { seconds, bytes } = in_own_process(&point, arguments.runs)?;
                points.push((size as f64, seconds, bytes as f64));
            }
            let of = |value: fn(&(f64, f64, f64)) -> f64| {
                exponent(&points.iter().map(|point| (point.0, value(point))).collect::<Vec<_>>())
            };
            let (seconds, bytes) = (of(|point| point.1), of(|point| point.2));
            let suffix = if checkpointing { ", layer by layer" } else { "" };
            let name = format!("{}{suffix}", serde_json::to_value(stage)?.as_str().unwrap_or_default());
            println!("{name:<34} {:<8} seconds ~ n^{seconds:.2}, bytes ~ n^{bytes:.2}", axis.name);
            let points = points.iter().map(|(n, s, b)| json!({"size": n, "seconds": s, "bytes": b}));
            let points: Vec<_> = points.collect();
            growths.push(json!({
                "stage": name, "axis": axis.name, "points": points, "seconds_exponent": seconds, "bytes_exponent": bytes,
            }));
        }
    }
    json::save(&arguments.out, &json!({ "hidden": hidden, "runs": arguments.runs, "growths": growths }))
}

fn in_own_process(point: &Point, runs: usize) -> Outcome<Measured> {
    let text = serde_json::to_string(point)?;
    let program = std::env::current_exe()?;
    let output = Command::new(program).args(["growth", "--runs", &runs.to_string(), "--point", &text]).output()?;
    if !output.status.success() {
        return Err(format!("{text}: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// The slope of ln y over ln x, by least squares.
fn exponent(points: &[(f64, f64)]) -> f64 {
    let n = points.len() as f64;
    let logs = points.iter().map(|(x, y)| (x.ln(), y.max(f64::MIN_POSITIVE).ln()));
    let (x_mean, y_mean) = logs.clone().fold((0.0, 0.0), |(a, b), (x, y)| (a + x / n, b + y / n));
    let (above, below) = logs
        .fold((0.0, 0.0), |(above, below), (x, y)| (above + (x - x_mean) * (y - y_mean), below + (x - x_mean).powi(2)));
    above / below
}

fn measure(point: &Point, runs: usize) -> Outcome<Measured> {
    let data = items(point);
    let limits = BatchLimits { max_items: point.batch * point.classes, max_tokens: usize::MAX };
    let step = BatchLimits { max_items: point.batch, ..limits };
    let checkpointing = if point.checkpointing { GradientCheckpointing::On } else { GradientCheckpointing::Off };
    let control = Control::silent().with_gradient_checkpointing(checkpointing);
    let lm = Pretrained::random(config(point)?, 0).load(&Device::flex())?;
    let lora = LoraConfig::new(point.rank).with_target_modules(["q_proj", "v_proj"]);
    let start = attach(PromptClassifier::new(lm, &data)?, &lora, 0)?;
    let trainer = Trainer::new(TrainerConfig::default().with_epochs(1).with_learning_rate(1e-3).with_limits(step))?;
    // away from the start, where half of the gradients are zero
    let model = trainer.fit(start, &data, None, &control)?.model;
    let sampled = CurvatureConfig::default().with_fisher(FisherKind::Sampled { n: 1, seed: 0 }).with_limits(step);
    let diagonal = CurvatureConfig::new(CurvatureStructure::Diagonal).with_fisher(sampled.fisher).with_limits(step);
    let prior = LaplaceConfig::default().with_prior_precision(PriorPrecision::new(1.0)?);
    let laplace = Laplace::new(&model, &fit_curvature(&model, &data, &diagonal, &control)?, &prior)?;
    let work = || -> Outcome<()> {
        match point.stage {
            Stage::Training => drop(trainer.fit(model.clone(), &data, None, &control)?),
            Stage::Kronecker => drop(fit_curvature(&model, &data, &sampled, &control)?),
            Stage::Linearised => {
                drop(predict_linearized(&model, &laplace, &data, LogitGauge::Centred, &limits, &control)?)
            }
        }
        Ok(())
    };
    work()?;
    let before = resident_bytes().unwrap_or(0);
    reset_peak();
    let mut seconds = Vec::new();
    for _ in 0..runs.max(1) {
        let clock = Instant::now();
        work()?;
        seconds.push(clock.elapsed().as_secs_f64());
    }
    seconds.sort_by(f64::total_cmp);
    let bytes = peak_resident_bytes().unwrap_or(0).saturating_sub(before);
    Ok(Measured { seconds: seconds[seconds.len() / 2], bytes })
}

fn config(point: &Point) -> Outcome<DecoderConfig> {
    let text = json!({
        "model_type": "llama", "hidden_act": "silu", "hidden_size": point.hidden, "intermediate_size": point.hidden * 8 / 3,
        "num_hidden_layers": point.layers, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 512,
        "max_position_embeddings": 2048, "rms_norm_eps": 1e-5, "tie_word_embeddings": true,
    });
    Ok(DecoderConfig::from_json(&text.to_string(), "growth")?)
}

/// One batch of rows of tokens that follow no pattern, with labels.
fn items(point: &Point) -> EncodedDataset {
    let token = |item: usize, place: usize| ((item * 7919 + place * 104_729 + item * place * 31) % 512) as u32;
    let item = |index: usize| EncodedItem {
        id: index.to_string(),
        rows: vec![EncodedRow {
            ids: (0..point.tokens).map(|place| token(index, place)).collect(),
            scored: 0..0,
            weight: 1.0,
            types: Vec::new(),
        }],
        label: Some(index % point.classes),
        n_choices: point.classes,
    };
    EncodedDataset {
        name: "growth".into(),
        items: (0..point.batch).map(item).collect(),
        answers: ResolvedAnswers::ClassTokens((0..point.classes as u32).collect()),
        n_classes: point.classes,
        n_truncated: 0,
        asked: None,
    }
}
