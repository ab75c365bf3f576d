//! Where a small classifier is sure of itself: maximum likelihood beside Laplace, over a plane of inputs, in seconds.
//!
//! A tanh network is pretrained for ten steps on 30 points of two noisy moons; a LoRA adapter on all its layers then fits
//! 100 new points by maximum likelihood, which is surest where there are no data. The Laplace posterior over the same
//! adapter answers alike, but its boundary widens with the distance from the data: what it does not know shows as
//! epistemic entropy. It stays sure in the sectors where the logits are large against their standard deviation.
//!
//! ```sh
//! cargo run --release --example mlp_regions -- --seed 0 --out target/mlp_regions
//! ```

use bayes_lora::BayesLoraConfig;
use bayes_lora::curvature::CurvatureConfig;
use bayes_lora::data::BatchLimits;
use bayes_lora::lora::{LoraConfig, summarize};
use bayes_lora::metrics::{accuracy, nll};
use bayes_lora::models::{MlpConfig, Points};
use bayes_lora::number::significant;
use bayes_lora::outputs::claim_dir;
use bayes_lora::plot::{Grid, LabelledPoint, Regions};
use bayes_lora::predict::{Prediction, Predictive};
use bayes_lora::progress::Control;
use bayes_lora::train::{Decay, Trainer, TrainerConfig, TrainingMode};
use burn::tensor::Device;
use clap::Parser;
use ndarray::{Array1, Array2, Axis};
use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};
use rand_distr::{Distribution, Normal};
use std::error::Error;
use std::f64::consts::{LN_2, PI};
use std::path::PathBuf;
use std::time::Instant;

#[derive(Parser)]
#[command(about = "Draw where a small classifier is sure of itself: maximum likelihood beside Laplace")]
struct Arguments {
    /// Seed of the data, the starts and the shuffles.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Directory for the pictures.
    #[arg(long, default_value = "target/mlp_regions")]
    out: PathBuf,
}

/// Standard deviation of the noise on the moons: enough that they overlap.
const NOISE: f64 = 0.25;
/// Closer to a training point than this, an input counts as near the data.
const NEAR: f64 = 0.3;
/// Farther from every training point than this, it counts as far away.
const FAR: f64 = 1.5;
const GRID: Grid = Grid { x: (-4.0, 4.0), y: (-4.0, 4.0), n_x: 80, n_y: 80 };

