//! Measures the pass that sums the Kronecker factors: with all classes or one sampled label, tokens apart or together.

mod common;

use bayes_lora::curvature::{FisherKind, TokenTreatment};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

fn kronecker_pass(criterion: &mut Criterion) {
    let mut group = common::group(criterion, "kronecker_pass");
    let sampled = FisherKind::Sampled { n: 1, seed: 0 };
    let variants = [
        ("exact_expand", FisherKind::Exact, TokenTreatment::Expand),
        ("exact_reduce", FisherKind::Exact, TokenTreatment::Reduce),
        ("sampled_expand", sampled, TokenTreatment::Expand),
        ("sampled_reduce", sampled, TokenTreatment::Reduce),
    ];
    for subject in common::subjects() {
        group.throughput(Throughput::Elements(subject.n_items()));
        for (name, fisher, treatment) in variants {
            group.bench_function(format!("{name}/{}", subject.name), |bencher| {
                bencher.iter_with_large_drop(|| subject.curvature(fisher, treatment).unwrap());
            });
        }
    }
    group.finish();
}

criterion_group!(benches, kronecker_pass);
criterion_main!(benches);
