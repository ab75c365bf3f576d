//! Draws have the covariance that the posterior says.

use super::{config, covariance, fixed};
use crate::support::{FIXTURES, Fixture, relative_error};
use bayes_lora::curvature::{
    AdapterSubset, CoreSpace, Curvature, CurvatureStructure, CurvatureSums, RandomProjection, fit_curvature,
};
use bayes_lora::posterior::{Laplace, SampleThenOptimize};
use bayes_lora::prior::PriorPrecision;
use bayes_lora::progress::Control;
use bayes_lora::tape::{LoraMatrix, Site};
use burn::tensor::DType;
use ndarray::{Array2, Array4};
use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};
use std::collections::BTreeMap;

const DRAWS: usize = 3000;

fn noise(seed: u64, rows: usize, columns: usize) -> Array2<f64> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    Array2::from_shape_fn((rows, columns), |_| rng.random_range(-1.0..1.0))
}

/// A linear functional of the weights, over all sites.
fn functional(laplace: &Laplace) -> BTreeMap<Site, Array2<f64>> {
    let sites = laplace.map().iter().enumerate();
    sites.map(|(k, (site, w))| (site.clone(), noise(k as u64, w.nrows(), w.ncols()))).collect()
}

/// The functional as the Jacobian of one logit of one item, whose variance is then the functional's.
fn as_jacobians(functional: &BTreeMap<Site, Array2<f64>>) -> BTreeMap<Site, Array4<f64>> {
    let shaped = |a: &Array2<f64>| a.clone().into_shape_with_order((1, 1, a.nrows(), a.ncols())).unwrap();
    functional.iter().map(|(site, a)| (site.clone(), shaped(a))).collect()
}

#[test]
fn draws_have_the_covariance_of_the_posterior_in_every_structure() {
    let fixture = Fixture::load(FIXTURES[0]);
    let model = fixture.model(DType::F32); // draws are made on the host
    let sketched = config(CurvatureStructure::FunctionSpace).with_projection(RandomProjection { width: 200, seed: 5 });
    for config in CurvatureStructure::ALL.map(config).into_iter().chain([sketched]) {
        let structure = config.structure;
        let curvature = fit_curvature(&model, &fixture.train, &config, &Control::silent()).unwrap();
        for temperature in [1.0, 0.25] {
            let laplace = Laplace::new(&model, &curvature, &fixed(2.0).with_temperature(temperature)).unwrap();
            let functional = functional(&laplace);
            let variance = covariance(&laplace, &as_jacobians(&functional), 2.0)[[0, 0, 0]];
            let value = |index: usize| -> f64 {
                let draw = laplace.sample(7, index as u64);
                if structure.plan().coordinates.is_of_modules() {
                    // a draw of a core is A and B in another gauge: read the core back, ⟨J_R, R' − R⟩
                    let modules = laplace.map().keys().filter(|site| site.matrix == LoraMatrix::A);
                    return modules
                        .map(|site| {
                            let core = CoreSpace::new(laplace.map(), &site.module).unwrap();
                            let b = &draw[&Site { module: site.module.clone(), matrix: LoraMatrix::B }];
                            let moved = core.column_basis.t().dot(b).dot(&draw[site].dot(&core.row_basis));
                            (core.project(functional[site].view()) * (moved - &core.trained)).sum()
                        })
                        .sum();
                }
                functional.iter().map(|(site, a)| (a * &(&draw[site] - &laplace.map()[site])).sum()).sum()
            };
            let values: Vec<f64> = (0..DRAWS).map(value).collect();
            let mean = values.iter().sum::<f64>() / DRAWS as f64;
            let found = values.iter().map(|v| v * v).sum::<f64>() / DRAWS as f64;
            // five standard errors of a mean, and of a variance (relative √(2/S))
            assert!(mean.abs() < 5.0 * (variance / DRAWS as f64).sqrt(), "{structure}: mean {mean}");
            let error = (found / variance - 1.0).abs();
            println!("{structure} T = {temperature}: {found:.4} for {variance:.4}");
            assert!(error < 5.0 * (2.0 / DRAWS as f64).sqrt(), "{structure}: {found} for {variance}");
        }
    }
}

