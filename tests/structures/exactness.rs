//! What must be exact is.

use super::{ALGEBRA, adapted_for, cases, covariance, dense_covariance, fit, fixed, full_matrix, jacobians};
use crate::support::{continuation_dataset, logits, relative_error};
use bayes_lora::belief::softmax;
use bayes_lora::curvature::{CurvatureStructure, CurvatureSums};
use bayes_lora::linalg::eigh;
use bayes_lora::posterior::Laplace;
use bayes_lora::prior::PriorPrecision;
use bayes_lora::tape::Site;
use ndarray::{Array1, Array2, Axis, s};

const LAMBDAS: [(f64, &str); 3] = [(0.1, "0.1"), (1.0, "1.0"), (10.0, "10.0")];

/// transformers computes its rotary tables in f32 even in an f64 model.
const PYTORCH: f64 = 1e-5;

#[test]
fn full_and_diagonal_equal_those_of_pytorch() {
    for (fixture, model) in cases("full and diagonal") {
        let test = jacobians(&model, &fixture.test);
        let norm: f64 = fixture.expected("theta_map").iter().map(|v| v * v).sum();
        let laplace =
            [("full", CurvatureStructure::Full), ("diag", CurvatureStructure::Diagonal)].map(|(key, structure)| {
                (key, Laplace::new(&model, &fit(&model, &fixture.train, structure), &fixed(1.0)).unwrap())
            });
        for (lambda, suffix) in LAMBDAS {
            for (key, laplace) in &laplace {
                let expected = fixture.expected(&format!("{key}_cov_lambda_{suffix}")).into_dimensionality().unwrap();
                let error = relative_error(&covariance(laplace, &test, lambda), &expected);
                println!("{} {key} λ = {lambda}: {error:.1e}", fixture.name);
                assert!(error < PYTORCH, "{} {key} λ = {lambda}: {error:e}", fixture.name);
            }
            let precision = PriorPrecision::new(lambda).unwrap();
            let log_det = fixture.scalar(&format!("full_log_det_ratio_lambda_{suffix}"));
            let full = &laplace[0].1;
            assert!((full.log_det_ratio(precision).unwrap() / log_det - 1.0).abs() < PYTORCH);
            let evidence = -fixture.scalar("train_nll_sum") - 0.5 * lambda * norm - 0.5 * log_det;
            assert!((full.log_marginal_likelihood(precision).unwrap() / evidence - 1.0).abs() < PYTORCH);
        }
        let diagonal = fit(&model, &fixture.train, CurvatureStructure::Diagonal);
        let CurvatureSums::Diagonal(sums) = &diagonal.sums else { panic!("a diagonal was asked for") };
        let found: Array1<f64> = sums.iter().flat_map(|sum| sum.kept.iter().copied()).collect();
        let expected = fixture.expected("ggn_diagonal").into_dimensionality().unwrap();
        assert!(relative_error(&found, &expected) < PYTORCH);
    }
}

#[test]
fn function_space_equals_the_full_matrix() {
    for (fixture, model) in cases("function space") {
        let test = jacobians(&model, &fixture.test);
        let [full, dual] = [CurvatureStructure::Full, CurvatureStructure::FunctionSpace]
            .map(|s| Laplace::new(&model, &fit(&model, &fixture.train, s), &fixed(1.0)).unwrap());
        for (lambda, _) in LAMBDAS {
            let error = relative_error(&covariance(&dual, &test, lambda), &covariance(&full, &test, lambda));
            let precision = PriorPrecision::new(lambda).unwrap();
            let evidence = |l: &Laplace| l.log_marginal_likelihood(precision).unwrap();
            let evidence = (evidence(&dual) / evidence(&full) - 1.0).abs();
            println!("{} λ = {lambda}: {error:.1e}, evidence {evidence:.1e}", fixture.name);
            assert!(error < ALGEBRA && evidence < ALGEBRA, "{}: {error:e} {evidence:e}", fixture.name);
        }
    }
}

#[test]
fn site_blocks_are_the_diagonal_blocks_of_the_full_matrix() {
    for (fixture, model) in cases("site blocks") {
        let test = jacobians(&model, &fixture.test);
        let curvature = fit(&model, &fixture.train, CurvatureStructure::Full);
        let CurvatureSums::Joint(joint) = &curvature.sums else { panic!("a joint structure was asked for") };
        let spaces = &joint[0].spaces;
        let mut blocks = full_matrix(&curvature);
        let mut start = 0;
        for space in spaces {
            let end = start + space.width();
            blocks.slice_mut(s![start..end, ..start]).fill(0.0);
            blocks.slice_mut(s![start..end, end..]).fill(0.0);
            start = end;
        }
        let order: Vec<Site> = spaces.iter().map(|space| space.site.clone()).collect();
        let sites = fit(&model, &fixture.train, CurvatureStructure::SiteBlock);
        let laplace = Laplace::new(&model, &sites, &fixed(1.0)).unwrap();
        for (lambda, _) in LAMBDAS {
            let expected = dense_covariance(&blocks, &order, &test, lambda);
            assert!(relative_error(&covariance(&laplace, &test, lambda), &expected) < ALGEBRA);
        }
    }
}

#[test]
fn continuation_rows_give_the_same_exact_curvature_as_their_formula() {
    for (fixture, _) in cases("continuations") {
        let data = continuation_dataset();
        let model = adapted_for(&fixture, &data);
        let curvature = fit(&model, &data, CurvatureStructure::Full);
        let CurvatureSums::Joint(joint) = &curvature.sums else { panic!("a joint structure was asked for") };
        let order: Vec<Site> = joint[0].spaces.iter().map(|space| space.site.clone()).collect();
        // H = Σ_n Σ_ce Λ[c,e] J^c (J^e)ᵀ, written out
        let jacobians = jacobians(&model, &data);
        let p = softmax(logits(&model, &data).view());
        let width = full_matrix(&curvature).nrows();
        let mut expected = Array2::<f64>::zeros((width, width));
        for i in 0..data.len() {
            let choices = jacobians[&order[0]].dim().1;
            let rows: Vec<Array1<f64>> = (0..choices)
                .map(|c| order.iter().flat_map(|site| jacobians[site].slice(s![i, c, .., ..]).to_owned()).collect())
                .collect();
            for c in 0..choices {
                for e in 0..choices {
                    let weight = if c == e { p[[i, c]] } else { 0.0 } - p[[i, c]] * p[[i, e]];
                    let (column, row) = (rows[c].view().insert_axis(Axis(1)), rows[e].view().insert_axis(Axis(0)));
                    expected.scaled_add(weight, &column.dot(&row));
                }
            }
        }
        let error = relative_error(&full_matrix(&curvature), &expected);
        assert!(error < ALGEBRA, "{}: {error:e}", fixture.name);
        assert!(eigh(expected.view()).unwrap().values[0] > -1e-9); // semi-definite to rounding
    }
}
