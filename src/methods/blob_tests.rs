//! BLoB against linear regression with B held, whose evidence lower bound has a closed form.

use super::*;
use crate::linalg::eigh;
use ndarray::{Array1, Axis, arr2};
use std::f64::consts::PI;

const RANK: usize = 2;
const D_IN: usize = 2;
const D: usize = RANK * D_IN;
const NOISE: f64 = 0.7;
const PRIOR: f64 = 0.4;

/// `y = B A x` plus noise of known variance: a row an output, with the features of vec A.
struct Regression {
    n_items: usize,
    features: Array2<f64>,
    targets: Array1<f64>,
}

impl Regression {
    fn new() -> Self {
        let n_items = 6;
        // columns of B and features of x that are correlated: the posterior is, too
        let b = arr2(&[[1.0, 0.7], [-0.5, -0.1], [0.3, 0.4]]);
        let x = Array2::from_shape_fn((n_items, D_IN), |(n, j)| {
            let common = ((n * 3) % 7) as f64 / 3.0 - 0.8;
            if j == 0 { common } else { 0.8 * common + ((n * 5) % 7) as f64 / 10.0 - 0.3 }
        });
        let features =
            Array2::from_shape_fn((n_items * 3, D), |(row, k)| b[[row % 3, k / D_IN]] * x[[row / 3, k % D_IN]]);
        let targets = Array1::from_shape_fn(n_items * 3, |row| ((row * 5) % 11) as f64 / 4.0 - 1.0);
        Self { n_items, features, targets }
    }

    /// A step over some of the items, its loss divided by the mean number of items of so many steps.
    fn step(&self, items: std::ops::Range<usize>, steps: usize) -> Self {
        let rows = ndarray::s![3 * items.start..3 * items.end, ..];
        Self {
            n_items: self.n_items / steps,
            features: self.features.slice(rows).to_owned(),
            targets: self.targets.slice(ndarray::s![3 * items.start..3 * items.end]).to_owned(),
        }
    }

    /// Mean NLL over the items in nats, and its gradient.
    fn loss(&self, a: &Array2<f64>) -> (f64, Array2<f64>) {
        let flat = a.clone().into_shape_with_order(D).unwrap();
        let residual = self.features.dot(&flat) - &self.targets;
        let (n, variance) = (self.n_items as f64, NOISE * NOISE);
        let constant = 0.5 * residual.len() as f64 * (2.0 * PI * variance).ln();
        let gradient = self.features.t().dot(&residual) / (n * variance);
        let value = (0.5 * residual.dot(&residual) / variance + constant) / n;
        (value, gradient.into_shape_with_order((RANK, D_IN)).unwrap())
    }

    /// Precision and mean of the posterior, and the negative log evidence.
    fn posterior(&self) -> (Array2<f64>, Array1<f64>, f64) {
        let variance = NOISE * NOISE;
        let precision = self.features.t().dot(&self.features) / variance + Array2::<f64>::eye(D) / (PRIOR * PRIOR);
        let eigen = eigh(precision.view()).unwrap();
        let b = self.features.t().dot(&self.targets) / variance;
        let mean = eigen.vectors.dot(&(eigen.vectors.t().dot(&b) / &eigen.values));
        let evidence = self.targets.len() as f64 * (2.0 * PI * variance).ln()
            + eigen.values.mapv(f64::ln).sum()
            + D as f64 * (PRIOR * PRIOR).ln()
            + self.targets.dot(&self.targets) / variance
            - b.dot(&mean);
        (precision, mean, 0.5 * evidence)
    }

    /// Expectations over `N(M, diag σ²)` of the mean NLL, of g and of g∘E. Over all signs of E they are those over normal E, for
    /// the loss is quadratic.
    fn expected(&self, mean: &Array2<f64>, sd: &Array2<f64>) -> (f64, Array2<f64>, Array2<f64>) {
        let (mut value, mut by_mean, mut by_sd) = (0.0, Array2::zeros(mean.dim()), Array2::zeros(mean.dim()));
        for pattern in 0..1 << D {
            let e =
                Array2::from_shape_fn(mean.dim(), |(i, j)| if pattern >> (i * D_IN + j) & 1 == 0 { 1.0 } else { -1.0 });
            let (loss, g) = self.loss(&(mean + &(sd * &e)));
            let share = 1.0 / f64::from(1 << D);
            value += share * loss;
            by_sd = by_sd + share * &g * &e;
            by_mean = by_mean + share * g;
        }
        (value, by_mean, by_sd)
    }
}

fn site() -> Site {
    Site { module: "q".into(), matrix: LoraMatrix::A }
}

fn one(values: Array2<f64>) -> AdapterWeights {
    AdapterWeights::from([(site(), values)])
}

