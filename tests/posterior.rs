//! The posterior is the Gaussian that the mathematics says: against finite differences, against linear regression in
//! closed form, against dense matrices, and draw by draw.

mod support;

use bayes_lora::belief::{LinkApprox, LogitGauge, softmax};
use bayes_lora::curvature::{
    Cotangents, Curvature, CurvatureConfig, FactorSum, KroneckerFactors, TokenTreatment, fit_curvature, probe,
};
use bayes_lora::data::BatchLimits;
use bayes_lora::likelihood::{Gaussian, categorical_fisher};
use bayes_lora::linalg::eigh;
use bayes_lora::lora::{Adaptable, AdapterWeights, LoraConfig, attach, read_adapter, write_adapter};
use bayes_lora::models::{Classifier, Dataset, Mlp, MlpConfig, Points};
use bayes_lora::posterior::{Laplace, LaplaceConfig, Spectrum};
use bayes_lora::predict::{Predictive, predict, predict_linearized};
use bayes_lora::prior::PriorPrecision;
use bayes_lora::progress::Control;
use bayes_lora::tape::{LoraMatrix, Site};
use burn::tensor::DType;
use ndarray::{Array1, Array2, Array3, Array4, s};
use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};
use std::f64::consts::TAU;
use support::{FIXTURES, Fixture, central_difference, device, f64_or_skip, logits, relative_error};

const LIMITS: BatchLimits = BatchLimits { max_items: 64, max_tokens: 10_000 };

/// Two algorithms for one f64 result: 4e-14 is seen, through eigendecompositions and the inverse of eigenvalues over λ.
const ALGEBRA: f64 = 1e-10;

// ---- material ---------------------------------------------------------------------------------------------------

/// Numbers in [−1, 1] that are the same on every run.
fn noise(seed: u64, rows: usize, columns: usize) -> Array2<f64> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    Array2::from_shape_fn((rows, columns), |_| rng.random_range(-1.0..1.0))
}

fn points(n: usize, d: usize, classes: usize) -> Points {
    Points::new(noise(1, n, d) * 2.0, (0..n).map(|i| (i * 7 + i / 3) % classes).collect()).unwrap()
}

/// The model with every adapter matrix moved away from its start.
fn disturbed<M: Adaptable>(model: M) -> M {
    let moved = read_adapter(&model).unwrap().into_iter().enumerate().map(|(k, (site, w))| {
        let (rows, columns) = w.dim();
        (site, w + noise(100 + k as u64, rows, columns) * 0.5)
    });
    let moved: AdapterWeights = moved.collect();
    write_adapter(model, &moved).unwrap()
}

fn network(widths: &[usize], rank: usize, dtype: DType) -> Mlp {
    let model = MlpConfig::new(widths).with_dtype(dtype).with_seed(4).init(&device()).unwrap();
    attach(model, &LoraConfig::new(rank), 2).unwrap()
}

fn fixed(lambda: f64) -> LaplaceConfig {
    LaplaceConfig::default().with_prior_precision(PriorPrecision::new(lambda).unwrap())
}

fn fit<M: Classifier, D: Dataset<Input = M::Input>>(model: &M, data: &D, config: CurvatureConfig) -> Curvature {
    fit_curvature(model, data, &config.with_limits(LIMITS), &Control::silent()).unwrap()
}

/// Jacobians `[n, C, d_out, d_in]` of all sites at all items.
fn jacobians<M: Classifier, D: Dataset<Input = M::Input>>(model: &M, data: &D) -> Vec<Array4<f64>> {
    let items: Vec<usize> = (0..data.n_items()).collect();
    let input = data.batch(&items, &model.device(), model.dtype()).unwrap();
    let pass = probe(model, &input, Cotangents::Classes).unwrap();
    pass.sites.iter().map(|site| site.jacobians().unwrap()).collect()
}

// ---- dense matrices, written from the formulas -------------------------------------------------------------------

fn kron(g: &Array2<f64>, a: &Array2<f64>) -> Array2<f64> {
    let (m, n) = (g.nrows(), a.nrows());
    Array2::from_shape_fn((m * n, m * n), |(i, j)| g[[i / n, j / n]] * a[[i % n, j % n]])
}

fn map_eigenvalues(matrix: &Array2<f64>, f: impl Fn(f64) -> f64) -> Array2<f64> {
    let eigen = eigh(matrix.view()).unwrap();
    (&eigen.vectors * &eigen.values.mapv(f)).dot(&eigen.vectors.t())
}

/// `(M + λI)⁻¹`
fn inverse_plus(matrix: &Array2<f64>, lambda: f64) -> Array2<f64> {
    map_eigenvalues(matrix, |e| 1.0 / (e + lambda))
}

