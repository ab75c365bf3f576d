//! The linearised model of real networks: its Jacobians, its mode, its projection.

use super::{ALGEBRA, LIMITS, cases, config, fixed, half, jacobians};
use crate::support::points::blobs;
use crate::support::{device, f64_or_skip, relative_error};
use bayes_lora::belief::LogitBelief;
use bayes_lora::curvature::{CurvatureStructure, RandomProjection, fit_curvature};
use bayes_lora::data::BatchLimits;
use bayes_lora::likelihood::Categorical;
use bayes_lora::lora::{LoraConfig, attach};
use bayes_lora::models::{Classifier, Dataset, MlpConfig};
use bayes_lora::posterior::{
    JacobianRows, Laplace, LaplaceConfig, LinearizedConfig, LinearizedModel, log_likelihood_gradient,
};
use bayes_lora::prior::{PriorMean, PriorPrecision};
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