#[test]
fn the_bound_of_a_linear_regression_has_its_optimum_at_the_posteriors_mean_and_inverse_diagonal() {
    let of = Regression::new();
    let settings = Blob { prior_sd: PRIOR, initial_root: 0.5, ..Blob::default() };
    let mut rule = settings.rule(of.n_items, 4, 0.01, 3).unwrap();
    let mut weights = one(arr2(&[[0.3, -0.2], [0.1, 0.4]]));
    // Adam's error is about its last rate
    for (rate, steps) in [(1e-2, 2000), (1e-3, 2000), (1e-4, 1500), (1e-5, 1500), (1e-6, 1500), (1e-7, 1500)] {
        for _ in 0..steps {
            let sd = rule.deviations(&weights).unwrap()[&site()].clone();
            let (_, by_mean, by_sd) = of.expected(&weights[&site()], &sd);
            rule.advance(&mut weights, one(by_mean), &one(by_sd), rate).unwrap();
        }
    }
    let (precision, posterior_mean, minus_evidence) = of.posterior();
    let mean = weights[&site()].clone();
    let sd = rule.deviations(&weights).unwrap()[&site()].clone();
    let variances = precision.diag().mapv(f64::recip).into_shape_with_order((RANK, D_IN)).unwrap();
    let posterior_mean = posterior_mean.into_shape_with_order((RANK, D_IN)).unwrap();
    println!("M {mean:.8} for {posterior_mean:.8}; σ² {:.8} for {variances:.8}", sd.mapv(|s| s * s));
    let worst = |found: Array2<f64>| found.iter().fold(0.0f64, |m, v| m.max(v.abs()));
    assert!(worst(&mean - &posterior_mean) < 1e-6);
    assert!(worst(sd.mapv(|s| s * s) / &variances - 1.0) < 1e-6);
    // and not the marginal variances, nor the prior's mean
    let eigen = eigh(precision.view()).unwrap();
    let marginals = (&eigen.vectors * &eigen.vectors / &eigen.values).sum_axis(Axis(1));
    assert!(worst((marginals.into_shape_with_order((RANK, D_IN)).unwrap() / &variances) - 1.0) > 0.05);
    assert!(worst(posterior_mean) > 0.1);

    // −ELBO = −log p(y) + KL(q ‖ posterior), and at this optimum tr(PΣ) = D
    let expected = minus_evidence - 0.5 * (eigen.values.mapv(f64::ln).sum() + variances.mapv(f64::ln).sum());
    let bound = of.n_items as f64 * of.expected(&mean, &sd).0 + rule.divergence(&weights).unwrap();
    println!("−ELBO {bound:.10} for {expected:.10}, −log evidence {minus_evidence:.10}");
    // second order in the errors of 1e-6
    assert!((bound - expected).abs() < 1e-9, "{bound} and {expected}");
    assert!(bound > minus_evidence + 0.01);
}

#[test]
fn in_steps_of_uneven_size_the_optimum_is_the_same() {
    let of = Regression::new();
    // as the trainer cuts six items into steps of at most five
    let optimum = |steps: &[Regression]| {
        let settings = Blob { prior_sd: PRIOR, initial_root: 0.5, ..Blob::default() };
        let mut rule = settings.rule(of.n_items, 5, 0.01, 3).unwrap();
        let mut weights = one(arr2(&[[0.3, -0.2], [0.1, 0.4]]));
        for (rate, epochs) in [(1e-2, 1000), (1e-3, 1000), (1e-4, 2000), (1e-5, 2000)] {
            for step in (0..epochs).flat_map(|_| steps) {
                let sd = rule.deviations(&weights).unwrap()[&site()].clone();
                let (_, by_mean, by_sd) = step.expected(&weights[&site()], &sd);
                rule.advance(&mut weights, one(by_mean), &one(by_sd), rate).unwrap();
            }
        }
        let variances = rule.deviations(&weights).unwrap()[&site()].mapv(|sd| sd * sd);
        (weights[&site()].clone(), variances)
    };
    let (precision, posterior_mean, _) = of.posterior();
    let expected_mean = posterior_mean.into_shape_with_order((RANK, D_IN)).unwrap();
    let expected = precision.diag().mapv(f64::recip).into_shape_with_order((RANK, D_IN)).unwrap();
    let apart = |(mean, variances): &(Array2<f64>, Array2<f64>)| {
        let worst = |found: Array2<f64>| found.iter().fold(0.0f64, |m, v| m.max(v.abs()));
        (worst(mean - &expected_mean), worst(variances / &expected - 1.0))
    };
    let even = apart(&optimum(&[of.step(0..5, 2), of.step(5..6, 2)]));
    // each divided by its own number of items, the last one weighs five times as much
    let own = [Regression { n_items: 5, ..of.step(0..5, 2) }, Regression { n_items: 1, ..of.step(5..6, 2) }];
    let by_own_size = apart(&optimum(&own));
    println!("mean and variances apart by {even:?}; by each step's own size {by_own_size:?}");
    // Adam's running square moves by 1 − β₂ = 1e-3 within an epoch, and so does the weight of a step
    assert!(even.0 < 2e-3 && even.1 < 2e-3, "{even:?}");
    assert!(by_own_size.0 > 0.05 && by_own_size.1 > 0.05, "{by_own_size:?}");
}

