//! What the training items of a network say about other items, from its Jacobians: with a Gaussian likelihood the linearised model is
//! ridge regression, which is refitted here.

use crate::support::{device, f64_or_skip};
use bayes_lora::belief::LogitBelief;
use bayes_lora::curvature::{CurvatureConfig, RandomProjection, fit_curvature};
use bayes_lora::likelihood::Gaussian;
use bayes_lora::linalg::{CholeskyFactor, eigh};
use bayes_lora::lora::{AdapterWeights, LoraConfig, attach, read_adapter, write_adapter};
use bayes_lora::models::{Mlp, MlpConfig, Points};
use bayes_lora::posterior::{JacobianRows, Laplace, LaplaceConfig, LinearizedConfig, LinearizedModel, Mode};
use bayes_lora::prior::PriorPrecision;
use bayes_lora::progress::Control;
use burn::tensor::DType;
use ndarray::{Array1, Array2, s};
use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};

const CLASSES: usize = 3;
const NOISE: f64 = 0.4;
const SCALE: f64 = 0.7;

fn noise(seed: u64, rows: usize, columns: usize) -> Array2<f64> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    Array2::from_shape_fn((rows, columns), |_| rng.random_range(-1.0..1.0))
}

fn points(n: usize, seed: u64) -> Points {
    Points::new(noise(seed, n, 2) * 2.0, (0..n).map(|i| (i * 7 + i / 3) % CLASSES).collect()).unwrap()
}

/// A network with 34 adapter weights, moved away from their start.
fn network() -> Mlp {
    let model = MlpConfig::new([2, 6, CLASSES]).with_dtype(DType::F64).with_seed(4).init(&device()).unwrap();
    let model = attach(model, &LoraConfig::new(2), 2).unwrap();
    let moved = read_adapter(&model).unwrap().into_iter().enumerate().map(|(k, (site, w))| {
        let (rows, columns) = w.dim();
        (site, w + noise(100 + k as u64, rows, columns) * 0.5)
    });
    let moved: AdapterWeights = moved.collect();
    write_adapter(model, &moved).unwrap()
}

struct Linearized {
    model: Mlp,
    laplace: Laplace,
    rows: JacobianRows,
    linear: LinearizedModel,
    mode: Mode,
}

impl Linearized {
    fn new(train: &Points, config: &LinearizedConfig) -> Self {
        let model = network();
        let curvature = CurvatureConfig::default().with_likelihood(Gaussian { noise_variance: NOISE });
        let curvature = fit_curvature(&model, train, &curvature, &Control::silent()).unwrap();
        let prior = LaplaceConfig::default().with_prior_precision(PriorPrecision::new(2.0).unwrap());
        let laplace = Laplace::new(&model, &curvature, &prior).unwrap();
        let rows = JacobianRows::of(&model, &laplace, train, config, &Control::silent()).unwrap();
        let linear = LinearizedModel::of(&model, &laplace, train, config, &Control::silent()).unwrap();
        let mode = linear.mode(SCALE, None).unwrap();
        Self { model, laplace, rows, linear, mode }
    }

    fn rows_of(&self, others: &Points) -> JacobianRows {
        let limits = LinearizedConfig::default().limits_or_default();
        self.rows.of_others((&self.model, &self.laplace), others, &limits, &Control::silent()).unwrap()
    }
}

/// Precision of the weights, and their mean, by ridge regression on the rows without those of an item.
fn ridge(rows: &JacobianRows, train: &Points, left_out: Option<usize>) -> (Array2<f64>, Array1<f64>) {
    let mut features = rows.to_matrix();
    let mut rest = Array1::zeros(rows.n_rows());
    for (item, &label) in train.labels.iter().enumerate() {
        for class in 0..CLASSES {
            let row = item * CLASSES + class;
            rest[row] = f64::from(class == label) - rows.items.outputs[[item, class]] + rows.items.drift[row];
            if left_out == Some(item) {
                features.row_mut(row).fill(0.0);
            }
        }
    }
    let precision = Array2::eye(features.ncols()) * SCALE + features.t().dot(&features) / NOISE;
    let mean = CholeskyFactor::new(precision.view()).unwrap().solve_vector((features.t().dot(&rest) / NOISE).view());
    (precision, mean)
}

