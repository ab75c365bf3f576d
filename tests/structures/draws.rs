//! Draws have the covariance that the posterior says.

use super::{config, covariance, fixed};
use crate::support::{FIXTURES, Fixture, relative_error};
use bayes_lora::curvature::{AdapterSubset, CoreSpace, CurvatureConfig, CurvatureStructure, fit_curvature};
use bayes_lora::posterior::{Laplace, LaplaceConfig};
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

#[test]
fn draws_have_the_covariance_of_the_posterior_in_every_structure() {
    let fixture = Fixture::load(FIXTURES[0]);
    let model = fixture.model(DType::F32); // draws are made on the host
    for structure in CurvatureStructure::ALL {
        let curvature = fit_curvature(&model, &fixture.train, &config(structure), &Control::silent()).unwrap();
        for temperature in [1.0, 0.25] {
            let laplace = Laplace::new(&model, &curvature, &LaplaceConfig { temperature, ..fixed(2.0) }).unwrap();
            // a linear functional of the weights, over all sites; its posterior variance is that of a logit with this Jacobian
            let functional: BTreeMap<Site, Array2<f64>> = laplace
                .map()
                .iter()
                .enumerate()
                .map(|(k, (site, w))| (site.clone(), noise(k as u64, w.nrows(), w.ncols())))
                .collect();
            let as_jacobians: BTreeMap<Site, Array4<f64>> = functional
                .iter()
                .map(|(site, a)| {
                    let (rows, columns) = a.dim();
                    (site.clone(), a.clone().into_shape_with_order((1, 1, rows, columns)).unwrap())
                })
                .collect();
            let variance = covariance(&laplace, &as_jacobians, 2.0)[[0, 0, 0]];
            let value = |index: usize| -> f64 {
                let draw = laplace.sample(7, index as u64);
                if structure == CurvatureStructure::Core {
                    // a draw of a core is A and B in another gauge: read the core back, ⟨J_R, R' − R⟩
                    let modules = laplace.map().keys().filter(|site| site.matrix == LoraMatrix::A);
                    return modules
                        .map(|site| {
                            let core = CoreSpace::new(laplace.map(), &site.module).unwrap();
                            let b = &draw[&Site { module: site.module.clone(), matrix: LoraMatrix::B }];
                            let moved = core.column_basis.t().dot(b).dot(&draw[site].dot(&core.row_basis));
                            (core.project(functional[site].view()) * (moved - &core.map)).sum()
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
    for structure in CurvatureStructure::ALL.into_iter().filter(|s| *s != CurvatureStructure::Core) {
        let config = CurvatureConfig { subset: AdapterSubset::OnlyB, ..config(structure) };
        let curvature = fit_curvature(&model, &fixture.train, &config, &Control::silent()).unwrap();
        let laplace = Laplace::new(&model, &curvature, &fixed(2.0)).unwrap();
        for (site, w) in laplace.sample(1, 0) {
            assert_eq!(w == laplace.map()[&site], site.matrix == LoraMatrix::A, "{structure} {site}");
        }
    }
    let config = CurvatureConfig { subset: AdapterSubset::OnlyB, ..config(CurvatureStructure::Core) };
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
