//! Measures a forward and backward pass over questions whose choices are continuations: rows apart, and rows that share their prompt.

mod common;

use bayes_lora::data::PaddingSide;
use bayes_lora::likelihood::{Categorical, Target};
use bayes_lora::models::{Classifier, ClassifierInput, TokenBatch};
use bayes_lora::tape::Tape;
use bayes_lora::train::{TrainingMode, negative_log_likelihood, set_trainable};
use burn::module::Module;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

fn shared_prompts(criterion: &mut Criterion) {
    let mut group = common::group(criterion, "shared_prompts");
    for subject in common::continuations() {
        let all: Vec<usize> = (0..subject.limits.max_items).collect();
        let device = subject.model.device();
        let apart = TokenBatch::new(&subject.data, &all, PaddingSide::Right, &device, subject.model.dtype()).unwrap();
        let shared = apart.clone().with_shared_prompts().unwrap();
        let targets: Vec<Target> = all.iter().map(|&item| subject.data.items[item].label.unwrap().into()).collect();
        let model = set_trainable(subject.model.clone(), &TrainingMode::Lora).unwrap().train();
        group.throughput(Throughput::Elements(all.len() as u64));
        for (name, batch) in [("apart", &apart), ("shared", &shared)] {
            group.bench_function(format!("gradient_{name}/{}", subject.name), |bencher| {
                bencher.iter(|| {
                    let logits = model.logits(batch, &mut Tape::off());
                    let loss = negative_log_likelihood(logits, &Categorical, &targets, batch.class_mask()).unwrap();
                    loss.differentiable.backward()
                });
            });
            group.bench_function(format!("logits_{name}/{}", subject.name), |bencher| {
                bencher.iter(|| subject.model.logits(batch, &mut Tape::off()).into_data());
            });
        }
    }
    group.finish();
}

criterion_group!(benches, shared_prompts);
criterion_main!(benches);
