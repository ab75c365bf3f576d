//! The posterior is the Gaussian that the mathematics says: against finite differences, against linear regression in
//! closed form, and against dense matrices.

use super::dense::{
    ALGEBRA, KEPT, LIMITS, curvature_matrix, disturbed, fit, fixed, inverse_plus, jacobians, kron, log_det_ratio,
    network, noise, of_site, points, pushed,
};
use crate::support::{FIXTURES, Fixture, central_difference, f64_or_skip, logits, relative_error};
use bayes_lora::belief::{LogitGauge, softmax};
use bayes_lora::curvature::{Cotangents, CurvatureConfig, TokenTreatment, probe};
use bayes_lora::likelihood::{Gaussian, categorical_fisher};
use bayes_lora::linalg::eigh;
use bayes_lora::lora::{Adaptable, LoraConfig, attach, read_adapter, write_adapter};
use bayes_lora::models::{Classifier, Dataset, Points};
use bayes_lora::posterior::Laplace;
use bayes_lora::predict::predict_linearized;
use bayes_lora::prior::PriorPrecision;
use bayes_lora::progress::Control;
use bayes_lora::tape::{LoraMatrix, Site};
use burn::tensor::DType;
use ndarray::{Array2, Array3, s};
use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};
use std::f64::consts::TAU;

// ---- Jacobians ---------------------------------------------------------------------------------------------------

fn check_against_differences<M: Classifier, D: Dataset<Input = M::Input>>(name: &str, model: &M, data: &D) {
    let items: Vec<usize> = (0..data.n_items()).collect();
    let input = data.batch(&items, &model.device(), model.dtype()).unwrap();
    let pass = probe(model, &input, Cotangents::Classes).unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(8);
    for site in &pass.sites {
        let found = site.jacobians().unwrap();
        let scale = found.iter().fold(0.0f64, |m, v| m.max(v.abs()));
        assert!(scale > 0.0, "{name}: {} has no gradient", site.site);
        for _ in 0..3 {
            let at = [rng.random_range(0..found.dim().2), rng.random_range(0..found.dim().3)];
            let row = site.output_rows.as_ref().map_or(at[0], |rows| rows[at[0]]);
            let expected = central_difference(model, data, &site.site, [row, at[1]]);
            let found = found.slice(s![.., .., at[0], at[1]]);
            let error = (&found - &expected).iter().fold(0.0f64, |m, v| m.max(v.abs())) / scale;
            assert!(error < 1e-7, "{name}: {} {at:?}: {error:e}", site.site); // rounding and curvature: see support
        }
    }
}

#[test]
fn jacobians_equal_central_differences() {
    if !f64_or_skip("Jacobians") {
        return;
    }
    for name in FIXTURES {
        let fixture = Fixture::load(name);
        check_against_differences(name, &fixture.model(DType::F64), &fixture.test);
    }
    let fixture = Fixture::load(FIXTURES[0]);
    let targets = LoraConfig::new(2).with_target_modules(["lm_head", "down_proj"]);
    let model = disturbed(attach(fixture.bare(DType::F64), &targets, 3).unwrap());
    check_against_differences("head", &model, &fixture.test);
    check_against_differences("mlp", &disturbed(network(&[3, 6, 5, 4], 2, DType::F64)), &points(5, 3, 4));
}

#[test]
fn an_adapted_head_has_a_posterior_over_the_class_rows_alone() {
    if !f64_or_skip("head") {
        return;
    }
    let fixture = Fixture::load(FIXTURES[0]);
    let targets = LoraConfig::new(2).with_target_modules(["lm_head"]);
    let model = disturbed(attach(fixture.bare(DType::F64), &targets, 3).unwrap());
    let laplace = Laplace::new(&model, &fit(&model, &fixture.train, CurvatureConfig::default()), &fixed(1.0)).unwrap();
    let site = Site { module: "lm_head".into(), matrix: LoraMatrix::B };
    let classes = vec![5, 17, 40, 63];
    assert_eq!(laplace.blocks()[1].spaces()[0].output_rows.as_ref(), Some(&classes));
    let (map, draw) = (&laplace.map()[&site], &laplace.sample(0, 0)[&site]);
    for row in 0..96 {
        assert_eq!(map.row(row) != draw.row(row), classes.contains(&row), "row {row}");
    }
    // the logits do not see the other rows
    let slope = central_difference(&model, &fixture.test, &site, [6, 0]);
    assert!(slope.iter().all(|v| *v == 0.0));
}

// ---- closed forms ------------------------------------------------------------------------------------------------

