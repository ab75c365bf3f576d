//! Measures prediction by the trained adapter alone; also behind worked examples that all prompts begin with, read once or in every row.

mod common;

use bayes_lora::data::{BatchLimits, BatchOrder, EncodedDataset};
use bayes_lora::models::{Dataset, TokenBatch};
use bayes_lora::predict::predict_map;
use bayes_lora::progress::Control;
use burn::tensor::{DType, Device};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

/// The same prompts behind three of them.
fn behind_examples(data: &EncodedDataset) -> EncodedDataset {
    let before: Vec<u32> = data.items[..3].iter().flat_map(|item| item.rows[0].ids.iter().copied()).collect();
    let mut data = data.clone();
    for row in data.items.iter_mut().flat_map(|item| &mut item.rows) {
        row.ids = [&before, &row.ids[..]].concat();
    }
    data
}

/// Items that are not known to begin alike.
struct Apart<'a>(&'a EncodedDataset);

impl Dataset for Apart<'_> {
    type Input = TokenBatch;

    fn n_items(&self) -> usize {
        self.0.len()
    }

    fn label(&self, item: usize) -> Option<usize> {
        self.0.label(item)
    }

    fn item_id(&self, item: usize) -> String {
        self.0.item_id(item)
    }

    fn plan(&self, limits: BatchLimits, order: BatchOrder) -> bayes_lora::Result<Vec<Vec<usize>>> {
        Dataset::plan(self.0, limits, order)
    }

    fn batch(&self, indices: &[usize], device: &Device, dtype: DType) -> bayes_lora::Result<TokenBatch> {
        self.0.batch(indices, device, dtype)
    }
}

fn map_inference(criterion: &mut Criterion) {
    let mut group = common::group(criterion, "map_inference");
    let control = Control::silent();
    for subject in common::subjects() {
        group.throughput(Throughput::Elements(subject.n_items()));
        group.bench_function(format!("items/{}", subject.name), |bencher| {
            bencher.iter(|| predict_map(&subject.model, &subject.data, &subject.limits, &control).unwrap());
        });
        let data = behind_examples(&subject.data);
        group.bench_function(format!("common_beginning_once/{}", subject.name), |bencher| {
            bencher.iter(|| predict_map(&subject.model, &data, &subject.limits, &control).unwrap());
        });
        group.bench_function(format!("common_beginning_in_every_row/{}", subject.name), |bencher| {
            bencher.iter(|| predict_map(&subject.model, &Apart(&data), &subject.limits, &control).unwrap());
        });
    }
    group.finish();
}

criterion_group!(benches, map_inference);
criterion_main!(benches);
