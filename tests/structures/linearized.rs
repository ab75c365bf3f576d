//! The linearised model of real networks: its Jacobians, its mode, its projection.

use super::{ALGEBRA, LIMITS, cases, config, fixed, half, jacobians};
use crate::support::points::blobs;
use crate::support::{device, f64_or_skip, relative_error};
use bayes_lora::belief::LogitBelief;
use bayes_lora::curvature::{CurvatureStructure, RandomProjection, fit_curvature};
use bayes_lora::data::BatchLimits;
use bayes_lora::likelihood::Categorical;
use bayes_lora::lora::{LoraConfig, attach};
use bayes_lora::models::{Classifier, Dataset, MlpConfig, Subset};
use bayes_lora::posterior::{
    Beyond, JacobianRows, Laplace, LaplaceConfig, LinearizedConfig, LinearizedModel, estimate_linearized,
    estimate_posterior, log_likelihood_gradient,
};
use bayes_lora::prior::{PriorChoice, PriorMean, PriorPrecision};
use bayes_lora::progress::Control;
use bayes_lora::train::{Objective, Trainer, TrainerConfig};
use burn::tensor::DType;
use ndarray::{Array2, s};

fn laplace<M: Classifier, D: Dataset<Input = M::Input>>(
    model: &M,
    data: &D,
    structure: CurvatureStructure,
    config_of: LaplaceConfig,
) -> Laplace {
    let curvature = fit_curvature(model, data, &config(structure), &Control::silent()).unwrap();
    Laplace::new(model, &curvature, &config_of).unwrap()
}

#[test]
fn rows_are_the_networks_jacobians_whatever_the_batches_workers_and_structure() {
    for (fixture, model) in cases("Jacobian rows") {
        let dense = jacobians(&model, &fixture.train);
        let n = fixture.train.n_items();
        // of the differences to the first class, at λ = 4
        let mut expected = Array2::<f64>::zeros((3 * n, 3 * n));
        for site in dense.values() {
            let (_, _, d_out, d_in) = site.dim();
            let contrasts = site.slice(s![.., 1.., .., ..]).to_owned() - site.slice(s![.., ..1, .., ..]);
            let rows = contrasts.into_shape_with_order((3 * n, d_out * d_in)).unwrap();
            expected = expected + rows.dot(&rows.t()) / 4.0;
        }
        let control = Control::silent();
        let mut found: Vec<Array2<f64>> = Vec::new();
        for structure in [CurvatureStructure::Kronecker, CurvatureStructure::FunctionSpace] {
            let laplace = laplace(&model, &fixture.train, structure, fixed(4.0));
            for (max_items, workers) in [(1, 1), (7, 2), (100, 3)] {
                let limits = BatchLimits { max_items, ..LIMITS };
                let config = LinearizedConfig::default().with_limits(limits);
                let control = control.clone().with_workers(workers).unwrap();
                let rows = JacobianRows::of(&model, &laplace, &fixture.train, &config, &control).unwrap();
                let again = JacobianRows::of(&model, &laplace, &fixture.train, &config, &Control::silent()).unwrap();
                assert_eq!(rows.gram(), again.gram(), "{}: {workers} workers", fixture.name);
                assert!(relative_error(&rows.gram(), &expected) < ALGEBRA, "{}, {structure}", fixture.name);
                let others = rows.of_others((&model, &laplace), &fixture.train, &limits, &control).unwrap();
                assert!(relative_error(&rows.kernel(&others).unwrap(), &expected) < ALGEBRA);
                let matrix = rows.to_matrix();
                assert!(relative_error(&matrix.dot(&matrix.t()), &expected) < ALGEBRA);
                let error = rows.kernel(&again).unwrap_err().to_string();
                assert!(error.contains("different coordinates"), "{error}");
                found.push(rows.gram());
            }
        }
        // other batches sum in another order
        assert!(found.iter().all(|gram| relative_error(gram, &found[0]) < 1e-12));
    }
}

