//! Function space under a random projection.

use super::{ALGEBRA, cases, config, covariance, fixed, half, jacobians};
use crate::support::relative_error;
use bayes_lora::curvature::{CurvatureConfig, CurvatureStructure, RandomProjection, estimate_cost, fit_curvature};
use bayes_lora::posterior::Laplace;
use bayes_lora::progress::Control;

/// As many projections as the mean error is taken over.
const SEEDS: u64 = 16;

fn sketched(width: usize, seed: u64) -> CurvatureConfig {
    config(CurvatureStructure::FunctionSpace).with_projection(RandomProjection { width, seed })
}

#[test]
fn a_wider_projection_comes_closer_to_the_exact_covariance() {
    for (fixture, model) in cases("sketch") {
        let jacobians = jacobians(&model, &fixture.test);
        let of = |config: &CurvatureConfig| {
            let curvature = fit_curvature(&model, &fixture.train, config, &Control::silent()).unwrap();
            let laplace = Laplace::new(&model, &curvature, &fixed(1.0)).unwrap();
            (covariance(&laplace, &jacobians, 1.0), curvature.bytes() as u64)
        };
        let (exact, _) = of(&config(CurvatureStructure::FunctionSpace));
        let mean_error = |width: usize| {
            let errors = (0..SEEDS).map(|seed| relative_error(&of(&sketched(width, seed)).0, &exact));
            errors.sum::<f64>() / SEEDS as f64
        };
        let errors = [100, 400, 1600].map(mean_error);
        println!("{}: {errors:?}", fixture.name);
        // errors of inner products fall as 1/√width: by two at every step, less the spread over the seeds
        assert!(errors[0] > 1.3 * errors[1] && errors[1] > 1.3 * errors[2], "{}: {errors:?}", fixture.name);
        let cost = estimate_cost(&model, &fixture.train, &sketched(400, 0)).unwrap();
        assert_eq!(cost.bytes, of(&sketched(400, 0)).1, "{}: {cost}", fixture.name);
    }
}

#[test]
fn shards_in_the_same_projection_merge_and_others_are_refused() {
    for (fixture, model) in cases("sketched shards").take(1) {
        let part = |remainder: usize, config: &CurvatureConfig| {
            fit_curvature(&model, &half(&fixture.train, remainder), config, &Control::silent()).unwrap()
        };
        let jacobians = jacobians(&model, &fixture.test);
        let of = |curvature| covariance(&Laplace::new(&model, &curvature, &fixed(1.0)).unwrap(), &jacobians, 1.0);
        let whole = fit_curvature(&model, &fixture.train, &sketched(300, 1), &Control::silent()).unwrap();
        let merged = part(0, &sketched(300, 1)).merge(part(1, &sketched(300, 1))).unwrap();
        assert!(relative_error(&of(merged), &of(whole)) < ALGEBRA);
        let error = part(0, &sketched(300, 1)).merge(part(1, &sketched(300, 2))).unwrap_err().to_string();
        assert!(error.contains("projection.seed is 2 there and 1 here"), "{error}");
        for wrong in [sketched(0, 1), sketched(9, 1).with_structure(CurvatureStructure::Full)] {
            let error = fit_curvature(&model, &fixture.train, &wrong, &Control::silent()).unwrap_err().to_string();
            assert!(error.contains("projection"), "{error}");
        }
    }
}
