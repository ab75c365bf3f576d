//! Models from GGUF files against the directories that they were made from.

use super::writer::{Entry, File, Value};
use crate::support::{Fixture, device, logits, relative_error, root};
use bayes_lora::gguf::GgufFile;
use bayes_lora::models::{CausalLm, Pretrained, PromptClassifier, RopeScaling};
use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{DType, Tensor};
use std::path::PathBuf;

pub fn gguf(name: &str) -> PathBuf {
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

/// Shape and bytes of every weight of a model.
pub fn weights(model: &CausalLm) -> Vec<(Vec<usize>, Vec<u8>)> {
    let mut all = Weights::default();
    model.visit(&mut all);
    all.0
}

fn assert_same_weights(found: &CausalLm, expected: &CausalLm, at_least: usize) {
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

#[test]
fn a_qwen3_under_the_names_of_llama_cpps_package_is_the_model_of_its_directory_bit_by_bit() {
    let (fixture, dir) = (root().join("tests/fixtures/families/qwen3"), tempfile::tempdir().unwrap());
    let text = std::fs::read_to_string(fixture.join("config.json")).unwrap();
    let mut config: serde_json::Value = serde_json::from_str(&text).unwrap();
    config["attention_bias"] = false.into();
    config["use_sliding_window"] = false.into();
    config["tie_word_embeddings"] = true.into();
    config["layer_types"] = serde_json::Value::Null;
    config["rope_parameters"] = serde_json::json!({"rope_type": "default", "rope_theta": 1e4});
    std::fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
    let bytes = std::fs::read(fixture.join("model.safetensors")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let is_left = |name: &str| !name.ends_with(".bias") && name != "lm_head.weight";
    let weights = file.tensors().into_iter().filter(|(name, _)| is_left(name));
    std::fs::write(dir.path().join("model.safetensors"), safetensors::serialize(weights, None).unwrap()).unwrap();
    let found = Pretrained::from_gguf(gguf("tiny_qwen3")).unwrap().load(&device()).unwrap();
    let expected = Pretrained::from_dir(dir.path()).unwrap().load(&device()).unwrap();
    assert_eq!(found.config(), expected.config());
    assert_same_weights(&found, &expected, 20);
}

/// `tiny_llama.gguf` written anew in f32, with more tensors of zeros.
fn tiny_with(more: &[(&'static str, usize)]) -> Vec<u8> {
    let mut old = GgufFile::open(gguf("tiny_llama")).unwrap();
    let (mut tensors, mut data): (Vec<Entry>, Vec<u8>) = Default::default();
    let mut put = |name: &'static str, shape: &[usize], values: &[f32]| {
        data.resize(data.len().next_multiple_of(32), 0);
        tensors.push((name, shape.iter().rev().map(|n| *n as u64).collect(), 0, data.len() as u64));
        data.extend(values.iter().flat_map(|v| v.to_le_bytes()));
    };
    for name in old.names() {
        let shape = old.shape(&name).unwrap().to_vec();
        let values = old.values(&name).unwrap();
        put(name.leak(), &shape, &values);
    }
    more.iter().for_each(|(name, n)| put(name, &[*n], &vec![0.0; *n]));
    let counts = [
        ("context_length", 64),
        ("embedding_length", 32),
        ("block_count", 2),
        ("feed_forward_length", 48),
        ("attention.head_count", 4),
        ("attention.head_count_kv", 2),
    ];
    let mut file = File { tensors, data, ..File::default() }
        .with("llama.attention.layer_norm_rms_epsilon", Value::F32(1e-6))
        .with("llama.rope.freq_base", Value::F32(1e4));
    for (key, n) in counts {
        file = file.with(&format!("llama.{key}"), Value::U32(n));
    }
    file.bytes()
}

#[test]
fn tensors_that_nobody_asks_for_are_reported_or_refused_where_logits_depend_on_them() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.gguf");
    let load = |more: &[(&'static str, usize)]| {
        std::fs::write(&path, tiny_with(more)).unwrap();
        Pretrained::from_gguf(&path)?.load_with_report(&device())
    };
    let (model, report) = load(&[]).unwrap();
    assert!(report.is_empty(), "{report}");
    assert_same_weights(&model, &both("tiny_llama", DType::F32)[1], 20);
    let (_, report) = load(&[("cls.output.weight", 8)]).unwrap();
    assert_eq!((report.unread_tensors.as_slice(), &report.location), (&["cls.output.weight".to_string()][..], &path));
    for (name, part) in [
        ("blk.1.attn_k.bias", "bias that the configuration does not declare"),
        ("blk.2.attn_norm.weight", "beyond the 2"),
        ("blk.0.attn_q_norm.weight", "does not compute"),
        ("output.bias", "bias"),
    ] {
        let error = load(&[(name, 32)]).unwrap_err().to_string();
        for part in ["m.gguf", name, part] {
            assert!(error.contains(part), "{error}");
        }
    }
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
