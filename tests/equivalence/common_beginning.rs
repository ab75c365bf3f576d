//! What all rows begin with is read once, and says what it says in every row.

use crate::support::families::{FAMILIES, FamilyFixture, SPELLINGS};
use crate::support::{FIXTURES, Fixture, Padded, continuation_dataset, device, has_f64, heads, logits, relative_error};
use bayes_lora::data::{BatchLimits, EncodedDataset, PaddingSide, ResolvedAnswers};
use bayes_lora::models::{
    Classifier, ClassifierInput, Dataset, LoadedEncoder, PromptClassifier, SequenceClassifier, TokenBatch,
};
use bayes_lora::predict::{predict_head, predict_map};
use bayes_lora::progress::Control;
use bayes_lora::tape::Tape;
use bayes_lora::train::{Trainer, TrainerConfig};
use burn::tensor::DType;
use ndarray::Array2;
use std::sync::Arc;

/// Tokens before every row, one more than are read at once: the rest is part of the rows.
const BEFORE: usize = 17;

/// Over a hundred products of f64, or of f32.
pub(super) fn precisions() -> impl Iterator<Item = (DType, f64)> {
    [(DType::F32, 1e-5)].into_iter().chain(has_f64().then_some((DType::F64, 1e-12)))
}

/// The same questions behind instructions.
pub(super) fn behind(data: &EncodedDataset) -> EncodedDataset {
    let mut data = data.clone();
    for row in data.items.iter_mut().flat_map(|item| &mut item.rows) {
        let before = (0..BEFORE).map(|t| (5 + 11 * t % 50) as u32);
        row.ids = before.chain(row.ids.iter().map(|id| id % 64)).collect();
        if !row.scored.is_empty() {
            row.scored = row.scored.start + BEFORE..row.scored.end + BEFORE;
        }
    }
    data
}

/// Logits of all items at once, all tokens of every row read; 0 for classes that an item lacks.
fn whole<M: Classifier<Input = TokenBatch>>(model: &M, data: &impl Dataset<Input = TokenBatch>) -> Array2<f64> {
    let all: Vec<usize> = (0..data.n_items()).collect();
    let batch = data.batch(&all, &device(), model.dtype()).unwrap();
    model.check(&batch).unwrap();
    let present = batch.class_mask().map(|mask| mask.mapv(|has| f64::from(u8::from(has))));
    let logits = crate::support::on_host(model.logits(&batch, &mut Tape::off()));
    match present {
        Some(present) => logits * present,
        None => logits,
    }
}

fn finite(logits: Array2<f64>) -> Array2<f64> {
    logits.mapv(|v| if v.is_finite() { v } else { 0.0 })
}

fn check(name: &str, model: &PromptClassifier, data: &EncodedDataset, (dtype, tolerance): (DType, f64)) {
    assert!(data.common_beginning().len() >= BEFORE, "{name}");
    let expected = whole(model, data);
    let error = relative_error(&finite(logits(model, data)), &expected);
    assert!(error < tolerance, "{name} {dtype:?}: {error:e}");
    // with pads on either side, with and without a shared row an item
    let seen = Arc::new(model.see(&data.common_beginning()[..16]).unwrap().unwrap());
    assert_eq!(seen.n_tokens(), 16);
    let all: Vec<usize> = (0..data.len()).collect();
    for side in [PaddingSide::Left, PaddingSide::Right] {
        let batch = TokenBatch::new(data, &all, side, &device(), dtype).unwrap();
        let shared = batch.clone().with_shared_prompts().unwrap();
        for (batch, what) in [(batch, "apart"), (shared, "shared")] {
            let rest = batch.clone().behind(&seen).unwrap();
            let tokens = |batch: &TokenBatch| batch.token_mask().iter().filter(|real| **real).count();
            let rows = batch.token_mask().outer_iter().filter(|row| row.iter().any(|real| *real)).count();
            assert_eq!(tokens(&batch) - tokens(&rest), 16 * rows, "{name} {side:?} {what}");
            let present = expected.mapv(|v| f64::from(u8::from(v != 0.0)));
            let found = crate::support::on_host(model.logits(&rest, &mut Tape::off())) * present;
            let error = relative_error(&found, &expected);
            assert!(error < tolerance, "{name} {dtype:?} {side:?} {what}: {error:e}");
        }
    }
}

