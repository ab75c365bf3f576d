//! Models from GGUF files against the directories that they were made from.

use crate::support::{Fixture, device, logits, relative_error, root};
use bayes_lora::models::{CausalLm, Pretrained, PromptClassifier, RopeScaling};
use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{DType, Tensor};
use std::path::PathBuf;

fn gguf(name: &str) -> PathBuf {
    root().join("tests/fixtures/gguf").join(format!("{name}.gguf"))
}

fn base(name: &str) -> PathBuf {
    root().join("tests/fixtures").join(name).join("base")
}

/// Shape and bytes of every weight, in the model's order.
#[derive(Default)]
struct Weights(Vec<(Vec<usize>, Vec<u8>)>);

impl ModuleVisitor for Weights {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let data = param.val().into_data();
        self.0.push((data.shape().to_vec(), data.as_bytes().to_vec()));
    }
}

fn assert_same_weights(found: &CausalLm, expected: &CausalLm, at_least: usize) {
    let weights = |model: &CausalLm| {
        let mut all = Weights::default();
        model.visit(&mut all);
        all.0
    };
    let (found, expected) = (weights(found), weights(expected));
    assert!(expected.len() >= at_least, "only {} weights were visited", expected.len());
    assert_eq!(found.len(), expected.len());
    for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
        assert_eq!(found.0, expected.0, "shape of weight {i}");
        assert!(found.1 == expected.1, "weight {i} of shape {:?} differs", found.0);
    }
}

fn both(name: &str, dtype: DType) -> [CausalLm; 2] {
    let from_gguf = Pretrained::from_gguf(gguf(name)).unwrap();
    let from_dir = Pretrained::from_dir(base(name)).unwrap();
    [from_gguf, from_dir].map(|p| p.with_dtype(dtype).load(&device()).unwrap())
}

#[test]
fn the_tiny_models_have_the_weights_and_logits_of_their_directories_bit_by_bit() {
    for name in ["tiny_llama", "tiny_qwen2"] {
        let [found, expected] = both(name, DType::F32);
        assert_eq!(found.config(), expected.config(), "{name}");
        assert_same_weights(&found, &expected, 20);
        let data = Fixture::load(name).train;
        let [found, expected] = [found, expected].map(|lm| logits(&PromptClassifier::new(lm, &data).unwrap(), &data));
        assert_eq!(found, expected, "{name}");
    }
}

#[test]
fn a_tied_bf16_model_with_biases_and_rotary_factors_is_the_same_model() {
    for dtype in [DType::F32, DType::BF16] {
        let [found, expected] = both("tiny_llama_variant", dtype);
        assert_same_weights(&found, &expected, 20);
    }
    let [found, expected] = both("tiny_llama_variant", DType::F32);
    let (a, b) = (found.config(), expected.config());
    assert!(a.tied_head && a.qkv_bias && a.output_bias && !a.mlp_bias);
    assert_eq!((a.norm_eps, a.rope_theta, a.head_dim), (b.norm_eps, b.rope_theta, b.head_dim));
    assert!(matches!(&a.rope_scaling, RopeScaling::Factors(factors) if factors.len() == 8));
    let data = Fixture::load("tiny_llama").train;
    let [found, expected] = [found, expected].map(|lm| logits(&PromptClassifier::new(lm, &data).unwrap(), &data));
    // the file holds the factors in f32: angles differ by 6e-8 of themselves, logits by a few roundings
    assert!(relative_error(&found, &expected) < 1e-5);
}

/// `BAYES_LORA_SMOLLM2_GGUF` is the Q4_1 file of SmolLM2-135M-Instruct, `BAYES_LORA_SMOLLM2_DIR` the directory in f32 that
/// llama.cpp's package made of it.
#[test]
fn smollm2_has_the_weights_of_the_converted_directory_bit_by_bit() {
    let place = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let (Some(file), Some(dir)) = (place("BAYES_LORA_SMOLLM2_GGUF"), place("BAYES_LORA_SMOLLM2_DIR")) else {
        println!("SKIPPED: BAYES_LORA_SMOLLM2_GGUF and BAYES_LORA_SMOLLM2_DIR are not set");
        return;
    };
    let (from_gguf, from_dir) = (Pretrained::from_gguf(file).unwrap(), Pretrained::from_dir(dir).unwrap());
    assert_eq!(from_gguf.config(), from_dir.config());
    assert_same_weights(&from_gguf.load(&device()).unwrap(), &from_dir.load(&device()).unwrap(), 272);
}
