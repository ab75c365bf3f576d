//! Measures prediction by the trained adapter alone.

mod common;

use bayes_lora::predict::predict_map;
use bayes_lora::progress::Control;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

fn map_inference(criterion: &mut Criterion) {
    let mut group = common::group(criterion, "map_inference");
    let control = Control::silent();
    for subject in common::subjects() {
        group.throughput(Throughput::Elements(subject.n_items()));
        group.bench_function(format!("items/{}", subject.name), |bencher| {
            bencher.iter(|| predict_map(&subject.model, &subject.data, &subject.limits, &control).unwrap());
        });
    }
    group.finish();
}

criterion_group!(benches, map_inference);
criterion_main!(benches);
