//! The decoder's own backward pass, with several cotangents at once, equals automatic differentiation one by one.

use crate::support::families::{FAMILIES, FamilyFixture, SPELLINGS};
use crate::support::{FIXTURES, Fixture, continuation_dataset, f64_or_skip, on_host, relative_error};
use bayes_lora::data::{EncodedDataset, PaddingSide};
use bayes_lora::lora::{Adaptable, LoraConfig, attach};
use bayes_lora::models::{Classifier, ClassifierInput, PromptClassifier, TokenBatch};
use bayes_lora::tape::{LoraMatrix, RowKeys, Tape};
use bayes_lora::train::{TrainingMode, set_trainable};
use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::{DType, Tensor, TensorData};
use ndarray::{Array2, s};

/// Combinations an item.
const K: usize = 3;

/// `[K · n, classes]`, all different.
fn weights(like: &Tensor<2>) -> Tensor<2> {
    let [n, classes] = like.dims();
    let values: Vec<f64> = (0..K * n * classes).map(|i| (1.7 * i as f64).sin()).collect();
    Tensor::from_data(TensorData::new(values, [K * n, classes]), (&like.device().without_autodiff(), like.dtype()))
}

fn check(name: &str, model: &PromptClassifier, data: &EncodedDataset) {
    let all: Vec<usize> = (0..data.items.len()).collect();
    for side in [PaddingSide::Left, PaddingSide::Right] {
        let batch = TokenBatch::new(data, &all, side, &model.device(), DType::F64).unwrap();
        let pulled = model.pull_back(&batch, false, &mut |logits| Ok(weights(logits))).unwrap().unwrap();
        let plain = on_host(model.logits(&batch, &mut Tape::off()));
        // the forward pass is the same one, but its last layer need not compute tokens that nobody reads
        let error = relative_error(&on_host(pulled.logits), &plain);
        assert!(error < 1e-13, "{name} {side:?}: {error:e}");

        let model = set_trainable(model.clone(), &TrainingMode::Lora).unwrap().train();
        for k in 0..K {
            let logits = model.logits(&batch, &mut Tape::off());
            let n = logits.dims()[0];
            let loss = (logits.clone() * weights(&logits).narrow(0, k * n, n)).sum();
            let gradients = GradientsParams::from_grads(loss.backward(), &model);
            let mut sites = pulled.sites.iter();
            for linear in model.linears() {
                let Some(adapter) = &linear.adapter else { continue };
                for (matrix, param) in [(LoraMatrix::A, &adapter.a), (LoraMatrix::B, &adapter.b)] {
                    let site = sites.next().unwrap();
                    assert_eq!((&site.site.module, site.site.matrix), (&linear.path, matrix));
                    let (inputs, all) = (on_host(site.input.clone()), on_host(site.gradient.clone()));
                    let n = inputs.nrows();
                    let found: Array2<f64> = all.slice(s![k * n..(k + 1) * n, ..]).t().dot(&inputs);
                    let expected = on_host(gradients.get::<2>(param.id).unwrap());
                    let error = relative_error(&found, &expected);
                    // sums of another order over a hundred products
                    assert!(error < 1e-12, "{name} {side:?} {} {k}: {error:e}", site.site);
                }
            }
            assert!(sites.next().is_none());
        }
    }
}

#[test]
fn several_cotangents_at_once_give_the_gradients_of_automatic_differentiation_in_every_family() {
    if !f64_or_skip("cotangents at once") {
        return;
    }
    for name in FIXTURES {
        let fixture = Fixture::load(name);
        check(name, &fixture.model(DType::F64), &fixture.test);
    }
    for name in FAMILIES {
        let fixture = FamilyFixture::load(name);
        check(name, &fixture.model(SPELLINGS[0], DType::F64), &fixture.data);
    }
}

/// A training step's gradient by the decoder's own backward pass against that of the graph, the same elements dropped.
fn check_step(name: &str, model: &PromptClassifier, data: &EncodedDataset, shares: bool) {
    let all: Vec<usize> = (0..data.items.len()).collect();
    let model = set_trainable(model.clone(), &TrainingMode::Lora).unwrap().train();
    for side in [PaddingSide::Left, PaddingSide::Right] {
        let batch = TokenBatch::new(data, &all, side, &model.device(), DType::F64).unwrap();
        let batch = if shares { batch.with_shared_prompts().unwrap() } else { batch };
        let rows = RowKeys::new(all.iter().map(|&item| item as u64).collect(), &batch.token_mask());
        let loss = |logits: Tensor<2>| (logits.clone() * weights(&logits).narrow(0, 0, logits.dims()[0])).sum();
        let mut tape = Tape::dropout(1, 2, rows.clone());
        let graph = GradientsParams::from_grads(loss(model.logits(&batch, &mut tape)).backward(), &model);
        let mut tape = Tape::dropout(1, 2, rows);
        let own = model.gradient(&batch, &mut tape, false, &mut |logits| Ok(loss(logits)));
        let own = own.unwrap().expect("only the adapters train");
        let mut n = 0;
        for linear in model.linears() {
            let Some(adapter) = &linear.adapter else { continue };
            for param in [&adapter.a, &adapter.b] {
                let [found, expected] = [&own, &graph].map(|g| on_host(g.get::<2>(param.id).unwrap()));
                let error = relative_error(&found, &expected);
                // sums of another order over a hundred products
                assert!(error < 1e-11, "{name} {side:?} {}: {error:e}", linear.path);
                n += 1;
            }
        }
        assert_eq!(own.len(), n);
    }
}

#[test]
fn a_step_by_the_decoders_own_backward_pass_is_that_of_the_graph_in_every_family() {
    if !f64_or_skip("a step by the decoder's own backward pass") {
        return;
    }
    let lora = LoraConfig::new(3).with_dropout(0.3).with_target_modules(["q_proj", "k_proj", "down_proj"]);
    for name in FIXTURES {
        let fixture = Fixture::load(name);
        check_step(name, &fixture.model(DType::F64), &fixture.train, false);
        for (data, shares) in
            [(fixture.train.clone(), false), (continuation_dataset(), false), (continuation_dataset(), true)]
        {
            let mut model = attach(fixture.model_for(&data, DType::F64), &lora, 0).unwrap();
            for linear in model.linears_mut() {
                // B is zero before training, and A then without gradient
                let Some(adapter) = &mut linear.adapter else { continue };
                adapter.b =
                    adapter.b.clone().map(|b| b.clone().random_like(burn::tensor::Distribution::Normal(0.0, 0.1)));
            }
            check_step(name, &model, &data, shares);
        }
    }
    for name in FAMILIES {
        let fixture = FamilyFixture::load(name);
        check_step(name, &fixture.model(SPELLINGS[0], DType::F64), &fixture.data, false);
    }
}
