//! Factors of low rank against dense ones.

use super::{ROUNDING, TREATMENTS, at_rank, covariance, dense, exact, fixed, question_cases};
use crate::support::relative_error;
use bayes_lora::curvature::{Cotangents, FactorSum, Probe, TokenTreatment};
use bayes_lora::linalg::eigh;
use bayes_lora::lora::{LoraConfig, attach};
use bayes_lora::posterior::Laplace;
use burn::tensor::DType;
use ndarray::s;

/// Directions are dropped below 1e-12 of the largest eigenvalue, and the rest go through a Gram matrix.
const LOW_RANK: f64 = 1e-8;

fn log_det_ratio(laplace: &Laplace) -> f64 {
    laplace.log_det_ratio(laplace.prior_precisions()).unwrap()
}

/// Relative differences of two posteriors: of the covariances of a pass, and of the log-determinants.
fn differences(low: &Laplace, full: &Laplace, test: &Probe) -> [f64; 2] {
    let error = relative_error(&covariance(low, test), &covariance(full, test));
    [error, (log_det_ratio(low) / log_det_ratio(full) - 1.0).abs()]
}

#[test]
fn low_rank_at_full_rank_equals_dense() {
    for case in question_cases("full rank") {
        let (name, test) = (case.fixture.name, case.pass(Cotangents::Classes));
        for treatment in TREATMENTS {
            let fits = [at_rank(treatment, 0, 1000), exact(treatment)].map(|config| case.fit(&config));
            for lambda in [0.1, 10.0] {
                let [low, full] = fits.each_ref().map(|curvature| case.laplace(curvature, lambda));
                let [error, log_det] = differences(&low, &full, &test);
                let evidence = |l: &Laplace| l.log_marginal_likelihood(l.prior_precisions()).unwrap();
                let evidence = (evidence(&low) / evidence(&full) - 1.0).abs();
                println!("{name} {treatment:?} λ = {lambda}: {error:.1e}, {log_det:.1e}, {evidence:.1e}");
                for error in [error, log_det, evidence] {
                    assert!(error < LOW_RANK, "{name} {treatment:?} λ = {lambda}: {error:e}");
                }
            }
        }
    }
}

#[test]
fn low_rank_at_full_rank_equals_dense_where_the_data_do_not_span_the_space() {
    let Some(mut case) = question_cases("rank-deficient").next() else { return };
    // fresh adapters have B = 0, so no gradient reaches A; four items span less than the 32 dimensions
    let lora = LoraConfig::new(4).with_target_modules(["q_proj", "v_proj"]);
    let fresh = attach(case.fixture.bare(DType::F64), &lora, 1).unwrap();
    case.fixture.train.items.truncate(4);
    for model in [fresh, case.model.clone()] {
        case.model = model;
        let test = case.pass(Cotangents::Classes);
        for treatment in TREATMENTS {
            let [low, full] =
                [at_rank(treatment, 0, 1000), exact(treatment)].map(|config| case.laplace(&case.fit(&config), 0.1));
            let [error, log_det] = differences(&low, &full, &test);
            println!("{treatment:?}: {error:.1e}, {log_det:.1e}");
            assert!(error < LOW_RANK && log_det < LOW_RANK, "{treatment:?}: {error:e}, {log_det:e}");
        }
    }
}

#[test]
fn a_strong_prior_leaves_its_own_variance_however_little_of_the_factors_is_kept() {
    let Some(case) = question_cases("strong prior").next() else { return };
    let test = case.pass(Cotangents::Classes);
    // rank 4: the narrow side is wider than what is kept, too
    for kept in [1, 2, 1000] {
        let posterior = case.laplace(&case.fit(&at_rank(TokenTreatment::Expand, 0, kept)), 1e12);
        let found = covariance(&posterior, &test) * 1e12;
        let mut gram = &found * 0.0;
        for site in &test.sites {
            let j = site.jacobians().unwrap();
            for ((i, c, e), sum) in gram.indexed_iter_mut() {
                *sum += (&j.slice(s![i, c, .., ..]) * &j.slice(s![i, e, .., ..])).sum();
            }
        }
        let error = relative_error(&found, &gram);
        // eigenvalues of the curvature, below 1e3 here, over λ
        assert!(error < 1e-8, "{kept} kept: {error:e}");
    }
}

#[test]
fn truncation_conserves_the_trace_and_its_residual_only_adds_curvature() {
    for case in question_cases("truncation") {
        let (name, test) = (case.fixture.name, case.pass(Cotangents::Classes));
        for treatment in TREATMENTS {
            let [low, full] = [at_rank(treatment, 8, 3), exact(treatment)].map(|config| case.fit(&config));
            let mut n_truncated = 0;
            for (low, full) in low.kronecker_factors().unwrap().iter().zip(full.kronecker_factors().unwrap()) {
                for (low, full) in [(&low.activation, &full.activation), (&low.gradient, &full.gradient)] {
                    let trace = dense(full).diag().sum();
                    let kept = match low {
                        FactorSum::Dense(matrix) => matrix.diag().sum(),
                        FactorSum::LowRank(sum) => {
                            n_truncated += 1;
                            assert!(sum.factor.ncols() == 3 && sum.discarded_trace > 0.0);
                            sum.trace()
                        }
                    };
                    assert!((kept / trace - 1.0).abs() < ROUNDING, "{name} {treatment:?}: {kept} of {trace}");
                }
            }
            // the wide side of every site, and nothing else
            assert_eq!(n_truncated, full.kronecker_factors().unwrap().len());

            let [with, without] = [false, true].map(|without_residual| {
                Laplace::new(&case.model, &low, &fixed(0.1).with_without_residual(without_residual)).unwrap()
            });
            assert!(log_det_ratio(&with) > log_det_ratio(&without));
            let (with, without) = (covariance(&with, &test), covariance(&without, &test));
            for (with, without) in with.outer_iter().zip(without.outer_iter()) {
                let scale = without.diag().sum();
                for (a, b) in with.diag().iter().zip(without.diag()) {
                    assert!(a < b, "{name} {treatment:?}: {a} with, {b} without the residual");
                }
                // the whole difference is positive semi-definite, to rounding
                let lowest = eigh((&without - &with).view()).unwrap().values[0];
                assert!(lowest > -ROUNDING * scale, "{name} {treatment:?}: {lowest:e}");
            }
        }
    }
}
