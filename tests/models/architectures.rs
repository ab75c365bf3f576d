//! A checkpoint as newer transformers writes it (bf16 shards, llama3 rotary scaling, tied head, biases) gives its logits.
//!
//! Made by `tests/fixtures/make_variant.py`; the Qwen2 family is held to its fixture in `tests/parity.rs`.

use crate::support::{device, relative_error, root};
use bayes_lora::belief::LogitBelief;
use bayes_lora::data::{BatchLimits, EncodedDataset, EncodedItem, EncodedRow, ResolvedAnswers};
use bayes_lora::lora::{Adaptable, LoraConfig, attach, merge, summarize};
use bayes_lora::models::{Pretrained, PromptClassifier, RopeScaling};
use bayes_lora::predict::predict_map;
use bayes_lora::progress::Control;
use ndarray::Array2;
use safetensors::SafeTensors;

const LIMITS: BatchLimits = BatchLimits { max_items: 2, max_tokens: 1000 };

/// The variant's two sequences, asked for all 96 tokens of the vocabulary.
fn dataset() -> EncodedDataset {
    let text = std::fs::read_to_string(root().join("tests/fixtures/tiny_llama_variant/ids.json")).unwrap();
    let rows: Vec<Vec<u32>> = serde_json::from_str(&text).unwrap();
    let items = rows.into_iter().enumerate().map(|(i, ids)| EncodedItem {
        id: i.to_string(),
        rows: vec![EncodedRow { ids, scored: 0..0, weight: 1.0, types: Vec::new() }],
        label: Some(0),
        n_choices: 96,
    });
    EncodedDataset {
        name: "variant".into(),
        items: items.collect(),
        answers: ResolvedAnswers::ClassTokens((0..96).collect()),
        n_classes: 96,
        n_truncated: 0,
        asked: None,
    }
}

fn model() -> PromptClassifier {
    let checkpoint = Pretrained::from_dir(root().join("tests/fixtures/tiny_llama_variant/base")).unwrap();
    assert!(matches!(checkpoint.config().rope_scaling, RopeScaling::Llama3 { factor: 4.0, .. }));
    assert!(checkpoint.config().tied_head && checkpoint.config().qkv_bias && checkpoint.config().output_bias);
    PromptClassifier::new(checkpoint.load(&device()).unwrap(), &dataset()).unwrap()
}

fn logits(model: &PromptClassifier) -> Array2<f64> {
    match predict_map(model, &dataset(), &LIMITS, &Control::silent()).unwrap() {
        LogitBelief::Point { logits } => logits,
        other => panic!("a point was expected, not {other:?}"),
    }
}

#[test]
fn bf16_shards_with_scaled_rotation_tied_head_and_biases_give_the_logits_of_transformers() {
    let bytes = std::fs::read(root().join("tests/fixtures/tiny_llama_variant/expected.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let values = file
        .tensor("last_logits")
        .unwrap()
        .data()
        .chunks_exact(8)
        .map(|b| f64::from_le_bytes(b.try_into().unwrap()))
        .collect();
    let expected = Array2::from_shape_vec((2, 96), values).unwrap();
    let error = relative_error(&logits(&model()), &expected);
    println!("variant logits: {error:.1e}");
    assert!(error < 1e-4); // f32 against f64 on the same bf16 weights
}

#[test]
fn a_tied_head_can_be_adapted_and_merged_without_moving_the_embedding() {
    let plain = logits(&model());
    let config = LoraConfig::new(2).with_target_modules(["lm_head"]);
    let adapted = attach(model(), &config, 0).unwrap();
    assert_eq!(summarize(&adapted).n_adapter, 2 * (32 + 96));
    assert_eq!(logits(&adapted), plain); // B starts at zero
    let mut weights = bayes_lora::lora::read_adapter(&adapted).unwrap();
    weights.values_mut().for_each(|w| w.mapv_inplace(|v| v + 0.1));
    let moved = bayes_lora::lora::write_adapter(adapted, &weights).unwrap();
    let expected = logits(&moved);
    assert!(relative_error(&expected, &plain) > 1e-2);
    let merged = merge(moved);
    assert!(merged.linears().iter().all(|l| l.adapter.is_none()));
    assert!(relative_error(&logits(&merged), &expected) < 1e-4); // W₀ + sBA is rounded once more in f32
}
