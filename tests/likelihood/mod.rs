//! A likelihood is one object: its density, score, Fisher information, draws and moments agree, and everything from training to
//! prediction asks it, one that is written here included.

mod masks;
mod poisson;
mod regression;

use crate::support::points::Regression;
use crate::support::{device, f64_or_skip, logits};
use bayes_lora::data::BatchLimits;
use bayes_lora::likelihood::{Categorical, Gaussian, Likelihood, Target};
use bayes_lora::lora::{LoraConfig, attach, read_adapter, write_adapter};
use bayes_lora::models::{Dataset, Mlp, MlpConfig, Points, PointsBatch};
use bayes_lora::posterior::log_likelihood_gradient;
use bayes_lora::progress::Control;
use burn::tensor::DType;
use ndarray::{Array1, Array2, arr1};
use poisson::Poisson;
use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};

const LIMITS: BatchLimits = BatchLimits { max_items: 64, max_tokens: 10_000 };

/// Numbers in [−1, 1] that are the same on every run.
fn noise(seed: u64, rows: usize, columns: usize) -> Array2<f64> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    Array2::from_shape_fn((rows, columns), |_| rng.random_range(-1.0..1.0))
}

/// A network in f64 whose adapter has left its start.
fn network(widths: &[usize]) -> Mlp {
    let model = MlpConfig::new(widths).with_dtype(DType::F64).with_seed(4).init(&device()).unwrap();
    let model = attach(model, &LoraConfig::new(2), 2).unwrap();
    let moved = read_adapter(&model).unwrap().into_iter().enumerate().map(|(k, (site, w))| {
        let (rows, columns) = w.dim();
        (site, w + noise(100 + k as u64, rows, columns) * 0.5)
    });
    let moved = moved.collect();
    write_adapter(model, &moved).unwrap()
}

/// Every likelihood with targets that it can be about, at outputs of which the second is lacking.
fn cases() -> Vec<(Box<dyn Likelihood>, Target)> {
    let gaussian = Gaussian { noise_variance: 0.3 };
    vec![
        (Box::new(Categorical), Target::Class(2)),
        (Box::new(gaussian), Target::Values(vec![1.5, f64::NAN, -0.2, 0.7])),
        (Box::new(gaussian), Target::Class(3)),
        (Box::new(Poisson), Target::Values(vec![2.0, f64::NAN, 0.0, 1.0])),
    ]
}

fn outputs() -> Array1<f64> {
    arr1(&[0.4, f64::NEG_INFINITY, -0.8, 1.1])
}

#[test]
fn the_score_is_the_gradient_of_the_log_density_and_its_covariance_the_fisher_information() {
    let (f, step) = (outputs(), 1e-5);
    for (likelihood, target) in cases() {
        likelihood.check_target("x", &target, &[true, false, true, true]).unwrap();
        let (score, fisher) = (likelihood.score(f.view(), &target), likelihood.fisher(f.view()));
        let moved = |c: usize, by: f64| {
            let mut moved = f.clone();
            moved[c] += by;
            moved
        };
        for c in [0, 2, 3] {
            let density = |by: f64| likelihood.log_density(moved(c, by).view(), &target);
            let slope = (density(step) - density(-step)) / (2.0 * step);
            // the central difference is off by step² times a third derivative below 10, and rounding over the step
            assert!((slope - score[c]).abs() < 1e-8, "{likelihood:?} {c}: {slope} against {}", score[c]);
            // in the natural parameter the Hessian of log p does not depend on the target, and is −Λ
            let above = likelihood.score(moved(c, step).view(), &target);
            let below = likelihood.score(moved(c, -step).view(), &target);
            let column = (below - above) / (2.0 * step);
            assert!((&column - &fisher.column(c)).iter().all(|d| d.abs() < 1e-8), "{likelihood:?} {c}");
        }
        assert_eq!((score[1], fisher.row(1).sum(), fisher.column(1).sum()), (0.0, 0.0, 0.0), "{likelihood:?}");
        let root = likelihood.fisher_root(f.view()).unwrap();
        assert_eq!(root.ncols(), likelihood.root_width(4));
        assert!((&root.dot(&root.t()) - &fisher).iter().all(|d| d.abs() < 1e-12)); // rounding of a square root
    }
}

