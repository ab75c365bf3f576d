//! The evidence at the mode of the quadratic model around the adapter.

use super::{ALGEBRA, LIMITS, cases, config, fit, fixed};
use crate::support::{device, f64_or_skip};
use bayes_lora::curvature::{AdapterSubset, CoreSpace, CurvatureStructure, fit_curvature};
use bayes_lora::likelihood::{Categorical, Gaussian};
use bayes_lora::linalg::eigh;
use bayes_lora::lora::{Adaptable, AdapterWeights, LoraConfig, attach, read_adapter, start_at, write_adapter};
use bayes_lora::models::{Mlp, MlpConfig, Points};
use bayes_lora::posterior::{Laplace, log_likelihood_gradient};
use bayes_lora::prior::{PriorMean, PriorPrecision};
use bayes_lora::progress::Control;
use bayes_lora::tape::{LoraMatrix, Site};
use burn::tensor::DType;
use ndarray::{Array1, Array2};
use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};
use std::f64::consts::TAU;

/// `f(x) = W₀x + s·B·A·x` with only B uncertain is linear in what is uncertain: the quadratic model is the model.
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

    /// The library's posterior over B, expanded around `b`, with the gradient there.
    fn posterior(&self, b: Array2<f64>) -> Laplace {
        let mut weights = read_adapter(&self.base).unwrap();
        weights.insert(B(), b);
        let model = write_adapter(self.base.clone(), &weights).unwrap();
        let likelihood = Gaussian { noise_variance: self.noise_variance };
        let gradient = log_likelihood_gradient(&model, &self.data, &likelihood, &LIMITS, &Control::silent()).unwrap();
        let curvature = config(CurvatureStructure::Full).with_subset(AdapterSubset::OnlyB).with_likelihood(likelihood);
        let curvature = fit_curvature(&model, &self.data, &curvature, &Control::silent()).unwrap();
        let zero = fixed(1.0).with_prior_mean(PriorMean::Zero);
        Laplace::new(&model, &curvature, &zero).unwrap().with_gradient(&gradient).unwrap()
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
        let laplace = regression.posterior(b);
        for lambda in [0.1, 1.0, 30.0] {
            let found = laplace.log_marginal_likelihood(PriorPrecision::new(lambda).unwrap()).unwrap();
            let expected = regression.log_marginal(lambda);
            assert!((found / expected - 1.0).abs() < ALGEBRA, "λ = {lambda}: {found} against {expected}");
        }
        let best = laplace.clone().with_optimal_prior().unwrap().prior_precisions().of(0).value();
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

    let likelihood = Gaussian { noise_variance };
    let config = config(CurvatureStructure::Core).with_likelihood(likelihood);
    let curvature = fit_curvature(&model, &data, &config, &Control::silent()).unwrap();
    let gradient = log_likelihood_gradient(&model, &data, &likelihood, &LIMITS, &Control::silent()).unwrap();
    let initial = fixed(1.0).with_prior_mean(PriorMean::Initial);
    let laplace = Laplace::new(&model, &curvature, &initial).unwrap();
    let scatter = laplace.groups()[0].scatter;
    assert!((scatter / within.mapv(|v| v * v).sum() - 1.0).abs() < ALGEBRA, "{scatter}");

    // dense: residuals of all items and classes at R₀, whose covariance is σ²I + s²(XVVᵀXᵀ ⊗ UUᵀ)/λ
    let mut at_start = trained.clone();
    at_start.insert(a, core.row_basis.t().to_owned());
    at_start.insert(B(), core.column_basis.dot(&start));
    let logits = super::probed_logits(&write_adapter(base, &at_start).unwrap(), &data);
    let residual = Array2::from_shape_fn((n, c), |(i, k)| f64::from(u8::from(labels[i] == k)) - logits[[i, k]]);
    let residual: Array1<f64> = residual.into_iter().collect();
    let inner = features.dot(&right).dot(&features.t());
    let laplace = laplace.with_gradient(&gradient).unwrap();
    for lambda in [0.1, 1.0, 30.0] {
        let covariance = Array2::from_shape_fn((n * c, n * c), |(i, j)| {
            let prior = scale * scale * inner[[i / c, j / c]] * left[[i % c, j % c]] / lambda;
            prior + if i == j { noise_variance } else { 0.0 }
        });
        let eigen = eigh(covariance.view()).unwrap();
        let rotated = eigen.vectors.t().dot(&residual);
        let terms = rotated.iter().zip(&eigen.values).map(|(v, e)| v * v / e + e.ln() + TAU.ln());
        let expected = -0.5 * terms.sum::<f64>();
        let found = laplace.log_marginal_likelihood(PriorPrecision::new(lambda).unwrap()).unwrap();
        assert!((found / expected - 1.0).abs() < ALGEBRA, "λ = {lambda}: {found} against {expected}");
    }
}

