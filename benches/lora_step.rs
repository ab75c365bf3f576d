//! Measures one training step of the adapter as the trainer takes it: batch, forward, backward, clipping, AdamW; with the activations of all
//! layers, and of one at a time.

mod common;

use bayes_lora::data::EncodedDataset;
use bayes_lora::memory::GradientCheckpointing;
use bayes_lora::progress::Control;
use bayes_lora::train::{Trainer, TrainerConfig};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};

fn lora_step(criterion: &mut Criterion) {
    let mut group = common::group(criterion, "lora_step");
    for subject in common::subjects() {
        let items = subject.data.items.iter().take(subject.limits.max_items).cloned().collect();
        let batch = EncodedDataset { items, ..subject.data.clone() };
        let config = TrainerConfig::default().with_epochs(1).with_limits(subject.limits);
        let trainer = Trainer::new(config).unwrap();
        group.throughput(Throughput::Elements(batch.n_tokens() as u64));
        // the activations of all layers, or of one at a time
        for (name, checkpointing) in
            [("tokens", GradientCheckpointing::Off), ("tokens_by_layers", GradientCheckpointing::On)]
        {
            let control = Control::silent().with_gradient_checkpointing(checkpointing);
            group.bench_function(format!("{name}/{}", subject.name), |bencher| {
                bencher.iter_batched(
                    || subject.model.clone(),
                    |model| {
                        let outcome = trainer.fit(model, &batch, None, &control).unwrap();
                        assert_eq!(outcome.report.steps, 1);
                        outcome
                    },
                    BatchSize::PerIteration,
                );
            });
        }
    }
    group.finish();
}

criterion_group!(benches, lora_step);
criterion_main!(benches);