#[test]
fn drawn_targets_have_the_likelihood_s_moments_and_a_score_of_mean_zero() {
    let (f, n) = (outputs(), 40_000);
    for (likelihood, _) in cases() {
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        let drawn: Vec<Target> = (0..n).map(|_| likelihood.sample(f.view(), &mut rng)).collect();
        let (mean, covariance) = likelihood.moments(f.view());
        let fisher = likelihood.fisher(f.view());
        let average = |of: &dyn Fn(&Target) -> f64| drawn.iter().map(of).sum::<f64>() / n as f64;
        for c in [0, 2, 3] {
            let found = average(&|y| y.component(c));
            let error = 5.0 * (covariance[[c, c]] / n as f64).sqrt(); // five standard errors
            assert!((found - mean[c]).abs() < error, "{likelihood:?} {c}: {found} against {}", mean[c]);
            let score = average(&|y| likelihood.score(f.view(), y)[c]);
            assert!(score.abs() < 5.0 * (fisher[[c, c]] / n as f64).sqrt(), "{likelihood:?} {c}: {score}");
            let variance = average(&|y| (y.component(c) - mean[c]).powi(2));
            // a fourth moment of a Poisson count of mean 3 is 30: 5 standard errors of the variance are 0.13
            assert!((variance - covariance[[c, c]]).abs() < 0.15, "{likelihood:?} {c}: {variance}");
        }
    }
}

/// The sum over all items of `log p(y | f(x))` of a model, on the host.
fn log_likelihood<D: Dataset<Input = PointsBatch>>(model: &Mlp, data: &D, likelihood: &dyn Likelihood) -> f64 {
    let outputs = logits(model, data);
    outputs.outer_iter().enumerate().map(|(i, f)| likelihood.log_density(f, &data.target(i).unwrap())).sum()
}

#[test]
fn the_gradient_over_the_weights_is_that_of_the_log_density() {
    if !f64_or_skip("gradients of likelihoods") {
        return;
    }
    let (n, step) = (7, 1e-5);
    let model = network(&[3, 4, 2]);
    let counts = noise(3, n, 2).mapv(|v| (3.0 + 3.0 * v).floor());
    let data = Regression::new(noise(1, n, 3) * 2.0, counts);
    let labelled = Points::new(data.points.features.clone(), (0..n).map(|i| i % 2).collect()).unwrap();
    let gaussian = Gaussian { noise_variance: 0.3 };
    let control = Control::silent();
    let likelihoods: [&dyn Likelihood; 2] = [&gaussian, &Poisson];
    let mut all: Vec<_> = likelihoods
        .iter()
        .map(|l| (log_likelihood_gradient(&model, &data, *l, &LIMITS, &control).unwrap(), *l, false))
        .collect();
    for likelihood in [&Categorical as &dyn Likelihood, &gaussian] {
        let gradient = log_likelihood_gradient(&model, &labelled, likelihood, &LIMITS, &control).unwrap();
        all.push((gradient, likelihood, true));
    }
    for (gradient, likelihood, is_labelled) in all {
        for (site, found) in gradient {
            let at = [0, 1];
            let moved = |by: f64| {
                let mut weights = read_adapter(&model).unwrap();
                weights.get_mut(&site).unwrap()[at] += by;
                let model = write_adapter(model.clone(), &weights).unwrap();
                if is_labelled {
                    log_likelihood(&model, &labelled, likelihood)
                } else {
                    log_likelihood(&model, &data, likelihood)
                }
            };
            let slope = (moved(step) - moved(-step)) / (2.0 * step);
            // sums of some tens: rounding of 1e-14 over the step, and step² times a third derivative below 100
            assert!((slope - found[at]).abs() < 1e-7, "{likelihood:?} {site}: {slope} against {}", found[at]);
        }
    }
}
