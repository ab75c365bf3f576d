//! One row an item, which holds once what the item's rows begin with, says what the rows say one by one.

use super::{Case, check_jacobians, continuation_dataset, headed};
use crate::support::families::{FAMILIES, FamilyFixture, SPELLINGS};
use crate::support::{FIXTURES, Fixture, device, has_f64, logits, on_host, relative_error};
use bayes_lora::curvature::{Cotangents, probe};
use bayes_lora::data::{EncodedDataset, EncodedItem, EncodedRow, PaddingSide};
use bayes_lora::likelihood::{Categorical, Target};
use bayes_lora::lora::Adaptable;
use bayes_lora::models::{Classifier, ClassifierInput, PromptClassifier, RowMeaning, TokenBatch};
use bayes_lora::progress::Control;
use bayes_lora::tape::Tape;
use bayes_lora::train::{Trainer, TrainerConfig, TrainingMode, negative_log_likelihood, set_trainable};
use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::DType;
use ndarray::Array2;

/// Over a hundred products of f64, or of f32.
fn precisions() -> Vec<(DType, f64)> {
    let mut all = vec![(DType::F32, 1e-5)];
    if has_f64() {
        all.push((DType::F64, 1e-12));
    }
    all
}

/// With questions whose answers begin alike, are each other's start, or are the same.
fn data() -> EncodedDataset {
    let mut data = continuation_dataset();
    let rows = |answers: &[&[u32]]| -> Vec<EncodedRow> {
        let prompt: Vec<u32> = (0..9).map(|t| 5 + 7 * t % 50).collect();
        let row = |answer: &&[u32]| {
            let ids = [&prompt, *answer].concat();
            EncodedRow { scored: prompt.len()..ids.len(), ids, weight: 1.0 / answer.len() as f64, types: Vec::new() }
        };
        answers.iter().map(row).collect()
    };
    let answers: [&[&[u32]]; 3] =
        [&[&[9, 8, 7], &[9, 8, 6, 5, 4, 3], &[9, 2]], &[&[9, 8], &[9, 8, 7], &[3]], &[&[4, 4], &[4, 4], &[6, 7], &[8]]];
    for (i, answers) in answers.into_iter().enumerate() {
        let rows = rows(answers);
        data.items.push(EncodedItem { id: format!("alike-{i}"), n_choices: rows.len(), rows, label: Some(1) });
    }
    // within the vocabulary of every fixture
    let ids = data.items.iter_mut().flat_map(|item| &mut item.rows).flat_map(|row| &mut row.ids);
    ids.for_each(|id| *id %= 64);
    data
}

/// Logits of the classes that items have, and the gradient of their loss by the place of A or B among all.
fn answers(model: &PromptClassifier, batch: &TokenBatch, data: &EncodedDataset) -> Vec<Array2<f64>> {
    let model = set_trainable(model.clone(), &TrainingMode::Lora).unwrap().train();
    model.check(batch).unwrap();
    let output = model.logits(batch, &mut Tape::off());
    let present = batch.class_mask().unwrap().mapv(|has| f64::from(u8::from(has)));
    let logits = on_host(output.clone().without_autodiff()) * present;
    let targets: Vec<Target> = data.items.iter().map(|item| Target::Class(item.label.unwrap())).collect();
    let loss = negative_log_likelihood(output, &Categorical, &targets, batch.class_mask()).unwrap();
    let gradients = GradientsParams::from_grads(loss.differentiable.backward(), &model);
    let adapters = model.linears().into_iter().filter_map(|linear| linear.adapter.as_ref());
    let params = adapters.flat_map(|adapter| [adapter.a.id, adapter.b.id]);
    [logits].into_iter().chain(params.map(|id| on_host(gradients.get::<2>(id).unwrap()))).collect()
}

