//! Measures what another prior costs against what the fit costs: the curvature stays, and so do the projections of the
//! Jacobians on its eigenbases.
//!
//! Prints the share of a change of λ (best λ by the evidence, then the covariance of all items' logits at it) in the
//! fit (curvature pass, decomposition).

mod common;

use bayes_lora::curvature::Projection;
use bayes_lora::curvature::{Cotangents, probe};
use bayes_lora::models::{Classifier, Dataset};
use bayes_lora::number::significant;
use bayes_lora::posterior::Laplace;
use bayes_lora::prior::PriorPrecision;
use common::Subject;
use criterion::{Criterion, criterion_group, criterion_main};
use std::hint::black_box;
use std::time::{Duration, Instant};

/// Projections of all prompts, batch by batch.
fn project(subject: &Subject, laplace: &Laplace) -> Vec<Vec<Projection>> {
    let Subject { data, model, limits, .. } = subject;
    let indices: Vec<usize> = (0..data.len()).collect();
    let batches = indices.chunks(limits.max_items);
    batches
        .map(|batch| {
            let input = data.batch(batch, &model.device(), model.dtype()).unwrap();
            laplace.project(&probe(model, &input, Cotangents::Contrasts).unwrap()).unwrap()
        })
        .collect()
}

fn covariances(laplace: &Laplace, projections: &[Vec<Projection>], precision: PriorPrecision) {
    for batch in projections {
        black_box(laplace.covariance(batch, precision).unwrap());
    }
}

fn median_seconds(n: usize, mut work: impl FnMut()) -> f64 {
    let mut times: Vec<Duration> = (0..n)
        .map(|_| {
            let clock = Instant::now();
            work();
            clock.elapsed()
        })
        .collect();
    times.sort();
    times[n / 2].as_secs_f64()
}

fn prior_tuning(criterion: &mut Criterion) {
    let mut group = common::group(criterion, "prior_tuning");
    for subject in common::subjects() {
        let laplace = subject.laplace().unwrap();
        let projections = project(&subject, &laplace);
        let precision = PriorPrecision::new(1.5).unwrap();
        group.bench_function(format!("fit/{}", subject.name), |bencher| {
            bencher.iter_with_large_drop(|| subject.laplace().unwrap());
        });
        group.bench_function(format!("project/{}", subject.name), |bencher| {
            bencher.iter_with_large_drop(|| project(&subject, &laplace));
        });
        group.bench_function(format!("optimize_prior/{}", subject.name), |bencher| {
            bencher.iter(|| laplace.optimize_prior().unwrap());
        });
        group.bench_function(format!("covariance/{}", subject.name), |bencher| {
            bencher.iter(|| covariances(&laplace, &projections, black_box(precision)));
        });
        let fit = median_seconds(3, || drop(black_box(subject.laplace().unwrap())));
        let change = median_seconds(21, || {
            let best = laplace.optimize_prior().unwrap();
            covariances(&laplace, &projections, best[0].precision);
        });
        println!(
            "prior_tuning/{}: a new prior costs {} ms, the fit {} ms: {} %",
            subject.name,
            significant(1e3 * change),
            significant(1e3 * fit),
            significant(100.0 * change / fit)
        );
    }
    group.finish();
}

criterion_group!(benches, prior_tuning);
criterion_main!(benches);