fn main() -> Result<(), Box<dyn Error>> {
    let Arguments { seed, out } = Arguments::parse();
    claim_dir(&out, 0)?;
    let start = Instant::now();
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let pretraining = moons(30, &mut rng)?;
    let train = moons(100, &mut rng)?;
    let test = moons(1000, &mut rng)?;

    let limits = BatchLimits { max_items: 64, max_tokens: 64 };
    let trainer =
        TrainerConfig::default().with_learning_rate(1e-2).with_decay(Decay::Cosine).with_limits(limits).with_seed(seed);
    let full = trainer.clone().with_epochs(10).with_mode(TrainingMode::Full);
    let mlp = MlpConfig::new([2, 64, 64, 2]).with_seed(seed).init(&Device::flex())?;
    let base = Trainer::new(full)?.fit(mlp, &pretraining, None, &Control::silent())?.model;

    let bayes = BayesLoraConfig::new(LoraConfig::new(8))
        .with_trainer(trainer.with_epochs(100))
        .with_curvature(CurvatureConfig::default().with_limits(limits))
        .with_limits(BatchLimits { max_items: 512, max_tokens: 512 })
        .with_seed(seed);
    let fitted = bayes.init()?.fit(base, &train)?;
    let adapter = summarize(&fitted.model);
    println!(
        "{adapter}\nposterior: prior precision {}, effective dimension {} of {}",
        fitted.laplace.prior_precisions(),
        significant(fitted.laplace.effective_dimension()),
        adapter.n_adapter
    );
    fitted.remarks().iter().for_each(|remark| println!("note: {remark}"));

    let linearized = Predictive::default();
    let control = Control::silent();
    let cells = GRID.centres();
    let plane = Points::new(Array2::from(cells.clone()), vec![])?;
    let mle = fitted.predict(&plane, Predictive::Map, &control)?;
    let laplace = fitted.predict(&plane, linearized, &control)?;

    let distances: Vec<f64> = cells.iter().map(|&cell| distance(cell, &train)).collect();
    let near_and_far = |values: &Array1<f64>| {
        let mean = |keep: fn(f64) -> bool| {
            let kept = values.iter().zip(&distances).filter(|(_, d)| keep(**d)).map(|(v, _)| *v);
            kept.collect::<Array1<f64>>().mean().unwrap_or(f64::NAN)
        };
        format!("{:>11.3} {:>11.3}", mean(|d| d < NEAR), mean(|d| d > FAR))
    };
    println!("\n{:<32} {:>11} {:>11} {:>11} {:>11}", "", "near data", "far away", "test acc.", "test NLL");
    for (title, how, on_plane) in
        [("MLE, confidence", Predictive::Map, &mle), ("Laplace, confidence", linearized, &laplace)]
    {
        let (accuracy, nll) = score(&fitted.predict(&test, how, &control)?, &test)?;
        println!("{title:<32} {} {accuracy:>11.3} {nll:>11.3}", near_and_far(&confidence(on_plane)));
    }
    println!("{:<32} {}", "Laplace, epistemic entropy (nats)", near_and_far(&laplace.entropy.epistemic));

    let points: Vec<LabelledPoint> = train
        .features
        .outer_iter()
        .zip(&train.labels)
        .map(|(p, &class)| LabelledPoint { x: p[0], y: p[1], class })
        .collect();
    let maps = |quantity: &str, low, high| {
        Regions::new(GRID, quantity).with_scale(low, high).with_points(&points, &["upper moon", "lower moon"])
    };
    let confidences = maps("confidence", 0.5, 1.0)
        .with_panel("maximum likelihood", confidence(&mle).to_vec())
        .with_panel("Laplace, linearised", confidence(&laplace).to_vec())
        .figure()?
        .save(&out, "confidence")?;
    let entropies = maps("nats", 0.0, LN_2)
        .with_panel("entropy, maximum likelihood", mle.entropy.total.to_vec())
        .with_panel("entropy, Laplace", laplace.entropy.total.to_vec())
        .with_panel("of which epistemic", laplace.entropy.epistemic.to_vec())
        .figure()?
        .save(&out, "entropy")?;
    println!(
        "\n{} s; wrote {} and {} (and .svg, .json of each)",
        significant(start.elapsed().as_secs_f64()),
        confidences.png.display(),
        entropies.png.display()
    );
    Ok(())
}

/// Two interleaved half circles around the origin, with noise; the classes alternate.
fn moons(n: usize, rng: &mut ChaCha8Rng) -> Result<Points, Box<dyn Error>> {
    let noise = Normal::new(0.0, NOISE)?;
    let mut features = Array2::zeros((n, 2));
    let labels: Vec<usize> = (0..n).map(|i| i % 2).collect();
    for (mut point, &class) in features.outer_iter_mut().zip(&labels) {
        let (sin, cos) = rng.random_range(0.0..PI).sin_cos();
        let side = if class == 0 { 1.0 } else { -1.0 };
        point[0] = side * (cos - 0.5) + noise.sample(rng);
        point[1] = side * (sin - 0.25) + noise.sample(rng);
    }
    Ok(Points::new(features, labels)?)
}

/// Probability of the likelier class, for each item.
fn confidence(prediction: &Prediction) -> Array1<f64> {
    prediction.probabilities.map_axis(Axis(1), |p| p.fold(0.0, |a: f64, b| a.max(*b)))
}

/// Distance to the nearest point of `data`.
fn distance([x, y]: [f64; 2], data: &Points) -> f64 {
    data.features.outer_iter().map(|p| (p[0] - x).hypot(p[1] - y)).fold(f64::INFINITY, f64::min)
}

/// Accuracy and mean negative log-likelihood in nats.
fn score(prediction: &Prediction, data: &Points) -> Result<(f64, f64), Box<dyn Error>> {
    let (p, labels) = (prediction.probabilities.view(), &data.labels);
    Ok((accuracy(p, labels)?, nll(p, labels)?))
}
