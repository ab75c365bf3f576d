//! The evidence of a next task, three tasks in a row, and sums that are carried on, against dense matrices.

use super::fixed;
use super::next_task::{
    DENSE, OVER_WEIGHTS, curvature, dense, first_task, fit, flat, laplace, matrix, near, product_matrix, quick, turned,
};
use crate::support::f64_or_skip;
use crate::support::points::{blobs, flipped};
use bayes_lora::curvature::CurvatureStructure;
use bayes_lora::linalg::eigh;
use bayes_lora::lora::read_adapter;
use bayes_lora::posterior::{Laplace, PosteriorPrior};
use bayes_lora::prior::PriorPrecision;
use bayes_lora::train::AdapterPrior;
use ndarray::Array2;

fn log_det(matrix: &Array2<f64>) -> f64 {
    eigh(matrix.view()).unwrap().values.iter().map(|e| e.ln()).sum()
}

#[test]
fn the_evidence_of_the_next_task_is_that_of_dense_determinants() {
    if !f64_or_skip("evidence of the next task") {
        return;
    }
    let (model, data) = first_task();
    let second = turned(&data);
    let next = fit(model.clone(), &second, &quick().with_epochs(5));
    let (first_map, next_map) = (read_adapter(&model).unwrap(), read_adapter(&next).unwrap());
    let d = flat(&next_map) - flat(&first_map);
    let dense_of = [
        CurvatureStructure::Full,
        CurvatureStructure::SiteBlock,
        CurvatureStructure::Diagonal,
        CurvatureStructure::FunctionSpace,
    ];
    for structure in OVER_WEIGHTS {
        let earlier = laplace(&model, &data, structure, 0.7);
        let p = product_matrix(&earlier) * 2.0;
        let prior = PosteriorPrior::new(&model, earlier).unwrap().weighted(2.0).unwrap();
        for own in dense_of {
            let sums = curvature(&next, &second, own);
            let h = dense(&sums, &next_map);
            let expected =
                sums.log_likelihood.unwrap() - 0.5 * d.dot(&p.dot(&d)) - 0.5 * (log_det(&(&p + &h)) - log_det(&p));
            let found = prior.log_marginal_likelihood(&next, &sums).unwrap();
            assert!((found - expected).abs() < 1e-8 * expected.abs(), "{structure}, {own}: {found}, {expected}");
        }
        for own in [CurvatureStructure::Kronecker, CurvatureStructure::Ekfac, CurvatureStructure::Core] {
            let error = prior.log_marginal_likelihood(&next, &curvature(&next, &second, own)).unwrap_err().to_string();
            assert!(error.contains(&own.to_string()), "{error}");
        }
        // a curvature of another adapter
        let there = curvature(&model, &second, CurvatureStructure::Diagonal);
        assert!(prior.log_marginal_likelihood(&next, &there).is_err());
    }
}

#[test]
fn three_tasks_sum_their_curvatures_and_the_first_ones_prior() {
    if !f64_or_skip("three tasks") {
        return;
    }
    let (model, data) = first_task();
    let second = turned(&data);
    let next = fit(model.clone(), &second, &quick().with_epochs(5));
    let map = read_adapter(&next).unwrap();
    for structure in OVER_WEIGHTS {
        let (one, two) = (laplace(&model, &data, structure, 0.7), laplace(&next, &second, structure, 9.0));
        let of_second = product_matrix(&two) - Array2::<f64>::eye(flat(&map).len()) * 9.0;
        let expected = product_matrix(&one) * 2.0 + of_second;
        let prior = PosteriorPrior::new(&model, one).unwrap().weighted(2.0).unwrap().then(&next, two).unwrap();
        let found = matrix(&map, |v| prior.precision_product(v).unwrap());
        near(&found, &expected, &format!("{structure}"));
        assert_eq!(prior.centre(), &map);
        let third = flipped(&second);
        let last = curvature(&next, &third, CurvatureStructure::Diagonal);
        let evidence = prior.log_marginal_likelihood(&next, &last);
        if structure == CurvatureStructure::Diagonal {
            let ratio: f64 = dense(&last, &map).diag().iter().zip(expected.diag()).map(|(h, p)| (h / p).ln_1p()).sum();
            let expected = last.log_likelihood.unwrap() - 0.5 * ratio;
            assert!((evidence.unwrap() - expected).abs() < DENSE * expected.abs());
        } else {
            let error = evidence.unwrap_err().to_string();
            assert!(error.contains("2 tasks"), "{error}");
        }
    }
}

#[test]
fn carried_sums_merge_with_those_of_the_next_task_into_its_posterior() {
    if !f64_or_skip("carried curvature") {
        return;
    }
    let (model, data) = first_task();
    let mut second = turned(&blobs(30, 8));
    second.labels.reverse();
    let next = fit(model.clone(), &second, &quick().with_epochs(5));
    let map = read_adapter(&next).unwrap();
    for structure in [
        CurvatureStructure::Full,
        CurvatureStructure::SiteBlock,
        CurvatureStructure::Diagonal,
        CurvatureStructure::FunctionSpace,
    ] {
        let mut one = curvature(&model, &data, structure);
        // points are known by their number alone
        one.item_keys.clear();
        let two = curvature(&next, &second, structure);
        let expected = dense(&one, &map) + dense(&two, &map) + Array2::<f64>::eye(flat(&map).len()) * 0.7;
        assert!(one.clone().merge(two.clone()).is_err()); // of two adapters
        let merged = one.carried_to(&map).unwrap().merge(two).unwrap();
        assert_eq!((merged.n_data, merged.log_likelihood), (70, None));
        let posterior = Laplace::new(&next, &merged, &fixed(0.7)).unwrap();
        near(&product_matrix(&posterior), &expected, &format!("{structure}"));
        assert!(posterior.log_marginal_likelihood(PriorPrecision::new(0.7).unwrap()).is_err());
    }
}