/// `log det(M/λ + I)`
fn log_det_ratio(matrix: &Array2<f64>, lambda: f64) -> f64 {
    eigh(matrix.view()).unwrap().values.iter().map(|e| (e.max(0.0) / lambda).ln_1p()).sum()
}

/// The whole matrix of a sum; of a low-rank one with the discarded trace spread over the directions left out.
fn whole(sum: &FactorSum, with_residual: bool) -> Array2<f64> {
    match sum {
        FactorSum::Dense(matrix) => matrix.clone(),
        FactorSum::LowRank(sum) => {
            let kept = sum.factor.dot(&sum.factor.t());
            let missing = sum.factor.nrows() - sum.factor.ncols();
            let tau = if with_residual { sum.discarded_trace / missing as f64 } else { 0.0 };
            let outside = map_eigenvalues(&kept, |e| if e > 1e-9 { 0.0 } else { 1.0 });
            kept + outside * tau
        }
    }
}

/// `G ⊗ A` of one site for its weight row by row.
fn curvature_matrix(curvature: &Curvature, factors: &KroneckerFactors, with_residual: bool) -> Array2<f64> {
    let count = match curvature.config.treatment {
        TokenTreatment::Expand => factors.n_vectors,
        _ => curvature.n_data,
    };
    kron(&whole(&factors.gradient, with_residual), &(whole(&factors.activation, with_residual) / count as f64))
}

/// `J Σ Jᵀ` of every item.
fn pushed(jacobian: &Array4<f64>, sigma: &Array2<f64>) -> Array3<f64> {
    let (n, k, rows, columns) = jacobian.dim();
    let flat = jacobian.to_shape((n, k, rows * columns)).unwrap();
    let mut out = Array3::zeros((n, k, k));
    for (i, mut item) in out.outer_iter_mut().enumerate() {
        let j = flat.slice(s![i, .., ..]);
        item.assign(&j.dot(sigma).dot(&j.t()));
    }
    out
}

/// This site's own part of the library's covariance and log-determinant.
fn of_site(laplace: &Laplace, index: usize, jacobian: &Array4<f64>) -> (Array3<f64>, f64) {
    let (block, precision) = (&laplace.blocks()[index], laplace.prior_precisions().of(0));
    let (n, k, _, _) = jacobian.dim();
    let (mut covariance, mut spectrum) = (Array3::zeros((n, k, k)), Spectrum::default());
    let projection = block.project(|_| Ok(jacobian.view())).unwrap();
    block.add_covariance(&projection, precision, &mut covariance);
    block.extend(&mut spectrum);
    (covariance, spectrum.log_det_ratio(precision))
}

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

/// Dense, and cut to one or two directions with and without the residual: what to keep, and whether it may be kept.
const KEPT: [(usize, usize, bool); 4] = [(100, 10, true), (0, 1, true), (0, 2, true), (0, 2, false)];

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

// ---- draws -------------------------------------------------------------------------------------------------------

#[test]
fn draws_have_the_mean_and_the_covariance_of_the_posterior() {
    const DRAWS: usize = 4000;
    let dtype = DType::F32; // draws are made on the host
    let model = disturbed(network(&[7, 6, 4], 3, dtype));
    let data = points(30, 7, 4);
    for (dense_limit, low_rank, with_residual) in KEPT {
        let curvature =
            fit(&model, &data, CurvatureConfig::default().with_dense_limit(dense_limit).with_low_rank(low_rank));
        let config = fixed(0.2).with_without_residual(!with_residual);
        let laplace = Laplace::new(&model, &curvature, &config).unwrap();
        // linear functionals aᵀ(θ − θ*): one a site, one along its flattest direction, and the sum over all sites
        let mut functionals: Vec<(Site, Array2<f64>)> = Vec::new();
        let mut variances = Vec::new();
        for (k, factors) in curvature.kronecker_factors().unwrap().iter().enumerate() {
            let (rows, columns) = laplace.map()[&factors.site].dim();
            let sigma = inverse_plus(&curvature_matrix(&curvature, factors, with_residual), 0.2);
            let widest = eigh(sigma.view()).unwrap().vectors.column(rows * columns - 1).to_owned();
            let random = noise(50 + k as u64, rows, columns);
            for a in [random, widest.into_shape_with_order((rows, columns)).unwrap()] {
                let flat: Array1<f64> = a.iter().copied().collect();
                variances.push(flat.dot(&sigma).dot(&flat));
                functionals.push((factors.site.clone(), a));
            }
        }
        // sites are independent
        variances.push(variances.iter().step_by(2).sum());
        let mut sums = vec![(0.0, 0.0); variances.len()];
        for index in 0..DRAWS {
            let draw = laplace.sample(7, index as u64);
            let mut values: Vec<f64> =
                functionals.iter().map(|(site, a)| (a * &(&draw[site] - &laplace.map()[site])).sum()).collect();
            values.push(values.iter().step_by(2).sum());
            for (sum, v) in sums.iter_mut().zip(values) {
                *sum = (sum.0 + v, sum.1 + v * v);
            }
        }
        for (k, (&(sum, squares), variance)) in sums.iter().zip(variances).enumerate() {
            let (mean, found) = (sum / DRAWS as f64, squares / DRAWS as f64);
            // five standard errors of a mean, and of a variance (relative √(2/S))
            assert!(
                mean.abs() < 5.0 * (variance / DRAWS as f64).sqrt(),
                "{low_rank} kept, functional {k}: mean {mean}"
            );
            let error = (found / variance - 1.0).abs();
            assert!(
                error < 5.0 * (2.0 / DRAWS as f64).sqrt(),
                "{low_rank} kept, functional {k}: {found} for {variance}"
            );
        }
    }
}

