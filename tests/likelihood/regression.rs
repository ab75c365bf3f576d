//! Linear regression through the whole path, against Bayes's rule in closed form.

use super::{LIMITS, Regression, noise};
use crate::support::{device, f64_or_skip, logits, relative_error};
use bayes_lora::bayes_lora::BayesLoraConfig;
use bayes_lora::checkpoints::Checkpoints;
use bayes_lora::curvature::{AdapterSubset, CurvatureConfig, CurvatureStructure, FisherKind, fit_curvature};
use bayes_lora::error::Result;
use bayes_lora::identity::Identity;
use bayes_lora::likelihood::{Categorical, Gaussian, Likelihood, Target};
use bayes_lora::linalg::eigh;
use bayes_lora::lora::{Adaptable, LoraConfig, attach, read_adapter};
use bayes_lora::models::{Dataset, Mlp, MlpConfig};
use bayes_lora::posterior::{HeldOut, Laplace, LaplaceConfig};
use bayes_lora::predict::{Predictive, predict_targets};
use bayes_lora::prior::{PriorMean, PriorPrecision};
use bayes_lora::progress::Control;
use bayes_lora::tape::{LoraMatrix, Site};
use bayes_lora::train::{
    Decay, Objective, StepPosition, TrainOutcome, Trainer, TrainerConfig, TrainingMode, UpdateRule,
};
use burn::optim::{GradientsParams, ModuleOptimizer, SgdConfig};
use burn::tensor::DType;
use ndarray::{Array1, Array2, Array3};
use std::f64::consts::TAU;
use std::time::Duration;

/// What gradient descent leaves of the mode, and two algorithms for one f64 result.
const CLOSED: f64 = 1e-9;

const EPOCHS: usize = 800;

/// Plain gradient descent, which has no state.
struct Descent(ModuleOptimizer);

impl UpdateRule<Mlp> for Descent {
    fn identity(&self) -> Result<Identity> {
        Ok(Identity::new().with("rule", "gradient descent"))
    }

    fn point(&mut self, model: &Mlp, _position: StepPosition) -> Result<Mlp> {
        Ok(model.clone())
    }

    fn update(&mut self, model: Mlp, gradients: GradientsParams, position: StepPosition) -> Result<Mlp> {
        Ok(self.0.step(position.learning_rate, model, gradients))
    }

    fn state(&self) -> Result<Vec<u8>> {
        Ok(Vec::new())
    }

    fn restore(&mut self, _state: Vec<u8>) -> Result<()> {
        Ok(())
    }
}

/// `f(x) = W₀x + b + s·B·A·x` with only B uncertain: linear in what is uncertain.
struct Linear {
    start: Mlp,
    data: Regression,
    likelihood: Gaussian,
    lambda: f64,
    /// `h = s·A·x`, `[n, rank]`
    hidden: Array2<f64>,
    /// Targets minus the outputs at B = 0, `[n, outputs]`
    rest: Array2<f64>,
    /// `λI + HᵀH/σ²`
    precision: Array2<f64>,
}

const B: fn() -> Site = || Site { module: "layers.0".into(), matrix: LoraMatrix::B };

impl Linear {
    fn new() -> Self {
        let (n, d, c, lambda) = (30, 5, 3, 1.7);
        let likelihood = Gaussian { noise_variance: 0.2 };
        let start = MlpConfig::new([d, c]).with_dtype(DType::F64).with_seed(3).init(&device()).unwrap();
        let start = attach(start, &LoraConfig::new(3), 5).unwrap();
        let data = Regression::new(noise(1, n, d), noise(2, n, c) * 2.0);
        let hidden = Self::hidden(&start, &data);
        let rest = &data.values - &logits(&start, &data);
        let precision = Array2::<f64>::eye(3) * lambda + hidden.t().dot(&hidden) / likelihood.noise_variance;
        Self { start, data, likelihood, lambda, hidden, rest, precision }
    }

    fn hidden(model: &Mlp, data: &Regression) -> Array2<f64> {
        let a = read_adapter(model).unwrap()[&Site { module: "layers.0".into(), matrix: LoraMatrix::A }].clone();
        data.points.features.dot(&a.t()) * model.linears()[0].adapter.as_ref().unwrap().scale
    }

