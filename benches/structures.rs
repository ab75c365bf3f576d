//! Measures every structure of curvature: the pass that sums it, its decomposition with the prior, and the covariance of
//! all prompts' logits under another prior.

mod common;

use bayes_lora::belief::LogitGauge;
use bayes_lora::curvature::{CurvatureConfig, CurvatureStructure, fit_curvature};
use bayes_lora::memory::ActivationBudget;
use bayes_lora::models::Dataset;
use bayes_lora::posterior::{Laplace, LaplaceConfig, LogitJacobians};
use bayes_lora::prior::PriorPrecision;
use bayes_lora::progress::Control;
use burn::module::Module;
use criterion::{Criterion, criterion_group, criterion_main};
use std::hint::black_box;

fn structures(criterion: &mut Criterion) {
    let mut group = common::group(criterion, "structures");
    let control = Control::silent();
    for subject in common::subjects() {
        let (model, data, limits) = (subject.model.valid(), &subject.data, subject.limits);
        let sites = subject.laplace().unwrap().sites();
        let all: Vec<usize> = (0..data.n_items()).collect();
        let jacobians: Vec<LogitJacobians> = all
            .chunks(limits.max_items)
            .map(|batch| {
                LogitJacobians::new(&model, data, batch, LogitGauge::Centred, (&sites, &ActivationBudget::unlimited()))
                    .unwrap()
            })
            .collect();
        // the full matrix is for tiny adapters
        for structure in CurvatureStructure::ALL.into_iter().filter(|s| *s != CurvatureStructure::Full) {
            let name = |what: &str| format!("{what}/{}/{}", structure.to_string().replace(' ', "_"), subject.name);
            let config = CurvatureConfig::new(structure).with_limits(limits);
            group.bench_function(name("fit"), |bencher| {
                bencher.iter_with_large_drop(|| fit_curvature(&model, data, &config, &control).unwrap());
            });
            let curvature = fit_curvature(&model, data, &config, &control).unwrap();
            let decompose = || Laplace::new(&model, &curvature, &LaplaceConfig::default()).unwrap();
            group.bench_function(name("decompose"), |bencher| bencher.iter_with_large_drop(decompose));
            let laplace = decompose();
            let projections: Vec<_> =
                jacobians.iter().map(|batch| laplace.project_jacobians(&batch.sites).unwrap()).collect();
            let precision = PriorPrecision::new(1.5).unwrap();
            group.bench_function(name("another_prior"), |bencher| {
                bencher.iter(|| {
                    for batch in &projections {
                        black_box(laplace.covariance(batch, precision).unwrap());
                    }
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, structures);
criterion_main!(benches);