#[test]
fn an_approximate_curvature_or_a_lacking_site_is_refused() {
    for (fixture, model) in cases("refused gradients").take(1) {
        let gradient =
            log_likelihood_gradient(&model, &fixture.train, &Categorical, &LIMITS, &Control::silent()).unwrap();
        let of = |structure| Laplace::new(&model, &fit(&model, &fixture.train, structure), &fixed(1.0)).unwrap();
        let error = of(CurvatureStructure::Kronecker).with_gradient(&gradient).unwrap_err().to_string();
        assert!(error.contains("exact curvature") && error.contains("Kronecker"), "{error}");
        let mut lacking = gradient.clone();
        let (site, _) = lacking.pop_first().unwrap();
        let error = of(CurvatureStructure::FunctionSpace).with_gradient(&lacking).unwrap_err().to_string();
        assert!(error.contains(&site.to_string()), "{error}");
        let mut wrong = gradient;
        wrong.insert(site.clone(), Array2::zeros((1, 1)));
        let error = of(CurvatureStructure::FunctionSpace).with_gradient(&wrong).unwrap_err().to_string();
        assert!(error.contains(&site.to_string()) && error.contains("[1, 1]"), "{error}");
    }
}

#[test]
fn a_newton_step_gains_what_stationarity_foretells() {
    for (fixture, model) in cases("stationarity") {
        let gradient =
            log_likelihood_gradient(&model, &fixture.train, &Categorical, &LIMITS, &Control::silent()).unwrap();
        for structure in [CurvatureStructure::FunctionSpace, CurvatureStructure::Core] {
            // a strong prior leaves a step so small that the quadratic model holds
            let lambda = 1e5;
            let config = fixed(lambda).with_prior_mean(PriorMean::Zero);
            let laplace = Laplace::new(&model, &fit(&model, &fixture.train, structure), &config).unwrap();
            let found = laplace.stationarity(&gradient).unwrap();
            // with λ far above the curvature: gain = ½‖∇ log joint‖²/λ
            let expected = 0.5 * found.joint_gradient.powi(2) / lambda;
            assert!((found.newton_gain / expected - 1.0).abs() < 0.01, "{} {structure}: {found:?}", fixture.name);
            // and the gradient of the joint is −λ(θ − μ) but for the likelihood's
            let prior = lambda * laplace.groups()[0].scatter.sqrt();
            assert!((found.joint_gradient / prior - 1.0).abs() < 0.01, "{} {structure}: {found:?}", fixture.name);
        }
        let norm = |gradient: &Array2<f64>| gradient.iter().map(|v| v * v).sum::<f64>();
        let expected = fixture.expected("mean_nll_gradient").iter().map(|v| v * v).sum::<f64>().sqrt();
        let found = gradient.values().map(norm).sum::<f64>().sqrt() / fixture.train.len() as f64;
        assert!((found / expected - 1.0).abs() < 1e-5); // see tests/parity.rs
    }
}