    /// The mode of B, `[outputs, rank]`.
    fn mode(&self) -> Array2<f64> {
        (inverse(&self.precision).dot(&self.hidden.t()).dot(&self.rest) / self.likelihood.noise_variance).t().to_owned()
    }

    /// `Σ_c ln N(r_c; 0, σ²I + HHᵀ/λ)`
    fn log_evidence(&self) -> f64 {
        let n = self.hidden.nrows();
        let covariance =
            Array2::<f64>::eye(n) * self.likelihood.noise_variance + self.hidden.dot(&self.hidden.t()) / self.lambda;
        let eigen = eigh(covariance.view()).unwrap();
        let log_det: f64 = eigen.values.iter().map(|e| (TAU * e).ln()).sum();
        let column = |r: ndarray::ArrayView1<f64>| {
            let rotated: Array1<f64> = eigen.vectors.t().dot(&r);
            -0.5 * (rotated.iter().zip(&eigen.values).map(|(v, e)| v * v / e).sum::<f64>() + log_det)
        };
        self.rest.columns().into_iter().map(column).sum()
    }

    /// Variance of an output at other points, the same for every output: `h P⁻¹ h`.
    fn variance(&self, hidden: &Array2<f64>, precision: &Array2<f64>) -> Array1<f64> {
        hidden.dot(&inverse(precision)).dot(&hidden.t()).diag().to_owned()
    }

    fn objective(&self) -> Objective {
        let precision = PriorPrecision::new(self.lambda).unwrap();
        Objective::MaximumAPosteriori { precision, mean: PriorMean::Initial }
    }

    /// Full batches at the rate that is best between the least and the largest curvature of the mean loss.
    fn train(&self, control: &Control) -> Result<TrainOutcome<Mlp>> {
        let n = self.data.n_items() as f64;
        let curvatures = eigh(self.precision.view()).unwrap().values;
        let (least, most) = curvatures.iter().fold((f64::INFINITY, 0.0f64), |(l, m), e| (l.min(*e), m.max(*e)));
        let config = TrainerConfig::default()
            .with_likelihood(self.likelihood)
            .with_objective(self.objective())
            .with_mode(TrainingMode::Partial(vec![r"\.lora_B$".into()]))
            .with_epochs(EPOCHS)
            .with_learning_rate(2.0 * n / (least + most))
            .with_warmup_fraction(0.0)
            .with_decay(Decay::Constant)
            .with_max_grad_norm(None)
            .with_limits(LIMITS);
        let mut rule = Descent(SgdConfig::new().init());
        let trainer = Trainer::new(config).unwrap();
        trainer.fit_by(&mut rule, self.start.clone(), &self.data, Some(&self.data), control)
    }

    fn curvature(&self, structure: CurvatureStructure) -> CurvatureConfig {
        CurvatureConfig::new(structure)
            .with_likelihood(self.likelihood)
            .with_subset(AdapterSubset::OnlyB)
            .with_limits(LIMITS)
    }

    fn laplace(&self, model: &Mlp, structure: CurvatureStructure) -> Laplace {
        let curvature = fit_curvature(model, &self.data, &self.curvature(structure), &Control::silent()).unwrap();
        let fixed = LaplaceConfig::default()
            .with_prior_mean(PriorMean::Initial)
            .with_prior_precision(PriorPrecision::new(self.lambda).unwrap());
        Laplace::new(model, &curvature, &fixed).unwrap()
    }
}

fn inverse(matrix: &Array2<f64>) -> Array2<f64> {
    let eigen = eigh(matrix.view()).unwrap();
    (&eigen.vectors * &eigen.values.mapv(f64::recip)).dot(&eigen.vectors.t())
}