#[test]
fn away_from_the_optimum_the_bound_is_the_evidence_and_a_divergence_too() {
    let of = Regression::new();
    let (precision, posterior_mean, minus_evidence) = of.posterior();
    let mut rule = Blob { prior_sd: PRIOR, ..Blob::default() }.rule(of.n_items, 4, 0.01, 3).unwrap();
    let mean = arr2(&[[0.3, -0.2], [0.1, 0.4]]);
    rule.roots = one(arr2(&[[0.3, 0.5], [0.2, -0.6]]));
    let sd = rule.deviations(&one(mean.clone())).unwrap()[&site()].clone();
    let variances = sd.mapv(|s| s * s).into_shape_with_order(D).unwrap();
    let difference = mean.clone().into_shape_with_order(D).unwrap() - posterior_mean;
    let log_det = eigh(precision.view()).unwrap().values.mapv(f64::ln).sum();
    let divergence = 0.5
        * (precision.diag().dot(&variances) + difference.dot(&precision.dot(&difference))
            - D as f64
            - log_det
            - variances.mapv(f64::ln).sum());
    let bound = of.n_items as f64 * of.expected(&mean, &sd).0 + rule.divergence(&one(mean)).unwrap();
    let expected = minus_evidence + divergence;
    assert!((bound - expected).abs() < 1e-11 * expected.abs(), "{bound} and {expected}");
    assert!(divergence > 1.0);
}

#[test]
fn the_published_schedule_moves_the_mean_twice_and_the_roots_by_plain_descent() {
    let mut rule = Blob { prior_sd: 0.2, ..Blob::published() }.rule(640, 4, 1e-4, 0).unwrap();
    let root = 0.04;
    rule.roots = one(arr2(&[[root]]));
    // the last step of the first cycle of 316: π is a half, the sums before it small
    rule.updates = 315;
    rule.of_weights.first = one(arr2(&[[0.0]]));
    rule.of_weights.second = one(arr2(&[[0.0]]));
    let mut weights = one(arr2(&[[0.5]]));
    let (g, by_sd) = (0.02, -0.3);
    // half of the peak rate: half of both rates
    rule.advance(&mut weights, one(arr2(&[[g]])), &one(arr2(&[[by_sd]])), 0.5e-4).unwrap();
    let weight = 0.5;
    let corrected = |beta: f64| 1.0 - beta.powi(316);
    let first = 0.1 * g / corrected(0.9);
    let second: f64 = 0.001 * g * g / corrected(0.999);
    let after_adam = 0.5 - 0.5e-4 * first / (second.sqrt() + 1e-6);
    let denominator = 2.0 * 0.2 * 0.2 + 1e-6;
    let mean = after_adam - 0.005 * weight * 2.0 * after_adam / denominator;
    assert!((weights[&site()][[0, 0]] - mean).abs() < 1e-14);
    let sd = root * root;
    let by_kl = 2.0 * sd / denominator - 1.0 / (sd + 1e-6);
    let expected = root - 0.005 * 2.0 * root * (by_sd + weight * by_kl);
    assert!((rule.roots[&site()][[0, 0]] - expected).abs() < 1e-14);
    assert!((0.5 - after_adam).abs() > 1e-6 && (mean - after_adam).abs() > 1e-3 && (expected - root).abs() > 1e-3);
}

#[test]
fn the_start_has_deviations_between_half_of_the_square_and_the_square() {
    let rule = Blob::default().rule(640, 4, 1e-4, 5).unwrap();
    let mut adapter = one(Array2::zeros((8, 64)));
    adapter.insert(Site { module: "q".into(), matrix: LoraMatrix::B }, Array2::zeros((64, 8)));
    let deviations = rule.deviations(&adapter).unwrap();
    assert_eq!(deviations.len(), 1);
    let values = &deviations[&site()];
    let high = 0.05f64 * 0.05;
    // uniform in G: 512 draws come within a tenth of both ends
    let (low, top) = values.iter().fold((1.0f64, 0.0f64), |(low, top), v| (low.min(*v), top.max(*v)));
    assert!(low >= high / 2.0 && low < 0.55 * high && top <= high && top > 0.95 * high, "{low} to {top}");
}