/// More rows than weights, fewer, and random sums of the weights.
fn cases() -> [(&'static str, usize, LinearizedConfig); 3] {
    let sums = RandomProjection { width: 9, seed: 5 };
    let exact = LinearizedConfig::default();
    let projected = LinearizedConfig::default().with_exact_rows(0).with_projection(sums);
    [("kernel", 8, exact), ("features", 20, exact), ("projected", 8, projected)]
}

#[test]
fn influence_is_the_change_that_refitting_without_the_item_makes() {
    if !f64_or_skip("influence") {
        return;
    }
    for (name, n, config) in cases() {
        let (train, test) = (points(n, 1), points(5, 2));
        let own = Linearized::new(&train, &config);
        assert_eq!(own.linear.projected().is_some(), name == "projected");
        let others = own.rows_of(&test);
        let influence = own.linear.influence(&own.mode, &own.rows, &others).unwrap();
        let (_, all) = ridge(&own.rows, &train, None);
        for item in 0..n {
            let moved = others.to_matrix().dot(&(ridge(&own.rows, &train, Some(item)).1 - &all));
            let found: Array1<f64> = influence.changes().slice(s![item, .., ..]).iter().copied().collect();
            assert!((&found - &moved).iter().all(|d| d.abs() < 1e-10), "{name}, item {item}"); // condition below 1e4
            assert!(found.iter().any(|v| v.abs() > 1e-3), "{name}, item {item} changes nothing: {found}");
        }
        // of the training items themselves it is the leave-one-out shift
        let itself = own.linear.influence(&own.mode, &own.rows, &own.rows).unwrap();
        let left_out = own.linear.leave_one_out(&own.mode).unwrap();
        let LogitBelief::Gaussian { mean, .. } = left_out.belief() else { panic!("a Gaussian belief") };
        for item in 0..n {
            let moved = &own.rows.items.outputs.row(item) + &itself.changes().slice(s![item, item, ..]);
            assert!((&moved - &mean.row(item)).iter().all(|d| d.abs() < 1e-10), "{name}, item {item}");
        }
    }
}

#[test]
fn the_joint_posterior_of_other_items_is_that_of_ridge_regression() {
    if !f64_or_skip("joint posterior") {
        return;
    }
    for (name, n, config) in cases() {
        let (train, pool) = (points(n, 1), points(6, 3));
        let own = Linearized::new(&train, &config);
        let others = own.rows_of(&pool);
        let joint = own.linear.joint_belief(&own.mode, &own.rows, &others).unwrap();
        let precision = ridge(&own.rows, &train, None).0;
        let features = others.to_matrix();
        let expected = features.dot(&CholeskyFactor::new(precision.view()).unwrap().solve(features.t()));
        assert!((&joint.covariance() - &expected).iter().all(|d| d.abs() < 1e-10), "{name}");
        let LogitBelief::Gaussian { mean, covariance, .. } = joint.belief() else { panic!("a Gaussian belief") };
        assert_eq!(mean, others.items.outputs, "{name}");
        let second = expected.slice(s![CLASSES..2 * CLASSES, CLASSES..2 * CLASSES]);
        assert!((&covariance.slice(s![1, .., ..]) - &second).iter().all(|d| d.abs() < 1e-10), "{name}");
        // all labels together: ½ ln det(I + S/σ²), and a batch of all items adds up to it
        let spectrum = eigh(expected.view()).unwrap().values;
        let information: f64 = spectrum.iter().map(|e| 0.5 * (1.0 + e / NOISE).ln()).sum();
        let gained: f64 = joint.choose_batch(6).unwrap().iter().map(|choice| choice.gain).sum();
        assert!((gained - information).abs() < 1e-9, "{name}: {gained} beside {information}");
    }
}

#[test]
fn rows_and_modes_of_another_model_are_refused() {
    if !f64_or_skip("rows of another model") {
        return;
    }
    let config = LinearizedConfig::default();
    let (own, other) = (Linearized::new(&points(8, 1), &config), Linearized::new(&points(9, 1), &config));
    let others = own.rows_of(&points(5, 2));
    let refused = |mode: &Mode, train: &JacobianRows, others: &JacobianRows| {
        let influence = own.linear.influence(mode, train, others).unwrap_err().to_string();
        assert_eq!(influence, own.linear.joint_belief(mode, train, others).unwrap_err().to_string());
        influence
    };
    assert_eq!(refused(&other.mode, &own.rows, &others), "combinations of the mode: expected 24, found 27");
    let what = "rows of the training items' Jacobians";
    assert_eq!(refused(&own.mode, &other.rows, &others), format!("{what}: expected 24, found 27"));
    let error = refused(&own.mode, &own.rows, &other.rows);
    assert!(error.contains("different coordinates"), "{error}");
}
