//! Models that are linear in what is uncertain, with a Gaussian likelihood: their evidence in closed form, and their mode one Newton
//! step from any adapter.

use super::{ALGEBRA, LIMITS, config, fixed};
use crate::support::{device, f64_or_skip};
use bayes_lora::curvature::{AdapterSubset, CoreSpace, CurvatureConfig, CurvatureStructure, fit_curvature};
use bayes_lora::likelihood::Gaussian;
use bayes_lora::linalg::eigh;
use bayes_lora::lora::{Adaptable, AdapterWeights, LoraConfig, attach, read_adapter, start_at, write_adapter};
use bayes_lora::models::{Mlp, MlpConfig, Points};
use bayes_lora::posterior::{Laplace, LinearizedConfig, LinearizedModel, log_likelihood_gradient};
use bayes_lora::prior::{PriorMean, PriorPrecision};
use bayes_lora::progress::Control;
use bayes_lora::tape::{LoraMatrix, Site};
use burn::tensor::DType;
use ndarray::{Array1, Array2};
use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};
use std::f64::consts::TAU;

/// A linear model as the library sees it from some adapter, at λ = 1.
struct Linear {
    laplace: Laplace,
    linearized: LinearizedModel,
    gradient: AdapterWeights,
}

impl Linear {
    fn new(model: &Mlp, data: &Points, config: &CurvatureConfig, mean: PriorMean) -> Self {
        let control = Control::silent();
        let gradient =
            log_likelihood_gradient(model, data, &*config.likelihood_or_default(), &LIMITS, &control).unwrap();
        let curvature = fit_curvature(model, data, config, &control).unwrap();
        let laplace = Laplace::new(model, &curvature, &fixed(1.0).with_prior_mean(mean)).unwrap();
        let linearized = LinearizedModel::of(model, &laplace, data, &LinearizedConfig::default(), &control).unwrap();
        Self { laplace, linearized, gradient }
    }

    /// The evidence under λ. The mode is one Newton step away, which gains what [`Laplace::stationarity`] says.
    fn log_marginal(&self, lambda: f64) -> f64 {
        let mode = self.linearized.mode(lambda, None).unwrap();
        let laplace = self.laplace.clone().with_prior_precisions(PriorPrecision::new(lambda).unwrap()).unwrap();
        let at_adapter = laplace.log_likelihood().unwrap() - 0.5 * lambda * laplace.groups()[0].scatter;
        let gain = mode.log_likelihood - mode.penalty - at_adapter;
        let found = laplace.stationarity(&self.gradient).unwrap();
        assert!((found.newton_gain / gain - 1.0).abs() < ALGEBRA, "λ = {lambda}: {found:?} against {gain}");
        mode.log_marginal_likelihood()
    }
}

/// `f(x) = W₀x + s·B·A·x` with only B uncertain.
struct Regression {
    base: Mlp,
    data: Points,
    hidden: Array2<f64>,
    residual_at_zero: Array2<f64>,
    noise_variance: f64,
}

const B: fn() -> Site = || Site { module: "layers.0".into(), matrix: LoraMatrix::B };

impl Regression {
    fn new() -> Self {
        let (n, d, c, noise_variance) = (40, 6, 3, 0.2);
        let base = MlpConfig::new([d, c]).with_seed(3).with_dtype(DType::F64).init(&device()).unwrap();
        let base = attach(base, &LoraConfig::new(4), 5).unwrap();
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        let features = Array2::from_shape_fn((n, d), |_| rng.random_range(-1.0..1.0));
        let labels: Vec<usize> = (0..n).map(|_| rng.random_range(0..c)).collect();
        let weights = read_adapter(&base).unwrap();
        let a = &weights[&Site { module: "layers.0".into(), matrix: LoraMatrix::A }];
        let scale = base.linears()[0].adapter.as_ref().unwrap().scale;
        let hidden = features.dot(&a.t()) * scale;
        let data = Points::new(features, labels.clone()).unwrap();
        let logits = super::probed_logits(&base, &data);
        let one_hot = Array2::from_shape_fn((n, c), |(i, k)| f64::from(u8::from(labels[i] == k)));
        Self { base, data, hidden, residual_at_zero: one_hot - logits, noise_variance }
    }

    /// The library's model over B, expanded around `b`.
    fn around(&self, b: Array2<f64>) -> Linear {
        let mut weights = read_adapter(&self.base).unwrap();
        weights.insert(B(), b);
        let model = write_adapter(self.base.clone(), &weights).unwrap();
        let likelihood = Gaussian { noise_variance: self.noise_variance };
        let curvature = config(CurvatureStructure::Full).with_subset(AdapterSubset::OnlyB).with_likelihood(likelihood);
        Linear::new(&model, &self.data, &curvature, PriorMean::Zero)
    }

    /// `Σ_c ln N(r_c; 0, σ²I + HHᵀ/λ)` of the residuals at B = 0, column by column.
    fn log_marginal(&self, lambda: f64) -> f64 {
        let n = self.hidden.nrows();
        let covariance = Array2::<f64>::eye(n) * self.noise_variance + self.hidden.dot(&self.hidden.t()) / lambda;
        let eigen = eigh(covariance.view()).unwrap();
        let log_det: f64 = eigen.values.iter().map(|e| e.ln()).sum();
        let column = |r: ndarray::ArrayView1<f64>| {
            let rotated: Array1<f64> = eigen.vectors.t().dot(&r);
            let square: f64 = rotated.iter().zip(&eigen.values).map(|(v, e)| v * v / e).sum();
            -0.5 * (square + log_det + n as f64 * TAU.ln())
        };
        self.residual_at_zero.columns().into_iter().map(column).sum()
    }
}

