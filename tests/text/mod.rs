//! The rest of a text: its loss against PyTorch, its training, its curvature against an exact oracle, its scores.
//!
//! In f64 on the CPU unless said otherwise.

#![allow(clippy::single_range_in_vec_init, reason = "a text may have one range of scored tokens")]

mod chats;
mod fields;
mod fisher;
mod head;
mod held_out;
mod loss;
mod packing;
mod scores;
mod training;

use crate::support::{device, root};
use bayes_lora::curvature::{CurvatureConfig, CurvatureStructure, FisherKind};
use bayes_lora::data::{BatchLimits, TextDataset, TextExample};
use bayes_lora::likelihood::NextToken;
use bayes_lora::lora::{LoraConfig, attach, load_peft, read_adapter, write_adapter};
use bayes_lora::models::{CausalLm, Pretrained, TextModel};
use burn::tensor::DType;
use std::ops::Range;
use std::path::Path;

const ALL: BatchLimits = BatchLimits { max_items: 64, max_tokens: 100_000 };

fn bare(base: &Path, dtype: DType) -> TextModel {
    TextModel::new(Pretrained::from_dir(base).unwrap().with_dtype(dtype).load(&device()).unwrap())
}

/// A base of the fixtures with its adapter, whose B is not zero.
fn model(base: &Path, adapter: &Path, dtype: DType) -> TextModel {
    load_peft(bare(base, dtype), adapter).unwrap().0
}

/// 96 tokens.
fn llama(dtype: DType) -> TextModel {
    let dir = root().join("tests/fixtures/tiny_llama");
    model(&dir.join("base"), &dir.join("adapter"), dtype)
}

/// 64 tokens, few enough to go through all that could be drawn.
fn mistral() -> TextModel {
    let dir = crate::support::families::dir("mistral");
    model(&dir, &dir.join("adapter"), DType::F64)
}

/// A model with an adapter of rank 2 and alpha 4 on some of its linears that is not at its start.
fn headed(lm: CausalLm, targets: &[&str]) -> TextModel {
    let config = LoraConfig::new(2).with_alpha(4.0).with_target_modules(targets.iter().copied());
    let model = attach(TextModel::new(lm), &config, 3).unwrap();
    let mut weights = read_adapter(&model).unwrap();
    let value = |i: usize| 0.1 * (((i * 37 + 11) % 19) as f64 / 9.5 - 1.0);
    weights.values_mut().for_each(|w| w.iter_mut().enumerate().for_each(|(i, v)| *v += value(i)));
    write_adapter(model, &weights).unwrap()
}

/// Of 64 tokens, with an adapter on queries, or on the output head beside them.
fn small_models() -> [TextModel; 2] {
    [mistral(), headed(bare_mistral().lm, &["q_proj", "lm_head"])]
}

/// The same without an adapter.
fn bare_mistral() -> TextModel {
    bare(&crate::support::families::dir("mistral"), DType::F64)
}

fn text(id: impl ToString, ids: Vec<u32>, scored: &[Range<usize>]) -> TextExample {
    TextExample { id: id.to_string(), ids, scored: scored.to_vec() }
}

/// Texts of several lengths, turns and numbers of scored tokens.
fn texts(vocabulary: usize) -> TextDataset {
    let token = |k: usize| (3 + (k * 37 + 11) % (vocabulary - 3)) as u32;
    let one = |i: usize| {
        let length = 5 + (i * 3) % 7;
        let ids = (0..length).map(|t| token(10 * i + t)).collect();
        let scored = if i.is_multiple_of(3) { vec![1..2, 3..length] } else { vec![length - 1 - i % 3..length] };
        text(format!("text-{i}"), ids, &scored)
    };
    TextDataset::new("texts", (0..7).map(one).collect()).unwrap()
}

fn sampled(structure: CurvatureStructure, n: usize, seed: u64) -> CurvatureConfig {
    let config = CurvatureConfig::new(structure).with_likelihood(NextToken).with_limits(ALL);
    config.with_fisher(FisherKind::Sampled { n, seed })
}