#[test]
fn weights_outside_the_subset_stay_at_their_trained_values() {
    let fixture = Fixture::load(FIXTURES[0]);
    let model = fixture.model(DType::F32);
    for structure in CurvatureStructure::ALL.into_iter().filter(|s| !s.plan().coordinates.is_of_modules()) {
        let config = config(structure).with_subset(AdapterSubset::OnlyB);
        let curvature = fit_curvature(&model, &fixture.train, &config, &Control::silent()).unwrap();
        let laplace = Laplace::new(&model, &curvature, &fixed(2.0)).unwrap();
        for (site, w) in laplace.sample(1, 0) {
            assert_eq!(w == laplace.map()[&site], site.matrix == LoraMatrix::A, "{structure} {site}");
        }
    }
    let config = config(CurvatureStructure::Core).with_subset(AdapterSubset::OnlyB);
    let error = fit_curvature(&model, &fixture.train, &config, &Control::silent()).unwrap_err().to_string();
    assert!(error.contains("OnlyB"), "{error}");
}

#[test]
fn a_small_subset_of_a_core_keeps_the_function_at_zero_deviation() {
    let fixture = Fixture::load(FIXTURES[0]);
    let model = fixture.model(DType::F32);
    let curvature =
        fit_curvature(&model, &fixture.train, &config(CurvatureStructure::Core), &Control::silent()).unwrap();
    // an infinitely strong prior leaves no deviation: the core written back is the adapter
    let laplace = Laplace::new(&model, &curvature, &fixed(1e20)).unwrap();
    let draw = laplace.sample(0, 0);
    for site in laplace.map().keys().filter(|site| site.matrix == LoraMatrix::A) {
        let b = Site { module: site.module.clone(), matrix: LoraMatrix::B };
        let product = |w: &bayes_lora::lora::AdapterWeights| w[&b].dot(&w[site]);
        let error = relative_error(&product(&draw), &product(laplace.map()));
        assert!(error < 1e-6, "{site}: {error:e}"); // singular values through a Gram matrix
    }
}

#[test]
fn sample_then_optimise_draws_have_the_covariance_of_the_full_matrix() {
    let fixture = Fixture::load(FIXTURES[0]);
    let model = fixture.model(DType::F32);
    let fit = |structure| fit_curvature(&model, &fixture.train, &config(structure), &Control::silent()).unwrap();
    let (rows, full) = (fit(CurvatureStructure::FunctionSpace), fit(CurvatureStructure::Full));
    let precision = PriorPrecision::new(2.0).unwrap();
    let sampler = SampleThenOptimize::new(&model, &rows, precision).unwrap();
    let laplace = Laplace::new(&model, &full, &fixed(2.0)).unwrap();
    let functional = functional(&laplace);
    let variance = covariance(&laplace, &as_jacobians(&functional), 2.0)[[0, 0, 0]];
    let values = (0..DRAWS).map(|index| {
        let (draw, report) = sampler.draw(3, index as u64).unwrap();
        assert!(report.residual <= 1e-8 && report.steps <= 2 * rows_of(&rows), "{report:?}");
        functional.iter().map(|(site, a)| (a * &(&draw[site] - &laplace.map()[site])).sum()).sum::<f64>()
    });
    let found = values.map(|v| v * v).sum::<f64>() / DRAWS as f64;
    let error = (found / variance - 1.0).abs();
    assert!(error < 5.0 * (2.0 / DRAWS as f64).sqrt(), "{found} for {variance}"); // five standard errors
    let error = SampleThenOptimize::new(&model, &full, precision).unwrap_err().to_string();
    assert!(error.contains("full"), "{error}");
}

/// Conjugate gradients need one step more than H has directions in exact arithmetic, and some more with rounding.
fn rows_of(curvature: &Curvature) -> usize {
    let CurvatureSums::Joint(blocks) = &curvature.sums else { panic!("function space is joint") };
    blocks[0].sum.n_rows()
}
