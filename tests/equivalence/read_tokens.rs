//! What the last layer leaves out is what nobody reads: outputs and gradients are those of all tokens.

use crate::support::families::{FAMILIES, FamilyFixture, SPELLINGS};
use crate::support::{f64_or_skip, on_host, relative_error};
use bayes_lora::data::{EncodedDataset, PaddingSide, ResolvedAnswers};
use bayes_lora::lora::{Adaptable, LoraConfig, attach};
use bayes_lora::models::{Classifier, ClassifierInput, PromptClassifier, TokenBatch};
use bayes_lora::tape::{RowKeys, Tape};
use bayes_lora::train::{TrainingMode, set_trainable};
use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::{DType, Distribution, Int, Tensor, TensorData};
use ndarray::Array2;

fn indices(values: Vec<i64>, model: &PromptClassifier) -> Tensor<1, Int> {
    let n = values.len();
    Tensor::from_data(TensorData::new(values, [n]), &model.device().without_autodiff())
}

/// Class logits from the final states of all tokens.
fn from_all_tokens(model: &PromptClassifier, batch: &TokenBatch, classes: &[u32]) -> Tensor<2> {
    let mask = batch.token_mask();
    let last = |(r, row): (usize, ndarray::ArrayView1<bool>)| {
        (r * row.len() + row.iter().rposition(|real| *real).unwrap()) as i64
    };
    let last = indices(mask.outer_iter().enumerate().map(last).collect(), model);
    let columns = indices(classes.iter().map(|id| i64::from(*id)).collect(), model);
    let hidden = model.lm.hidden(batch, &mut Tape::off());
    model.lm.head(hidden.select(0, last), Some(&columns), &mut Tape::off())
}

/// A loss with another slope at every logit, of items from `first` on.
pub(super) fn loss(logits: Tensor<2>, first: usize) -> Tensor<1> {
    let [n, classes] = logits.dims();
    let slope = |i: usize| (1.3 * (7 * (first + i / classes) + i % classes) as f64).sin();
    let weights: Vec<f64> = (0..n * classes).map(slope).collect();
    let on = (&logits.device().without_autodiff(), logits.dtype());
    (logits * Tensor::from_data(TensorData::new(weights, [n, classes]), on)).sum()
}

/// Adapters on the linears that one of `parts` ends, after some training.
pub(super) fn adapted(bare: PromptClassifier, parts: &[&str]) -> PromptClassifier {
    let mut model = attach(bare, &LoraConfig::new(2), 0).unwrap();
    for linear in model.linears_mut() {
        linear.adapter = linear.adapter.take().filter(|_| parts.iter().any(|part| linear.path.ends_with(part)));
        let Some(adapter) = &mut linear.adapter else { continue };
        // B is zero before training, and A then without gradient
        adapter.b = adapter.b.clone().map(|b| b.clone().random_like(Distribution::Normal(0.0, 0.1)));
    }
    set_trainable(model, &TrainingMode::Lora).unwrap().train()
}

pub(super) fn of_adapters(model: &PromptClassifier, gradients: &GradientsParams) -> Vec<Array2<f64>> {
    let adapters = model.linears().into_iter().filter_map(|linear| linear.adapter.as_ref());
    adapters.flat_map(|adapter| [adapter.a.id, adapter.b.id]).map(|id| on_host(gradients.get(id).unwrap())).collect()
}

fn check(name: &str, model: &PromptClassifier, data: &EncodedDataset) {
    let ResolvedAnswers::ClassTokens(classes) = &data.answers else { panic!("{name}") };
    let all: Vec<usize> = (0..data.items.len()).collect();
    for side in [PaddingSide::Left, PaddingSide::Right] {
        let batch = TokenBatch::new(data, &all, side, &model.device(), DType::F64).unwrap();
        let expected = from_all_tokens(model, &batch, classes);
        let found = model.logits(&batch, &mut Tape::off());
        let error = relative_error(&on_host(found.clone()), &on_host(expected.clone()));
        assert!(error < 1e-12, "{name} {side:?}: {error:e}");

        let gradients = |logits| GradientsParams::from_grads(loss(logits, 0).backward(), model);
        let expected = of_adapters(model, &gradients(expected));
        let keys = RowKeys::new(vec![0; data.items.len()], &batch.token_mask());
        let own = |mut tape: Tape| {
            model.gradient(&batch, &mut tape, false, &mut |logits| Ok(loss(logits, 0))).unwrap().unwrap()
        };
        for (found, how) in [
            (gradients(found), "a graph"),
            (own(Tape::off()), "its own pass"),
            (own(Tape::dropout(0, 0, keys)), "a dropout of 0"),
        ] {
            for (found, expected) in of_adapters(model, &found).iter().zip(&expected) {
                let error = relative_error(found, expected);
                // sums of another order over a hundred products
                assert!(error < 1e-11, "{name} {side:?} by {how}: {error:e}");
            }
        }
    }
}

#[test]
fn the_last_layer_leaves_out_what_nobody_reads_in_every_family() {
    if !f64_or_skip("read tokens") {
        return;
    }
    for name in FAMILIES {
        let fixture = FamilyFixture::load(name);
        let bare = fixture.bare(SPELLINGS[0], DType::F64);
        for parts in [&["q_proj", "qkv_proj", "v_proj"][..], &["k_proj", "qkv_proj", "o_proj", "up_proj", "down_proj"]]
        {
            check(&format!("{name} {parts:?}"), &adapted(bare.clone(), parts), &fixture.data);
        }
    }
}
