//! Where a small classifier is sure of itself: maximum likelihood beside Laplace, over a plane of inputs.
//!
//! A multilayer perceptron learns two moons, and an adapter then fits it to 60 points of the same moons, turned by 60
//! degrees. Maximum likelihood stays certain far away from every point it has seen; the posterior over the same adapter
//! does not, although both answer alike near the data.
//!
//! ```sh
//! cargo run --release --example mlp_regions -- --seed 0 --out target/mlp_regions
//! ```

use bayes_lora::bayes_lora::BayesLoraConfig;
use bayes_lora::belief::LinkApprox;
use bayes_lora::curvature::CurvatureConfig;
use bayes_lora::data::BatchLimits;
use bayes_lora::lora::{LoraConfig, summarize};
use bayes_lora::models::{MlpConfig, Points};
use bayes_lora::plot::{Grid, LabelledPoint, RegionMaps};
use bayes_lora::predict::{Prediction, Predictive};
use bayes_lora::progress::Control;
use bayes_lora::train::{Decay, Trainer, TrainerConfig, TrainingMode};
use burn::tensor::Device;
use clap::Parser;
use ndarray::{Array2, Axis};
use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};
use rand_distr::{Distribution, Normal};
use std::error::Error;
use std::f64::consts::PI;
use std::path::PathBuf;
use std::time::Instant;

#[derive(Parser)]
#[command(about = "Draw where a small classifier is sure of itself: maximum likelihood beside Laplace")]
struct Arguments {
    /// Seed of the data, the networks' starts and the shuffles.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Directory for the pictures.
    #[arg(long, default_value = "target/mlp_regions")]
    out: PathBuf,
}

/// Standard deviation of the noise on the moons: enough that they touch.
const NOISE: f64 = 0.25;
/// How far the fine-tuning task is turned against the pretraining task.
const TURN: f64 = PI / 3.0;
/// Closer to a training point than this an input counts as near the data.
const NEAR: f64 = 0.3;
/// Farther from every training point than this it counts as far.
const FAR: f64 = 1.5;

fn ev(k:&str,d:f64)->f64{std::env::var(k).ok().and_then(|v|v.parse().ok()).unwrap_or(d)}
fn main() -> Result<(), Box<dyn Error>> {
    let Arguments { seed, out } = Arguments::parse();
    let start = Instant::now();
    let pretraining = moons(ev("NPRE",400.0) as usize, 0.0, seed)?;
    let train = moons(ev("N",60.0) as usize, ev("TURN",60.0)/180.0*PI, seed + 1)?;
    let test = moons(1000, ev("TURN",60.0)/180.0*PI, seed + 2)?;

    // the base: every weight and bias trains
    let limits = BatchLimits { max_items: 64, max_tokens: 64 };
    let mut mlp = MlpConfig::new(vec![3usize, ev("W",32.0) as usize, ev("W",32.0) as usize, 2]);
    mlp.seed = seed; if ev("RELU",0.0)>0.0 {mlp.activation=bayes_lora::models::Activation::Relu;}
    let full = TrainerConfig {
        epochs: ev("EPRE",30.0) as usize,
        learning_rate: 1e-2,
        limits,
        mode: TrainingMode::Full,
        seed,
        ..TrainerConfig::default()
    };
    let base = mlp.init(&Device::flex())?; let base = if ev("EPRE",30.0)>0.0 {Trainer::new(full)?.fit(base, &pretraining, None, &Control::silent())?.model} else {base};

    // the adapter, by maximum likelihood, and its posterior
    let bayes = BayesLoraConfig::new(LoraConfig::new(ev("R",8.0) as usize).with_alpha(ev("ALPHA",16.0)))
        .with_trainer(TrainerConfig {
            epochs: ev("E",100.0) as usize,
            learning_rate: ev("LR",1e-2),
            decay: Decay::Cosine,
            limits,
            ..TrainerConfig::default()
        })
        .with_curvature(CurvatureConfig { limits, ..CurvatureConfig::default() })
        .with_limits(BatchLimits { max_items: 512, max_tokens: 512 })
        .with_seed(seed);
    let fitted = bayes.init()?.fit(base, &train)?;
    let precision = fitted.laplace.prior_precision();
    println!(
        "{}\nprior precision {:.3}, effective dimension {:.1} of {}",
        summarize(&fitted.model),
        precision.value(),
        fitted.laplace.spectrum().effective_dimension(precision),
        summarize(&fitted.model).n_adapter
    );

    // two classes: quadrature is exact
    let linearized = Predictive::Linearized(LinkApprox::GaussHermite { points: 64 });
    let grid = Grid { x: (-4.0, 4.0), y: (-4.0, 4.0), n_x: 60, n_y: 60 };
    let cells = grid.centres();
    let plane = Points::new(with_constant(&cells), vec![])?;
    let control = Control::silent();
    let mle = fitted.predict(&plane, Predictive::Map, &control)?;
    let laplace = fitted.predict(&plane, linearized, &control)?;

    let away: Vec<f64> = cells.iter().map(|&cell| distance(cell, &train)).collect();
    let mean = |values: &[f64], keep: &dyn Fn(f64) -> bool| {
        let kept: Vec<f64> = values.iter().zip(&away).filter(|(_, d)| keep(**d)).map(|(v, _)| *v).collect();
        kept.iter().sum::<f64>() / kept.len() as f64
    };
    println!("\n{:<22} {:>10} {:>10} {:>10} {:>10}", "", "near data", "far away", "test acc.", "test NLL");
    for (title, how, on_plane) in
        [("maximum likelihood", Predictive::Map, &mle), ("Laplace, linearised", linearized, &laplace)]
    {
        let confidence = confidence(on_plane);
        let (accuracy, nll) = score(&fitted.predict(&test, how, &control)?, &test);
        println!(
            "{title:<22} {:>10.3} {:>10.3} {accuracy:>10.3} {nll:>10.3}",
            mean(&confidence, &|d| d < NEAR),
            mean(&confidence, &|d| d > FAR)
        );
    }
    let epistemic = laplace.entropy.epistemic.to_vec();
    println!(
        "{:<22} {:>10.3} {:>10.3}   (at most ln 2 = 0.693 nats)",
        "epistemic entropy",
        mean(&epistemic, &|d| d < NEAR),
        mean(&epistemic, &|d| d > FAR)
    );

    let points: Vec<LabelledPoint> = train
        .features
        .outer_iter()
        .zip(&train.labels)
        .map(|(p, &class)| LabelledPoint { x: p[0], y: p[1], class })
        .collect();
    let figure = RegionMaps::new(grid, "confidence")
        .with_map("maximum likelihood", confidence(&mle))
        .with_map("Laplace, linearised", confidence(&laplace))
        .with_map("epistemic", epistemic)
        .with_scale(0.0, 1.0)
        .with_points(&points, &["upper moon", "lower moon"])
        .figure()?;
    let files = figure.save(&out, "regions")?;
    println!("\n{:.1} s; wrote {}", start.elapsed().as_secs_f64(), files.png.display());
    Ok(())
}

