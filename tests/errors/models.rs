//! Checkpoints.

use super::{Tensors, check, spoilt, with_field, with_tensors, zeros};
use crate::support::device;
use bayes_lora::error::Result;
use bayes_lora::models::{DecoderConfig, Pretrained};
use serde_json::{Value, json};
use std::path::Path;

const UP_PROJ: &str = "model.layers.1.mlp.up_proj.weight";

fn load(spoil: impl FnOnce(&Path)) -> Result<()> {
    let dir = spoilt("base", spoil);
    Pretrained::from_dir(dir.path())?.load(&device()).map(|_| ())
}

fn with_config(field: &str, value: Value) -> impl FnOnce(&Path) {
    with_field("config.json", field, value)
}

fn with_weights(edit: impl FnOnce(&mut Tensors)) -> impl FnOnce(&Path) {
    with_tensors("model.safetensors", edit)
}

fn with_bytes(edit: impl FnOnce(Vec<u8>) -> Vec<u8>) -> impl FnOnce(&Path) {
    move |dir| {
        let path = dir.join("model.safetensors");
        std::fs::write(&path, edit(std::fs::read(&path).unwrap())).unwrap();
    }
}

/// A file of eight zeros under a header.
fn with_header(header: &str) -> impl FnOnce(&Path) {
    with_bytes(move |_| [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &[0; 8]].concat())
}

/// An index that names one shard, in place of the weights.
fn with_shard(file: &str) -> impl FnOnce(&Path) {
    move |dir: &Path| {
        std::fs::remove_file(dir.join("model.safetensors")).unwrap();
        let index = json!({"weight_map": {"lm_head.weight": file}});
        std::fs::write(dir.join("model.safetensors.index.json"), index.to_string()).unwrap();
    }
}

#[test]
fn a_bad_checkpoint_is_refused_by_name_and_numbers() {
    check(&[
        ("config.json is missing", || load(|d| std::fs::remove_file(d.join("config.json")).unwrap()), &["config.json"]),
        (
            "config.json is no JSON",
            || load(|d| std::fs::write(d.join("config.json"), "{\"a\"").unwrap()),
            &["config.json", "line 1"],
        ),
        (
            "an unsupported family",
            || load(with_config("model_type", json!("mamba"))),
            &["model_type", "mamba", "llama, qwen2"],
        ),
        (
            "an unsupported rope type",
            || load(with_config("rope_parameters", json!({"rope_type": "dynamic", "rope_theta": 1e4}))),
            &["rope_type", "dynamic", "llama3"],
        ),
        (
            "a rope type that is not computed in the place that transformers would not read",
            || load(with_config("rope_scaling", json!({"type": "dynamic", "factor": 4.0}))),
            &["rope_scaling.rope_type", "dynamic", "llama3"],
        ),
        (
            "rope scaling said twice",
            || load(with_config("rope_scaling", json!({"type": "linear", "factor": 4.0}))),
            &["`rope_scaling` is", "`rope_parameters` is", "4.0", "10000.0"],
        ),
        (
            "key heads that do not divide",
            || load(with_config("num_key_value_heads", json!(3))),
            &["num_key_value_heads", "= 4", "got 3"],
        ),
        ("no layers", || load(with_config("num_hidden_layers", json!(0))), &["num_hidden_layers", "from 1", "got 0"]),
        (
            "more layers than weights",
            || load(with_config("num_hidden_layers", json!(3))),
            &["model.layers.2.", "missing"],
        ),
        (
            "an activation of another kind",
            || load(with_config("hidden_act", json!("relu"))),
            &["hidden_act", "relu", "silu"],
        ),
        (
            "no weights at all",
            || load(|d| std::fs::remove_file(d.join("model.safetensors")).unwrap()),
            &["model.safetensors"],
        ),
        ("a missing tensor", || load(with_weights(|t| drop(t.remove(UP_PROJ).unwrap()))), &[UP_PROJ, "missing"]),
        (
            "a tensor of another shape",
            || load(with_weights(|t| drop(t.insert(UP_PROJ.into(), zeros(&[47, 32]))))),
            &[UP_PROJ, "expected shape [48, 32]", "found [47, 32]", "model.safetensors"],
        ),
        (
            "a config of another width",
            || load(with_config("hidden_size", json!(40))),
            &["embed_tokens", "[96, 40]", "[96, 32]"],
        ),
        (
            "NaN in the weights",
            || {
                load(with_weights(|t| {
                    let data = &mut t.get_mut(UP_PROJ).unwrap().1;
                    data[..8].copy_from_slice(&[f32::NAN.to_le_bytes(), f32::INFINITY.to_le_bytes()].concat());
                }))
            },
            &[UP_PROJ, "2 of 1536"],
        ),
        ("a truncated file", || load(with_bytes(|b| b[..b.len() - 100].to_vec())), &["needs 88760", "has 88660"]),
        ("a file of five bytes", || load(with_bytes(|b| b[..5].to_vec())), &["needs 8", "has 5"]),
        (
            "a header longer than the file",
            || load(with_bytes(|_| [&1_000_000u64.to_le_bytes()[..], b"{}"].concat())),
            &["needs 1000008", "has 10"],
        ),
        (
            "a header longer than any",
            || load(with_bytes(|_| u64::MAX.to_le_bytes().to_vec())),
            &["18446744073709551615", "100000000"],
        ),
        ("a header that is no JSON", || load(with_bytes(|_| [&4u64.to_le_bytes()[..], b"}{}{"].concat())), &["header"]),
        (
            "a tensor whose bytes do not fit its shape",
            || load(with_header(r#"{"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}}"#)),
            &["header"],
        ),
        (
            "offsets that run backwards",
            || load(with_header(r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}}"#)),
            &["header"],
        ),
        (
            "a shard outside the directory",
            || load(with_shard("../elsewhere.safetensors")),
            &["index.json", "lm_head.weight", "../elsewhere.safetensors"],
        ),
        ("a shard that is missing", || load(with_shard("part-2.safetensors")), &["part-2.safetensors"]),
        (
            "rope scaling without its factor",
            || {
                let text = r#"{"model_type": "llama", "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1,
                "num_attention_heads": 1, "vocab_size": 9, "max_position_embeddings": 9, "rms_norm_eps": 1e-5,
                "rope_scaling": {"rope_type": "linear"}}"#;
                DecoderConfig::from_json(text, "there/config.json").map(|_| ())
            },
            &["there/config.json", "factor"],
        ),
    ]);
}