#[test]
fn a_converged_maximum_of_the_posterior_has_its_own_prior_precision_as_the_matched_one() {
    if !f64_or_skip("matched prior") {
        return;
    }
    let data = blobs(60, 3);
    let control = Control::silent();
    for lambda in [0.3, 2.0] {
        let base = MlpConfig::new([2, 6, 2]).with_seed(1).with_dtype(DType::F64).init(&device()).unwrap();
        let model = attach(base, &LoraConfig::new(2), 3).unwrap();
        let precision = PriorPrecision::new(lambda).unwrap();
        let objective = Objective::MaximumAPosteriori { precision, mean: PriorMean::Initial };
        let trainer = TrainerConfig::default()
            .with_epochs(1500)
            .with_learning_rate(0.02)
            .with_objective(objective)
            .with_limits(BatchLimits { max_items: 60, max_tokens: 1000 });
        let model = Trainer::new(trainer).unwrap().fit(model, &data, None, &control).unwrap().model;
        let laplace = laplace(&model, &data, CurvatureStructure::FunctionSpace, fixed(lambda));
        let gradient = log_likelihood_gradient(&model, &data, &Categorical, &LIMITS, &control).unwrap();
        let gain = laplace.stationarity(&gradient).unwrap().newton_gain;
        assert!(gain < 2e-2, "the run did not converge: {gain}");

        let linearized = LinearizedModel::of(&model, &laplace, &data, &LinearizedConfig::default(), &control).unwrap();
        let matched = linearized.matched_prior().unwrap().usable().unwrap();
        let found = matched.precisions.of(0).value();
        println!("λ {lambda}: matched {found}, a Newton step would add {gain:.1e} nats");
        assert!((found / lambda - 1.0).abs() < 0.05, "{found} for {lambda}");
        // the usual evidence is about this mode, too
        let mode = linearized.mode(1.0, None).unwrap();
        let usual = laplace.log_marginal_likelihood(precision).unwrap();
        let difference = mode.log_marginal_likelihood() - usual;
        assert!(difference.abs() < 10.0 * gain, "{difference}"); // of first order in the distance that is left
    }
}

#[test]
fn a_wider_projection_comes_closer_to_the_exact_answers_without_an_item() {
    for (fixture, model) in cases("projected leave-one-out").take(1) {
        let laplace = laplace(&model, &fixture.train, CurvatureStructure::FunctionSpace, fixed(1.0));
        let of = |config: &LinearizedConfig| {
            let control = Control::silent();
            let linearized = LinearizedModel::of(&model, &laplace, &fixture.train, config, &control).unwrap();
            let mode = linearized.mode(1.0, None).unwrap();
            let LogitBelief::Gaussian { mean, covariance, .. } =
                linearized.leave_one_out(&mode).unwrap().belief().clone()
            else {
                panic!("a Gaussian belief")
            };
            (linearized.projected(), mean - &linearized_outputs(&model, &laplace, &fixture.train), covariance)
        };
        let (none, exact, exact_covariance) = of(&LinearizedConfig::default());
        assert_eq!(none, None);
        let mean_error = |width: usize| {
            let mut errors = (0.0, 0.0);
            for seed in 0..8 {
                let projection = RandomProjection { width, seed };
                let config = LinearizedConfig::default().with_exact_rows(0).with_projection(projection);
                let (projected, shift, covariance) = of(&config);
                assert!(projected.unwrap().abs_diff(width) <= laplace.sites().len(), "{projected:?} for {width}");
                errors.0 += relative_error(&shift, &exact) / 8.0;
                errors.1 += relative_error(&covariance, &exact_covariance) / 8.0;
            }
            errors
        };
        let errors = [50, 200, 800].map(mean_error);
        println!("{}: relative errors of the shift and the covariance {errors:?}", fixture.name);
        // errors of inner products fall as 1/√width: by two at every step, less the spread over the seeds
        for pair in errors.windows(2) {
            assert!(pair[0].0 > 1.2 * pair[1].0 && pair[0].1 > 1.2 * pair[1].1, "{errors:?}");
        }
    }
}