fn check(name: &str, model: &PromptClassifier, dtype: DType, tolerance: f64) {
    let data = data();
    let all: Vec<usize> = (0..data.items.len()).collect();
    for side in [PaddingSide::Left, PaddingSide::Right] {
        let apart = TokenBatch::new(&data, &all, side, &device(), dtype).unwrap();
        let shared = apart.clone().with_shared_prompts().unwrap();
        assert_eq!(shared.row_meaning(), RowMeaning::Item);
        let tokens = |batch: &TokenBatch| batch.token_mask().iter().filter(|real| **real).count();
        assert!(2 * tokens(&shared) < tokens(&apart), "{} of {}", tokens(&shared), tokens(&apart));
        let (found, expected) = (answers(model, &shared, &data), answers(model, &apart, &data));
        assert!(found.len() > 2 && found.len() == expected.len());
        for (place, (found, expected)) in found.iter().zip(&expected).enumerate() {
            let error = relative_error(found, expected);
            assert!(error < tolerance, "{name} {dtype:?} {side:?} {place}: {error:e}");
        }
    }
}

#[test]
fn logits_and_gradients_are_those_of_rows_apart_for_every_family() {
    for (dtype, tolerance) in precisions() {
        for name in FIXTURES {
            let mut fixture = Fixture::load(name);
            fixture.train = data();
            fixture.test = data();
            check(name, &fixture.model(dtype), dtype, tolerance);
        }
        for name in FAMILIES {
            let lm = FamilyFixture::load(name).model(SPELLINGS[0], dtype).lm;
            let model = PromptClassifier::new(lm, &data()).unwrap();
            if model.shares_prompts() {
                check(name, &model, dtype, tolerance);
            } else {
                let all: Vec<usize> = (0..data().items.len()).collect();
                let batch = TokenBatch::new(&data(), &all, PaddingSide::Right, &device(), dtype).unwrap();
                let error = model.check(&batch.with_shared_prompts().unwrap()).unwrap_err().to_string();
                assert!(name == "phi3" && error.contains("longrope"), "{name}: {error}");
            }
        }
    }
}

#[test]
fn training_and_answers_go_through_the_shared_rows() {
    let data = data();
    let mut fixture = Fixture::load(FIXTURES[0]);
    (fixture.train, fixture.test) = (data.clone(), data.clone());
    let model = fixture.model(DType::F32);
    let all: Vec<usize> = (0..data.items.len()).collect();
    let apart = TokenBatch::new(&data, &all, PaddingSide::Right, &device(), DType::F32).unwrap();
    let shared = apart.clone().with_shared_prompts().unwrap().token_mask();
    let config = TrainerConfig::default().with_epochs(1);
    let outcome = Trainer::new(config).unwrap().fit(model.clone(), &data, None, &Control::silent()).unwrap();
    assert_eq!(outcome.report.tokens, shared.iter().filter(|real| **real).count());
    let found = logits(&model, &data).mapv(|v| if v.is_finite() { v } else { 0.0 });
    let error = relative_error(&found, &answers(&model, &apart, &data)[0]);
    assert!(error < 1e-5, "{error:e}");
}

#[test]
fn jacobians_of_shared_rows_are_those_of_rows_apart_where_the_head_is_adapted_too() {
    if !has_f64() {
        return;
    }
    let data = data();
    let all: Vec<usize> = (0..data.items.len()).collect();
    for name in FIXTURES {
        let mut fixture = Fixture::load(name);
        (fixture.train, fixture.test) = (data.clone(), data.clone());
        let Case { model, .. } = headed(Case { model: fixture.model(DType::F64), fixture });
        for side in [PaddingSide::Left, PaddingSide::Right] {
            let apart = TokenBatch::new(&data, &all, side, &device(), DType::F64).unwrap();
            // two choices are read at one token
            let shared = apart.clone().with_shared_prompts().unwrap();
            let read = shared.read_tokens().unwrap();
            assert!(read.len() > read.iter().collect::<std::collections::BTreeSet<_>>().len());
            let [found, expected] = [shared, apart].map(|batch| probe(&model, &batch, Cotangents::Classes).unwrap());
            check_jacobians(&found, &expected, |whole| whole, name);
        }
    }
}
