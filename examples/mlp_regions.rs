//! Where a small classifier is sure of itself: maximum likelihood beside Laplace, over a plane of inputs, in seconds.
//!
//! A tanh network is pretrained for ten steps on 30 points of two noisy moons; a LoRA adapter on all its layers then fits
//! 100 new points by maximum likelihood, which is surest where there are no data. The Laplace posterior over the same
//! adapter answers alike, but its boundary widens with the distance from the data: what it does not know shows as
//! epistemic entropy. It stays sure in the sectors where the logits are large against their standard deviation.
//!
//! ```sh
//! cargo run --release --example mlp_regions
//! ```
//!
//! ```text
//!                       confidence near        far away  epistemic near        far away       test acc.        test NLL
//! maximum likelihood              0.915           0.984           0.000           0.000           0.923           0.201
//! Laplace, linearised             0.840           0.792           0.174           0.392           0.923           0.256
//! ```
//!
//! The pictures go to `target/mlp_regions`.

use bayes_lora::BayesLoraConfig;
use bayes_lora::data::BatchLimits;
use bayes_lora::lora::LoraConfig;
use bayes_lora::metrics::{accuracy, nll};
use bayes_lora::models::{MlpConfig, Points};
use bayes_lora::outputs::claim_dir;
use bayes_lora::plot::{Grid, LabelledPoint, Regions};
use bayes_lora::predict::{Prediction, Predictive};
use bayes_lora::progress::Control;
use bayes_lora::train::{Decay, Trainer, TrainerConfig, TrainingMode};
use burn::tensor::Device;
use ndarray::{Array1, Array2, Axis};
use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};
use rand_distr::{Distribution, Normal};
use std::error::Error;
use std::f64::consts::{LN_2, PI};

const OUT: &str = "target/mlp_regions";
const SEED: u64 = 0;
/// Standard deviation of the noise on the moons: enough that they overlap.
const NOISE: f64 = 0.25;
const GRID: Grid = Grid { x: (-4.0, 4.0), y: (-4.0, 4.0), n_x: 80, n_y: 80 };

fn main() -> Result<(), Box<dyn Error>> {
    claim_dir(OUT, 0)?;
    let mut rng = ChaCha8Rng::seed_from_u64(SEED);
    let (pretraining, train, test) = (moons(30, &mut rng)?, moons(100, &mut rng)?, moons(1000, &mut rng)?);

    // a network that is pretrained whole, then an adapter with its posterior
    let limits = BatchLimits { max_items: 64, max_tokens: 64 };
    let trainer =
        TrainerConfig::default().with_learning_rate(1e-2).with_decay(Decay::Cosine).with_limits(limits).with_seed(SEED);
    let full = trainer.clone().with_epochs(10).with_mode(TrainingMode::Full);
    let mlp = MlpConfig::new([2, 64, 64, 2]).with_seed(SEED).init(&Device::flex())?;
    let base = Trainer::new(full)?.fit(mlp, &pretraining, None, &Control::silent())?.model;
    let bayes = BayesLoraConfig::new(LoraConfig::new(8))
        .with_trainer(trainer.with_epochs(100))
        .with_limits(BatchLimits { max_items: 512, max_tokens: 512 })
        .with_seed(SEED);
    let fitted = bayes.init()?.fit(base, &train)?;
    fitted.remarks().iter().for_each(|remark| println!("note: {remark}"));

    // both ask about every cell of the plane
    let (control, cells) = (Control::silent(), GRID.centres());
    let plane = Points::new(Array2::from(cells.clone()), vec![])?;
    let which = |keep: fn(f64) -> bool| -> Vec<usize> {
        (0..cells.len()).filter(|&cell| keep(distance(cells[cell], &train))).collect()
    };
    // near a training point, and far from all
    let sides = [which(|distance| distance < 0.3), which(|distance| distance > 1.5)];
    let points = train.features.outer_iter().zip(&train.labels);
    let points: Vec<LabelledPoint> = points.map(|(p, &class)| LabelledPoint { x: p[0], y: p[1], class }).collect();
    let maps = |quantity: &str, low, high| {
        Regions::new(GRID, quantity).with_scale(low, high).with_points(&points, &["upper moon", "lower moon"])
    };
    let (mut confidences, mut entropies) = (maps("confidence", 0.5, 1.0), maps("nats", 0.0, LN_2));
    let titles = ["confidence near", "far away", "epistemic near", "far away", "test acc.", "test NLL"];
    println!("\n{:<20} {}", "", titles.map(|title| format!("{title:>16}")).concat());
    for (title, how) in [("maximum likelihood", Predictive::Map), ("Laplace, linearised", Predictive::default())] {
        let (on_plane, on_test) = (fitted.predict(&plane, how, &control)?, fitted.predict(&test, how, &control)?);
        let p = on_test.probabilities.view();
        let means = |values: &Array1<f64>| {
            sides.each_ref().map(|cells| values.select(Axis(0), cells).mean().unwrap_or(f64::NAN))
        };
        let [sure, doubt] = [means(&confidence(&on_plane)), means(&on_plane.entropy.epistemic)];
        let numbers = [sure[0], sure[1], doubt[0], doubt[1], accuracy(p, &test.labels)?, nll(p, &test.labels)?];
        println!("{title:<20} {}", numbers.map(|number| format!("{number:>16.3}")).concat());
        confidences = confidences.with_panel(title, confidence(&on_plane).to_vec());
        entropies = entropies.with_panel(format!("entropy, {title}"), on_plane.entropy.total.to_vec());
        if how != Predictive::Map {
            entropies = entropies.with_panel("of which epistemic", on_plane.entropy.epistemic.to_vec());
        }
    }
    confidences.figure()?.save(OUT, "confidence")?;
    entropies.figure()?.save(OUT, "entropy")?;
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