#[test]
fn linear_regression_is_exact_from_training_to_the_predictive_distribution() {
    if !f64_or_skip("linear regression from training on") {
        return;
    }
    let linear = Linear::new();
    let outcome = linear.train(&Control::silent()).unwrap();
    let model = outcome.model;
    assert!(relative_error(&read_adapter(&model).unwrap()[&B()], &linear.mode()) < CLOSED);
    // validation is in nats of the density, and knows no accuracy where there are no classes
    let (last, n) = (outcome.report.epochs.last().unwrap(), linear.data.n_items());
    let sum: f64 = (0..n)
        .map(|i| linear.likelihood.log_density(logits(&model, &linear.data).row(i), &linear.data.target(i).unwrap()))
        .sum();
    assert!((last.validation_nll.unwrap() / (-sum / n as f64) - 1.0).abs() < CLOSED);
    assert_eq!(last.validation_accuracy, None);

    let test = Regression::new(noise(7, 6, 5), noise(8, 6, 3));
    let hidden = Linear::hidden(&model, &test);
    let variance = linear.variance(&hidden, &linear.precision);
    let mean = logits(&linear.start, &test) + hidden.dot(&linear.mode().t());
    let covariance =
        |noise: f64| Array3::from_shape_fn((6, 3, 3), |(i, a, b)| if a == b { variance[i] + noise } else { 0.0 });
    for structure in [CurvatureStructure::Full, CurvatureStructure::FunctionSpace, CurvatureStructure::Kronecker] {
        let laplace = linear.laplace(&model, structure);
        let evidence = laplace.log_marginal_likelihood(laplace.prior_precisions()).unwrap();
        let expected = linear.log_evidence();
        assert!((evidence / expected - 1.0).abs() < CLOSED, "{structure}: {evidence} against {expected}");
        let answer =
            predict_targets(&model, &laplace, &test, Predictive::default(), &LIMITS, &Control::silent()).unwrap();
        assert!(relative_error(&answer.belief.moments().1, &covariance(0.0)) < CLOSED, "{structure}");
        assert!(relative_error(&answer.moments.mean, &mean) < CLOSED, "{structure}");
        let noise = linear.likelihood.noise_variance;
        assert!(relative_error(&answer.moments.covariance, &covariance(noise)) < CLOSED, "{structure}");

        // held-out items under any prior precision: ln N(y; m, Σ(λ) + σ²I)
        let held_out = HeldOut::new(&model, &laplace, &test, &LIMITS, &Control::silent()).unwrap();
        assert!(held_out.labels().unwrap_err().to_string().contains("values"));
        for lambda in [0.1, 1.7, 50.0] {
            let precision = &linear.precision + &(Array2::<f64>::eye(3) * (lambda - linear.lambda));
            let variance = linear.variance(&hidden, &precision);
            let one = |(i, c): (usize, usize)| {
                let (v, r) = (variance[i] + noise, test.values[[i, c]] - mean[[i, c]]);
                0.5 * (r * r / v + (TAU * v).ln())
            };
            let expected = mean.indexed_iter().map(|(at, _)| one(at)).sum::<f64>() / 6.0;
            let found = held_out.mean_nll(&PriorPrecision::new(lambda).unwrap().into(), Default::default()).unwrap();
            // directions of nearly the same curvature share a level of width 2 %
            assert!((found / expected - 1.0).abs() < 1e-4, "{structure} λ = {lambda}: {found} against {expected}");
        }
    }
}

#[test]
fn sampled_and_empirical_fisher_are_of_real_targets() {
    if !f64_or_skip("sampled Fisher of real targets") {
        return;
    }
    let linear = Linear::new();
    let weights = [(B(), linear.mode())].into_iter().chain(read_adapter(&linear.start).unwrap().into_iter().take(1));
    let model = bayes_lora::lora::write_adapter(linear.start.clone(), &weights.collect()).unwrap();
    let log_det = |fisher| {
        let config = linear.curvature(CurvatureStructure::Full).with_fisher(fisher);
        let curvature = fit_curvature(&model, &linear.data, &config, &Control::silent()).unwrap();
        let one = PriorPrecision::new(1.0).unwrap();
        let fixed = LaplaceConfig::default().with_prior_precision(one);
        Laplace::new(&model, &curvature, &fixed).unwrap().log_det_ratio(one).unwrap()
    };
    let exact = log_det(FisherKind::Exact);
    let sampled = log_det(FisherKind::Sampled { n: 2000, seed: 3 });
    // 30 items of 2,000 draws: entries are off by a hundredth, nine eigenvalues of some tens by less
    assert!((sampled - exact).abs() < 0.1, "{sampled} against {exact}");
    // residuals of the fit in place of the noise: another matrix, whose scores are (y − f)/σ²
    let f = logits(&model, &linear.data);
    let mut sum = Array2::<f64>::zeros((9, 9));
    for i in 0..linear.data.n_items() {
        let score = (&linear.data.values.row(i) - &f.row(i)) / linear.likelihood.noise_variance;
        let row = Array1::from_shape_fn(9, |k| score[k / 3] * linear.hidden[[i, k % 3]]);
        let row = row.insert_axis(ndarray::Axis(1));
        sum = sum + row.dot(&row.t());
    }
    let expected: f64 = eigh(sum.view()).unwrap().values.iter().map(|e| e.max(0.0).ln_1p()).sum();
    let empirical = log_det(FisherKind::Empirical);
    assert!((empirical / expected - 1.0).abs() < CLOSED, "{empirical} against {expected}");
    assert!((empirical - exact).abs() > 0.1);
}