#[test]
fn a_draw_is_a_function_of_seed_and_index_and_differs_in_every_matrix() {
    let model = disturbed(network(&[4, 5, 3], 2, DType::F32));
    let curvature = fit(&model, &points(10, 4, 3), CurvatureConfig::default());
    let laplace = Laplace::new(&model, &curvature, &fixed(1.0)).unwrap();
    let reference = laplace.sample(3, 5);
    laplace.sample(3, 6);
    assert_eq!(laplace.sample(3, 5), reference);
    for other in [laplace.sample(3, 6), laplace.sample(4, 5), laplace.sample(5, 3), laplace.map().clone()] {
        assert!(reference.iter().all(|(site, w)| other[site] != *w));
    }
    // under a strong prior a deviation is its standard normals alone: other ones at every site
    let strong = laplace.with_prior_precisions(PriorPrecision::new(1e12).unwrap()).unwrap();
    let first = |(site, w): (&Site, &Array2<f64>)| (w[[0, 0]] - strong.map()[site][[0, 0]]) * 1e6;
    let mut normals: Vec<f64> = strong.sample(3, 5).iter().map(first).collect();
    normals.sort_by(f64::total_cmp);
    assert!(normals.windows(2).all(|pair| pair[1] - pair[0] > 1e-3), "{normals:?}"); // 1e-9 is rounding
    assert_eq!(reference.len(), 4);
}

// ---- the prior ---------------------------------------------------------------------------------------------------

#[test]
fn no_neighbour_has_more_evidence_than_the_chosen_prior() {
    let fixture = Fixture::load(FIXTURES[1]);
    let model = fixture.model(DType::F32);
    let curvature = fit(&model, &fixture.train, CurvatureConfig::default());
    let laplace = Laplace::new(&model, &curvature, &LaplaceConfig::default()).unwrap();
    let best = laplace.prior_precisions().of(0);
    let evidence =
        |log: f64| laplace.log_marginal_likelihood(PriorPrecision::new(best.value() * log.exp()).unwrap()).unwrap();
    for step in [1e-3, 1e-2, 0.1, 1.0, 3.0] {
        for log in [step, -step] {
            assert!(evidence(log) < evidence(0.0), "log λ {log:+} has {} against {}", evidence(log), evidence(0.0));
        }
    }
    // stationary: λ‖θ* − μ‖² is the effective number of parameters
    let group = &laplace.groups()[0];
    let balance = best.value() * group.scatter / laplace.effective_dimension();
    assert!((balance - 1.0).abs() < 1e-9); // log λ is found to a relative 1e-12
    let n_parameters: f64 = group.spectrum.values.iter().map(|(_, n)| n).sum();
    assert_eq!(n_parameters, 1856.0);
}

#[test]
fn an_infinitely_strong_prior_gives_the_probabilities_of_the_trained_adapter() {
    let fixture = Fixture::load(FIXTURES[0]);
    let model = fixture.model(DType::F32);
    let curvature = fit(&model, &fixture.train, CurvatureConfig::default());
    let run = |lambda, how| {
        let laplace = Laplace::new(&model, &curvature, &fixed(lambda)).unwrap();
        predict(&model, &laplace, &fixture.test, how, &LIMITS, &Control::silent()).unwrap().probabilities
    };
    let map = run(1.0, Predictive::Map);
    let links = [LinkApprox::default(), LinkApprox::PairwiseProbit, LinkApprox::RawProbit];
    let ways = links.map(Predictive::Linearized).into_iter().chain([Predictive::Sampled { n_samples: 8, seed: 0 }]);
    for how in ways {
        let worst = |lambda| (run(lambda, how) - &map).iter().fold(0.0f64, |m, v| m.max(v.abs()));
        // logit deviations shrink as λ^(−½): to 1e-5 here, and f32 rounding of a forward pass is as large
        assert!(worst(1e12) < 1e-4, "{how:?}: {:e}", worst(1e12));
        assert!(worst(1.0) > 1e-2, "{how:?} at λ = 1 is as sure as the adapter");
    }
}
