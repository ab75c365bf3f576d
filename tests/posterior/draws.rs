//! Draws have the moments of the posterior, and the prior is the one with the most evidence.

use super::dense::{KEPT, LIMITS, curvature_matrix, disturbed, fit, fixed, inverse_plus, network, noise, points};
use crate::support::{FIXTURES, Fixture};
use bayes_lora::belief::LinkApprox;
use bayes_lora::curvature::CurvatureConfig;
use bayes_lora::linalg::eigh;
use bayes_lora::posterior::{Laplace, LaplaceConfig};
use bayes_lora::predict::{Predictive, predict};
use bayes_lora::prior::PriorPrecision;
use bayes_lora::progress::Control;
use bayes_lora::tape::Site;
use burn::tensor::DType;
use ndarray::{Array1, Array2};

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