#[test]
fn a_run_on_real_targets_is_taken_up_from_its_checkpoint() {
    if !f64_or_skip("checkpoints of a regression") {
        return;
    }
    let (linear, dir) = (Linear::new(), tempfile::tempdir().unwrap());
    let control = || {
        Control::silent().with_checkpoints(Checkpoints::new(dir.path()).with_every(Duration::from_secs(3600))).unwrap()
    };
    let first = linear.train(&control()).unwrap();
    let again = linear.train(&control()).unwrap();
    assert_eq!(again.report.resumed_after, Some(EPOCHS));
    assert_eq!(again.report.epochs, first.report.epochs);
    assert_eq!(read_adapter(&again.model).unwrap(), read_adapter(&first.model).unwrap());
    // another likelihood is another run
    let other = Linear { likelihood: Gaussian { noise_variance: 0.3 }, ..Linear::new() };
    let error = other.train(&control()).unwrap_err().to_string();
    assert!(
        error.contains("is of another run: likelihood.settings.noise_variance is 2e-1 there and 3e-1 here"),
        "{error}"
    );
}

#[test]
fn three_calls_fit_a_regression_and_refuse_two_likelihoods() {
    if !f64_or_skip("three calls on a regression") {
        return;
    }
    let (data, likelihood) = (Linear::new().data, Gaussian { noise_variance: 0.2 });
    let model = MlpConfig::new([5, 6, 3]).with_dtype(DType::F64).init(&device()).unwrap();
    let trainer = TrainerConfig::default().with_epochs(20).with_learning_rate(0.01).with_limits(LIMITS);
    let config = BayesLoraConfig::new(LoraConfig::new(2)).with_trainer(trainer.clone()).with_likelihood(likelihood);
    let fitted = config.clone().init().unwrap().fit(model.clone(), &data).unwrap();
    let answer = fitted.predict_targets(&data).unwrap();
    let (_, of_outputs) = answer.belief.moments();
    for ((i, a, b), value) in answer.moments.covariance.indexed_iter() {
        let noise = if a == b { 0.2 } else { 0.0 };
        assert!((value - of_outputs[[i, a, b]] - noise).abs() < 1e-12); // rounding of one sum
        assert!(a != b || of_outputs[[i, a, a]] > 0.0);
    }
    let error = fitted.predict_calibrated(&data).unwrap_err().to_string();
    assert!(error.contains("gaussian") && error.contains("predict_targets"), "{error}");
    // the training of one likelihood, the curvature of another
    let config = config.with_trainer(trainer.with_likelihood(Categorical));
    let error = config.init().unwrap().fit(model, &data).unwrap_err().to_string();
    assert!(error.contains("`categorical` trains") && error.contains("`gaussian, noise_variance 0.2`"), "{error}");
}

#[test]
fn targets_that_do_not_fit_the_outputs_are_refused_with_the_item() {
    if !f64_or_skip("targets that do not fit") {
        return;
    }
    let linear = Linear::new();
    let narrow = Regression { values: noise(2, 30, 2), ..linear.data.clone() };
    let config = TrainerConfig::default().with_likelihood(linear.likelihood);
    let fit = |data: &Regression, config: &TrainerConfig| {
        let trainer = Trainer::new(config.clone()).unwrap();
        trainer.fit(linear.start.clone(), data, None, &Control::silent()).unwrap_err().to_string()
    };
    assert_eq!(fit(&narrow, &config), "target values of item `point 0`: expected 3, found 2");
    let error = fit(&linear.data, &TrainerConfig::default());
    assert_eq!(error, "a categorical likelihood needs a class as target; item `point 0` has 3 values");
    let bad = TrainerConfig::default().with_likelihood(Gaussian { noise_variance: 0.0 });
    assert!(Trainer::new(bad).unwrap_err().to_string().contains("noise_variance: must be positive and finite, got 0"));
    assert_eq!(Target::from(2).class(), Some(2));
}