#[test]
fn logits_are_those_of_rows_that_are_read_whole_in_every_family() {
    for precision in precisions() {
        for name in FIXTURES {
            let mut fixture = Fixture::load(name);
            fixture.train = behind(&fixture.train);
            check(name, &fixture.model(precision.0), &fixture.train, precision);
            fixture.train = behind(&continuation_dataset());
            check(name, &fixture.model(precision.0), &fixture.train, precision);
        }
        for name in FAMILIES {
            // windows are shorter than what stands before the rows
            let fixture = FamilyFixture::load(name);
            let model = fixture.model(SPELLINGS[0], precision.0);
            let data = behind(&fixture.data);
            match model.see(&[5, 6]).unwrap() {
                Some(_) => check(name, &model, &data, precision),
                // whose rotation depends on the length of a row
                None => {
                    assert_eq!(name, "phi3");
                    let error = relative_error(&finite(logits(&model, &data)), &whole(&model, &data));
                    assert!(error < precision.1, "{error:e}");
                }
            }
        }
    }
}

#[test]
fn predictions_features_and_validation_read_it_once() {
    let mut fixture = Fixture::load("tiny_llama");
    fixture.train = behind(&fixture.train);
    let (model, data) = (fixture.model(DType::F32), &fixture.train);
    let control = Control::silent();
    let limits = BatchLimits { max_items: 2, max_tokens: 1000 };
    let hidden = Padded(data, PaddingSide::Right);
    assert!(hidden.common_beginning().is_empty());
    let once = predict_map(&model, data, &limits, &control).unwrap().moments().0;
    let each = predict_map(&model, &hidden, &limits, &control).unwrap().moments().0;
    let error = relative_error(&once, &each);
    assert!(error < 1e-5, "{error:e}");
    let once = predict_head(&model, data, &limits, &control).unwrap().features;
    let each = predict_head(&model, &hidden, &limits, &control).unwrap().features;
    assert!(relative_error(&once, &each) < 1e-5);
    let trainer = Trainer::new(TrainerConfig::default().with_epochs(1).with_limits(limits)).unwrap();
    let outcome = trainer.fit(model.clone(), data, Some(data), &control).unwrap();
    let expected = whole(&outcome.model, data);
    let log_p = |row: usize, label: usize| {
        let row = expected.row(row);
        row[label] - row.iter().map(|v| v.exp()).sum::<f64>().ln()
    };
    let nll = (0..data.len()).map(|i| -log_p(i, data.items[i].label.unwrap())).sum::<f64>() / data.len() as f64;
    let found = outcome.report.epochs[0].validation_nll.unwrap();
    assert!((found / nll - 1.0).abs() < 1e-5, "{found} beside {nll}");
}

#[test]
fn an_encoder_reads_every_row_anew() {
    let data = heads::data("tiny_bert");
    let LoadedEncoder { encoder, head, .. } = heads::loaded(&heads::dir("tiny_bert").join("base"), DType::F32);
    let model = SequenceClassifier::with_head(encoder, head.unwrap(), &data).unwrap();
    assert!(model.see(&data.items[0].rows[0].ids).unwrap().is_none());
    // a head on a decoder does not
    let lm = Fixture::load("tiny_llama").bare(DType::F32).lm;
    let labels = EncodedDataset { answers: ResolvedAnswers::Labels, ..behind(&Fixture::load("tiny_llama").train) };
    let model = SequenceClassifier::new(lm, &labels, 0).unwrap();
    assert!(model.see(labels.common_beginning()).unwrap().is_some());
    assert!(relative_error(&logits(&model, &labels), &whole(&model, &labels)) < 1e-5);
}

#[test]
fn what_is_read_off_is_never_part_of_it() {
    let data = behind(&continuation_dataset());
    let shortest = data.items.iter().flat_map(|item| &item.rows).map(|row| row.scored.start - 1).min().unwrap();
    assert!(data.common_beginning().len() <= shortest);
    // one row alone, which is all in common
    let one = EncodedDataset { items: vec![data.items[0].clone()], ..data.clone() };
    let rows = &one.items[0].rows;
    assert_eq!(one.common_beginning().len(), rows[0].scored.start - 1);
    let fixture = Fixture::load("tiny_llama");
    let model = fixture.model_for(&data, DType::F32);
    let batch = TokenBatch::new(&data, &[0], PaddingSide::Right, &device(), DType::F32).unwrap();
    for ids in [&rows[0].ids[..], &[1, 2, 3]] {
        let seen = Arc::new(model.see(ids).unwrap().unwrap());
        let error = batch.clone().behind(&seen).unwrap_err().to_string();
        assert!(error.contains("continuation-0") && error.contains("seen"), "{error}");
    }
    assert!(model.see(&[96]).unwrap().is_none() && model.see(&[]).unwrap().is_none());
}
