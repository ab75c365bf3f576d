//! Measures the Gaussian over the logits of the linearised network: from C − 1 contrasts, from all C raw logits, and
//! with the probabilities and entropies that a caller receives; and the backward pass of several cotangents at once below it.

mod common;

use bayes_lora::belief::LogitGauge;
use bayes_lora::models::{Classifier, Dataset};
use bayes_lora::predict::{Predictive, predict, predict_linearized};
use bayes_lora::progress::Control;
use burn::module::Module;
use burn::tensor::Tensor;
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
        let all: Vec<usize> = (0..limits.max_items.min(data.len())).collect();
        let (plain, n) = (model.valid(), model.n_classes() - 1);
        let batch = data.batch(&all, &model.device(), model.dtype()).unwrap();
        for (name, by_layers) in [("pull_back", false), ("pull_back_by_layers", true)] {
            group.bench_function(format!("{name}/{}", subject.name), |bencher| {
                let mut ones = |logits: &Tensor<2>| Ok(logits.ones_like().repeat_dim(0, n));
                bencher.iter(|| plain.pull_back(&batch, by_layers, &mut ones).unwrap().unwrap().logits.into_data());
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