fn linearized_outputs<M: Classifier, D: Dataset<Input = M::Input>>(
    model: &M,
    laplace: &Laplace,
    data: &D,
) -> Array2<f64> {
    JacobianRows::of(model, laplace, data, &LinearizedConfig::default(), &Control::silent()).unwrap().items.outputs
}

#[test]
fn what_belongs_to_other_items_or_labels_is_refused() {
    for (fixture, model) in cases("refusals of the linearised model").take(1) {
        let laplace = laplace(&model, &fixture.train, CurvatureStructure::Kronecker, fixed(1.0));
        let (config, control) = (LinearizedConfig::default(), Control::silent());
        let error = LinearizedModel::of(&model, &laplace, &fixture.test, &config, &control).unwrap_err().to_string();
        assert_eq!(error, "item `test-0` has no label");
        let whole = LinearizedModel::of(&model, &laplace, &fixture.train, &config, &control).unwrap();
        let part = LinearizedModel::of(&model, &laplace, &half(&fixture.train, 0), &config, &control).unwrap();
        let error = whole.leave_one_out(&part.mode(1.0, None).unwrap()).unwrap_err().to_string();
        assert!(error.contains(&format!("expected {}, found {}", whole.n_rows(), part.n_rows())), "{error}");
        let none = LinearizedConfig::default().with_projection(RandomProjection { width: 0, seed: 0 });
        let error = LinearizedModel::of(&model, &laplace, &fixture.train, &none, &control).unwrap_err().to_string();
        assert!(error.contains("projection width"), "{error}");
    }
}

#[test]
fn a_subset_is_drawn_by_keys_and_has_the_rows_of_its_items() {
    for (fixture, model) in cases("a subset of Jacobians").take(1) {
        let (train, control) = (&fixture.train, Control::silent());
        let laplace = laplace(&model, train, CurvatureStructure::Kronecker, fixed(1.0));
        let some = |n: usize, seed| {
            LinearizedConfig::default().with_limits(LIMITS).with_exact_rows(3 * n).with_beyond(Beyond::Subset { seed })
        };
        let of = |config: &LinearizedConfig| JacobianRows::of(&model, &laplace, train, config, &control).unwrap();
        let all = of(&some(train.n_items(), 0));
        assert_eq!(all.drawn(), None);
        let (few, more) = (of(&some(4, 0)), of(&some(9, 0)));
        let (few_items, more_items) = (few.drawn().unwrap(), more.drawn().unwrap());
        assert!(few_items.len() == 4 && more_items.len() == 9 && few_items.is_sorted());
        // the first of one order of the keys
        assert!(few_items.iter().all(|item| more_items.contains(item)), "{few_items:?} and {more_items:?}");
        assert_ne!(of(&some(9, 1)).drawn().unwrap(), more_items);
        let reversed = Subset::new(train, (0..train.n_items()).rev().collect()).unwrap();
        let again = JacobianRows::of(&model, &laplace, &reversed, &some(4, 0), &control).unwrap();
        let mut found: Vec<usize> = again.drawn().unwrap().iter().map(|item| train.n_items() - 1 - item).collect();
        found.sort_unstable();
        assert_eq!(found, few_items);

        let gram = all.gram();
        let places: Vec<usize> = few_items.iter().flat_map(|item| 3 * item..3 * item + 3).collect();
        let expected = gram.select(ndarray::Axis(0), &places).select(ndarray::Axis(1), &places);
        assert!(relative_error(&few.gram(), &expected) < 1e-12); // other batches sum in another order
        let linearized = LinearizedModel::of(&model, &laplace, train, &some(4, 0), &control).unwrap();
        assert_eq!((linearized.drawn(), linearized.n_items()), (Some(few_items), 4));
        let labels: Vec<usize> = linearized.targets().iter().map(|target| target.class().unwrap()).collect();
        assert_eq!(labels, few_items.iter().map(|&item| train.label(item).unwrap()).collect::<Vec<_>>());
    }
}

