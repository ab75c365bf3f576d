//! Measures the Gaussian over the logits of the linearised network: from C − 1 contrasts, from all C raw logits, and
//! with the probabilities and entropies that a caller receives.

mod common;

use bayes_lora::belief::LogitGauge;
use bayes_lora::predict::{Predictive, predict, predict_linearized};
use bayes_lora::progress::Control;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

fn linearized_prediction(criterion: &mut Criterion) {
    let mut group = common::group(criterion, "linearized_prediction");
    let control = Control::silent();
    for subject in common::subjects() {
        let laplace = subject.laplace().unwrap();
        let (model, data, limits) = (&subject.model, &subject.data, &subject.limits);
        group.throughput(Throughput::Elements(subject.n_items()));
        for (name, gauge) in [("contrasts", LogitGauge::Centred), ("raw", LogitGauge::Raw)] {
            group.bench_function(format!("{name}/{}", subject.name), |bencher| {
                bencher.iter(|| predict_linearized(model, &laplace, data, gauge, limits, &control).unwrap());
            });
        }
        group.bench_function(format!("with_probabilities/{}", subject.name), |bencher| {
            bencher.iter(|| predict(model, &laplace, data, Predictive::default(), limits, &control).unwrap());
        });
    }
    group.finish();
}

criterion_group!(benches, linearized_prediction);
criterion_main!(benches);