/// Two interleaved half circles around the origin, turned by `angle`, with noise.
fn moons(n: usize, angle: f64, seed: u64) -> Result<Points, Box<dyn Error>> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let noise = Normal::new(0.0, ev("NOISE",NOISE))?;
    let (sin, cos) = angle.sin_cos();
    let labels: Vec<usize> = (0..n).map(|i| i % 2).collect();
    let features = labels
        .iter()
        .flat_map(|&class| {
            let along = rng.random_range(0.0..PI);
            let (x, y) = (along.cos() - 0.5, along.sin() - 0.25);
            let (x, y) = if class == 0 { (x, y) } else { (-x, -y) };
            let (x, y) = (x + noise.sample(&mut rng), y + noise.sample(&mut rng));
            [cos * x - sin * y, sin * x + cos * y, ev("CONST",1.0)]
        })
        .collect();
    Ok(Points::new(Array2::from_shape_vec((n, 3), features)?, labels)?)
}

fn confidence(prediction: &Prediction) -> Vec<f64> {
    prediction.probabilities.map_axis(Axis(1), |p| p.fold(0.0, |a: f64, b| a.max(*b))).to_vec()
}

/// Distance to the nearest point of `data`.
fn distance([x, y]: [f64; 2], data: &Points) -> f64 {
    data.features.outer_iter().map(|p| (p[0] - x).hypot(p[1] - y)).fold(f64::INFINITY, f64::min)
}

/// Accuracy and mean negative log-likelihood in nats.
fn score(prediction: &Prediction, data: &Points) -> (f64, f64) {
    let rows = || prediction.probabilities.outer_iter().zip(&data.labels);
    let right = rows().filter(|(p, label)| p[**label] > 0.5).count();
    let nll: f64 = rows().map(|(p, label)| -p[*label].ln()).sum();
    (right as f64 / data.labels.len() as f64, nll / data.labels.len() as f64)
}

fn with_constant(points: &[[f64; 2]]) -> Array2<f64> {
    Array2::from_shape_fn((points.len(), 3), |(i, j)| if j == 2 { ev("CONST",1.0) } else { points[i][j] })
}