#[test]
fn a_linear_model_has_its_exact_evidence_around_any_adapter() {
    if !f64_or_skip("evidence of a linear model") {
        return;
    }
    let regression = Regression::new();
    let mut rng = ChaCha8Rng::seed_from_u64(11);
    let far = Array2::from_shape_fn((3, 4), |_| rng.random_range(-2.0..2.0));
    for b in [Array2::zeros((3, 4)), far] {
        let linear = regression.around(b);
        for lambda in [0.1, 1.0, 30.0] {
            let found = linear.log_marginal(lambda);
            let expected = regression.log_marginal(lambda);
            assert!((found / expected - 1.0).abs() < ALGEBRA, "λ = {lambda}: {found} against {expected}");
        }
        let best = linear.linearized.optimal_prior().unwrap().precisions.of(0).value();
        let at = |factor: f64| regression.log_marginal(best * factor);
        for factor in [0.5, 0.9, 1.1, 2.0] {
            assert!(at(factor) < at(1.0), "λ = {best}: {} at {factor} times it, {} at it", at(factor), at(1.0));
        }
    }
}

/// `f(x) = W₀x + s·U·R·Vᵀx` is linear in the core R: its evidence is that of Bayesian regression around R₀ = UᵀB₀A₀V.
#[test]
fn a_core_whose_prior_is_centred_at_another_adapter_has_its_exact_evidence() {
    if !f64_or_skip("evidence of a core") {
        return;
    }
    let (n, d, c, noise_variance) = (20, 6, 4, 0.2);
    let base = MlpConfig::new([d, c]).with_seed(3).with_dtype(DType::F64).init(&device()).unwrap();
    let base = attach(base, &LoraConfig::new(2), 5).unwrap();
    let scale = base.linears()[0].adapter.as_ref().unwrap().scale;
    let mut rng = ChaCha8Rng::seed_from_u64(13);
    let features = Array2::from_shape_fn((n, d), |_| rng.random_range(-1.0..1.0));
    let labels: Vec<usize> = (0..n).map(|_| rng.random_range(0..c)).collect();
    let data = Points::new(features.clone(), labels.clone()).unwrap();
    let mut random = || -> AdapterWeights {
        let shapes = read_adapter(&base).unwrap();
        shapes.into_iter().map(|(site, w)| (site, w.mapv(|_| rng.random_range(-1.0..1.0)))).collect()
    };
    let (centre, trained) = (random(), random());
    let model = write_adapter(start_at(base.clone(), &centre).unwrap(), &trained).unwrap();
    let core = CoreSpace::new(&trained, "layers.0").unwrap();
    let a = Site { module: "layers.0".into(), matrix: LoraMatrix::A };
    let product = centre[&B()].dot(&centre[&a]);
    let start = core.column_basis.t().dot(&product).dot(&core.row_basis);
    // as seen by the product: what of BA − B₀A₀ a core can reach
    let (left, right) = (core.column_basis.dot(&core.column_basis.t()), core.row_basis.dot(&core.row_basis.t()));
    let within = left.dot(&(trained[&B()].dot(&trained[&a]) - &product)).dot(&right);

    let config = config(CurvatureStructure::Core).with_likelihood(Gaussian { noise_variance });
    let linear = Linear::new(&model, &data, &config, PriorMean::Initial);
    let scatter = linear.laplace.groups()[0].scatter;
    assert!((scatter / within.mapv(|v| v * v).sum() - 1.0).abs() < ALGEBRA, "{scatter}");

    // dense: residuals of all items and classes at R₀, whose covariance is σ²I + s²(XVVᵀXᵀ ⊗ UUᵀ)/λ
    let mut at_start = trained.clone();
    at_start.insert(a, core.row_basis.t().to_owned());
    at_start.insert(B(), core.column_basis.dot(&start));
    let logits = super::probed_logits(&write_adapter(base, &at_start).unwrap(), &data);
    let residual = Array2::from_shape_fn((n, c), |(i, k)| f64::from(u8::from(labels[i] == k)) - logits[[i, k]]);
    let residual: Array1<f64> = residual.into_iter().collect();
    let inner = features.dot(&right).dot(&features.t());
    for lambda in [0.1, 1.0, 30.0] {
        let covariance = Array2::from_shape_fn((n * c, n * c), |(i, j)| {
            let prior = scale * scale * inner[[i / c, j / c]] * left[[i % c, j % c]] / lambda;
            prior + if i == j { noise_variance } else { 0.0 }
        });
        let eigen = eigh(covariance.view()).unwrap();
        let rotated = eigen.vectors.t().dot(&residual);
        let terms = rotated.iter().zip(&eigen.values).map(|(v, e)| v * v / e + e.ln() + TAU.ln());
        let expected = -0.5 * terms.sum::<f64>();
        let found = linear.log_marginal(lambda);
        assert!((found / expected - 1.0).abs() < ALGEBRA, "λ = {lambda}: {found} against {expected}");
    }
}