/// `f(x) = W₀x + s·B·A·x` with Gaussian noise is linear in B: with `h = Ax` and prior `B ~ N(0, λ⁻¹)`,
/// `Cov f(x*) = s² h*ᵀ(λI + s²σ⁻² Σ hhᵀ)⁻¹h* · I` and `Y − F₀ ~ N(0, σ²I + s²λ⁻¹HHᵀ)` in every class.
#[test]
fn linear_regression_has_its_closed_form() {
    if !f64_or_skip("linear regression") {
        return;
    }
    let (n, d, c, rank, sigma2) = (12, 5, 3, 2, 0.3);
    let (data, test) = (points(n, d, c), Points::new(noise(9, 4, d), vec![]).unwrap());
    let fresh = network(&[d, c], rank, DType::F64);
    let scale = fresh.linears()[0].adapter.as_ref().unwrap().scale;
    assert_eq!(scale, 2.0);
    let likelihood = || Gaussian { noise_variance: sigma2 };
    let site = |matrix| Site { module: "layers.0".into(), matrix };
    let a = read_adapter(&fresh).unwrap()[&site(LoraMatrix::A)].clone();
    let hidden = |x: &Array2<f64>| x.dot(&a.t());
    let (h, h_test) = (hidden(&data.features), hidden(&test.features));
    let target = Array2::from_shape_fn((n, c), |(i, k)| f64::from(u8::from(data.labels[i] == k)));
    let rest = &target - &logits(&fresh, &data);
    for lambda in [0.3, 1.7, 40.0] {
        let gram = h.t().dot(&h) * (scale * scale / sigma2);
        let sigma = inverse_plus(&gram, lambda);
        let variance = h_test.dot(&sigma).dot(&h_test.t()).diag().mapv(|v| v * scale * scale);
        let expected = Array3::from_shape_fn((4, c, c), |(i, x, y)| if x == y { variance[i] } else { 0.0 });

        // at B = 0 nothing depends on A: Laplace is exact Bayesian regression
        let curvature = fit(&fresh, &data, CurvatureConfig::default().with_likelihood(likelihood()));
        let laplace = Laplace::new(&fresh, &curvature, &fixed(lambda)).unwrap();
        let belief = predict_linearized(&fresh, &laplace, &test, LogitGauge::Raw, &LIMITS, &Control::silent()).unwrap();
        assert!(relative_error(&belief.moments().1, &expected) < ALGEBRA);
        let log_det = c as f64 * log_det_ratio(&gram, lambda);
        assert!((laplace.log_det_ratio(laplace.prior_precisions()).unwrap() / log_det - 1.0).abs() < ALGEBRA);

        // at the mode of B given A both blocks are exact, and so is the evidence of B
        let mode = (&sigma.dot(&h.t()).dot(&rest) * (scale / sigma2)).t().to_owned();
        let mut weights = read_adapter(&fresh).unwrap();
        weights.insert(site(LoraMatrix::B), mode.clone());
        let model = write_adapter(fresh.clone(), &weights).unwrap();
        let curvature = fit(&model, &data, CurvatureConfig::default().with_likelihood(likelihood()));
        let laplace = Laplace::new(&model, &curvature, &fixed(lambda)).unwrap();
        let j = jacobians(&model, &test);
        let (of_b, log_det_b) = of_site(&laplace, 1, &j[1]);
        assert!(relative_error(&of_b, &expected) < ALGEBRA);
        assert!((log_det_b / log_det - 1.0).abs() < ALGEBRA);
        let block_a = kron(&mode.t().dot(&mode), &data.features.t().dot(&data.features)) * (scale * scale / sigma2);
        let (of_a, log_det_a) = of_site(&laplace, 0, &j[0]);
        assert!(relative_error(&of_a, &pushed(&j[0], &inverse_plus(&block_a, lambda))) < ALGEBRA);
        assert!((log_det_a / log_det_ratio(&block_a, lambda) - 1.0).abs() < ALGEBRA);

        let marginal = h.dot(&h.t()) * (scale * scale / lambda);
        let precision = inverse_plus(&marginal, sigma2);
        let log_det: f64 = eigh(marginal.view()).unwrap().values.iter().map(|e| (TAU * (e + sigma2)).ln()).sum();
        let fit = (0..c).map(|k| rest.column(k).dot(&precision).dot(&rest.column(k)) + log_det).sum::<f64>();
        let evidence = laplace.log_marginal_likelihood(laplace.prior_precisions()).unwrap() + 0.5 * log_det_a;
        println!("λ = {lambda}: evidence {evidence}, in closed form {}", -0.5 * fit);
        assert!((evidence / (-0.5 * fit) - 1.0).abs() < ALGEBRA);
    }
}