#[test]
fn what_the_linearised_model_takes_is_foretold() {
    for (fixture, model) in cases("the cost of the linearised model") {
        let (train, control) = (&fixture.train, Control::silent());
        let n = train.n_items();
        let whole = LinearizedConfig::default().with_limits(LIMITS);
        let projected = whole.with_exact_rows(0).with_projection(RandomProjection { width: 30, seed: 0 });
        let subset = whole.with_exact_rows(12).with_beyond(Beyond::Subset { seed: 0 });
        for structure in [CurvatureStructure::Kronecker, CurvatureStructure::Core] {
            let laplace = laplace(&model, train, structure, fixed(1.0));
            for (at, n_items) in [(whole, n), (projected, n), (subset, 4)] {
                let cost = estimate_linearized(&model, train, &config(structure), &at).unwrap();
                println!("{cost}");
                let rows = JacobianRows::of(&model, &laplace, train, &at, &control).unwrap();
                assert_eq!((cost.n_rows as usize, cost.width as usize), (rows.n_rows(), rows.width()));
                assert_eq!((cost.row_bytes as usize, cost.n_items as usize), (rows.bytes(), n_items));
                assert_eq!(cost.projection.is_some(), rows.is_projected());
                assert_eq!(cost.kernel_bytes as usize, 8 * rows.n_rows() * rows.n_rows().min(rows.width()));
                // one repetition a difference of outputs
                assert_eq!(cost.network_rows as usize, 3 * n_items);
                assert!(cost.peak_bytes >= cost.row_bytes + cost.kernel_bytes && cost.multiplications > 0.0);
            }
        }
        let of = |structure, laplace: &LaplaceConfig| {
            estimate_posterior(&model, train, (&config(structure), laplace), LIMITS).unwrap()
        };
        let without_labels = LaplaceConfig::without_labels();
        let default = of(CurvatureStructure::Kronecker, &without_labels);
        assert_eq!(default.network_rows(), default.curvature.network_rows + 3 * n as u64);
        assert!(default.peak_bytes() > default.curvature.bytes && default.to_string().contains("linearised model"));
        // by evidence there is no second pass, nor over cores, where it falls back to that
        let evidence = of(CurvatureStructure::Kronecker, &LaplaceConfig::default());
        assert_eq!((evidence.linearized.clone(), evidence.network_rows()), (None, evidence.curvature.network_rows));
        assert_eq!(of(CurvatureStructure::Core, &without_labels).linearized, None);
    }
}

#[test]
fn a_posterior_says_on_how_many_items_its_prior_was_found() {
    for (fixture, model) in cases("a prior by some of the items").take(1) {
        let (train, control) = (&fixture.train, Control::silent());
        let curvature = fit_curvature(&model, train, &config(CurvatureStructure::Kronecker), &control).unwrap();
        let fit = |exact_rows| {
            let config = LaplaceConfig::default().with_prior(PriorChoice::Matched);
            let some = config.linearized.with_exact_rows(exact_rows);
            Laplace::fit(&model, &curvature, train, &config.with_linearized(some), &LIMITS, &control).unwrap()
        };
        assert_eq!(fit(3000).prior_searches()[0].meaning, "");
        let laplace = fit(24);
        let search = &laplace.prior_searches()[0];
        assert!(search.remark().unwrap().ends_with("found on 8 of 12 training items, drawn by their keys"), "{search}");
        let some = LaplaceConfig::default().linearized.with_limits(LIMITS).with_exact_rows(24);
        let reference = laplace.clone().with_prior_precisions(PriorPrecision::new(1.0).unwrap()).unwrap();
        let linearized = LinearizedModel::of(&model, &reference, train, &some, &control).unwrap();
        let matched = linearized.matched_prior().unwrap().usable().unwrap();
        assert_eq!(&matched.precisions, laplace.prior_precisions());
    }
}