#[test]
fn of_one_example_every_block_is_exact() {
    if !f64_or_skip("one example") {
        return;
    }
    let model = disturbed(network(&[4, 5, 3], 2, DType::F64));
    let data = points(1, 4, 3);
    let j = jacobians(&model, &data);
    let p = softmax(logits(&model, &data).view());
    let fisher = categorical_fisher(p.row(0));
    for treatment in [TokenTreatment::Expand, TokenTreatment::Reduce, TokenTreatment::Last] {
        let curvature = fit(&model, &data, CurvatureConfig::default().with_treatment(treatment));
        for lambda in [0.1, 2.0] {
            let laplace = Laplace::new(&model, &curvature, &fixed(lambda)).unwrap();
            for (index, jacobian) in j.iter().enumerate() {
                let (_, k, rows, columns) = jacobian.dim();
                let flat = jacobian.to_shape((k, rows * columns)).unwrap();
                let block = flat.t().dot(&fisher).dot(&flat);
                let (covariance, log_det) = of_site(&laplace, index, jacobian);
                assert!(relative_error(&covariance, &pushed(jacobian, &inverse_plus(&block, lambda))) < ALGEBRA);
                assert!((log_det / log_det_ratio(&block, lambda) - 1.0).abs() < ALGEBRA);
            }
        }
    }
}

fn check_against_dense<M: Classifier, D: Dataset<Input = M::Input>>(
    name: &str,
    model: &M,
    (data, test): (&D, &D),
    config: CurvatureConfig,
    with_residual: bool,
) {
    let j = jacobians(model, test);
    let (n, classes) = (test.n_items(), model.n_classes());
    let curvature = fit(model, data, config);
    let config = |lambda| fixed(lambda).with_without_residual(!with_residual);
    let once = Laplace::new(model, &curvature, &config(1.0)).unwrap();
    for lambda in [0.01, 1.0, 30.0] {
        let fresh = Laplace::new(model, &curvature, &config(lambda)).unwrap();
        let changed = once.clone().with_prior_precisions(PriorPrecision::new(lambda).unwrap()).unwrap();
        let covariance = |laplace: &Laplace| {
            let sites = laplace.blocks().iter().map(|block| block.spaces()[0].site.clone());
            let projections = laplace.project_jacobians(&sites.zip(j.iter().cloned()).collect()).unwrap();
            laplace.covariance(&projections, laplace.prior_precisions()).unwrap()
        };
        assert_eq!(covariance(&fresh), covariance(&changed), "{name}: a changed prior is not a fresh one");
        assert_eq!(fresh.sample(1, 2), changed.sample(1, 2));
        let (mut expected, mut log_det) = (Array3::zeros((n, classes, classes)), 0.0);
        for (factors, j) in curvature.kronecker_factors().unwrap().iter().zip(&j) {
            let h = curvature_matrix(&curvature, factors, with_residual);
            expected += &pushed(j, &inverse_plus(&h, lambda));
            log_det += log_det_ratio(&h, lambda);
        }
        let errors = [
            relative_error(&covariance(&fresh), &expected),
            (fresh.log_det_ratio(fresh.prior_precisions()).unwrap() / log_det - 1.0).abs(),
        ];
        println!("{name} λ = {lambda}: {:.1e} {:.1e}", errors[0], errors[1]);
        assert!(errors.iter().all(|e| *e < ALGEBRA), "{name} λ = {lambda}: {errors:?}");
    }
}

#[test]
fn covariance_and_log_determinant_equal_those_of_dense_matrices_at_any_prior() {
    if !f64_or_skip("dense matrices") {
        return;
    }
    let model = disturbed(network(&[7, 6, 4], 3, DType::F64));
    let data = (&points(30, 7, 4), &points(5, 7, 4));
    for (dense_limit, low_rank, with_residual) in KEPT {
        let config = CurvatureConfig::default().with_dense_limit(dense_limit).with_low_rank(low_rank);
        let name = format!("{low_rank} kept of those above {dense_limit}, residual {with_residual}");
        check_against_dense(&name, &model, data, config, with_residual);
    }
    // items and tokens are not the same number here
    let fixture = Fixture::load(FIXTURES[0]);
    for treatment in [TokenTreatment::Expand, TokenTreatment::Reduce, TokenTreatment::Last] {
        let config = CurvatureConfig::default().with_treatment(treatment).with_dense_limit(16).with_low_rank(5);
        let data = (&fixture.train, &fixture.test);
        check_against_dense(&format!("{treatment:?}"), &fixture.model(DType::F64), data, config, true);
    }
}
