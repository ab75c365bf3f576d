//! Files of PEFT that ask for what is not computed, contradict themselves, or belong to another model.

use super::{NAME, Tensors, adapted, check, spoilt, with_field, with_tensors, zeros};
use crate::support::Fixture;
use bayes_lora::error::Result;
use bayes_lora::lora::{LoraConfig, attach, load_peft, save_peft};
use bayes_lora::models::PromptClassifier;
use burn::tensor::DType;
use serde_json::{Value, json};
use std::path::Path;

const CONFIG: &str = "adapter_config.json";
const A: &str = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight";

fn bare() -> PromptClassifier {
    Fixture::load(NAME).bare(DType::F32)
}

fn load(spoil: impl FnOnce(&Path)) -> Result<()> {
    load_peft(bare(), spoilt("adapter", spoil).path()).map(|_| ())
}

fn field(field: &str, value: Value) -> Result<()> {
    load(with_field(CONFIG, field, value))
}

fn fields(values: Value) -> Result<()> {
    load(|dir| {
        for (name, value) in values.as_object().unwrap() {
            with_field(CONFIG, name, value.clone())(dir);
        }
    })
}

fn weights(edit: impl FnOnce(&mut Tensors)) -> Result<()> {
    load(with_tensors("adapter_model.safetensors", edit))
}

fn save(edit: impl FnOnce(&mut LoraConfig)) -> Result<()> {
    let (model, mut config) = load_peft(bare(), Fixture::load(NAME).dir().join("adapter"))?;
    edit(&mut config);
    save_peft(&model, &config, "base", tempfile::tempdir().unwrap().path())
}

fn fresh(edit: impl FnOnce(&mut LoraConfig)) -> Result<()> {
    let mut config = LoraConfig::new(2).with_target_modules(["q_proj"]);
    edit(&mut config);
    attach(bare(), &config, 0).map(|_| ())
}

#[test]
fn what_is_not_computed_is_refused_by_name() {
    // every field of PEFT 0.21's LoraConfig that is neither read nor information, with a value that is not its default
    for (name, value, feature) in [
        ("use_dora", json!(true), "DoRA"),
        ("use_qalora", json!(true), "QALoRA"),
        ("lora_bias", json!(true), "a bias of B"),
        ("layer_replication", json!([[0, 1], [0, 2]]), "replicated layers"),
        ("trainable_token_indices", json!([1, 2]), "trainable tokens"),
        ("target_parameters", json!(["mlp.experts.gate_up_proj"]), "parameters"),
        ("alora_invocation_tokens", json!([5, 6]), "activated LoRA"),
        ("velora_config", json!({"num_groups": 4}), "VeLoRA"),
        ("monteclora_config", json!({"num_samples": 8}), "MonteCLoRA"),
        ("use_bdlora", json!({"nblocks": 2}), "block-diagonal LoRA"),
        ("arrow_config", json!({"top_k": 3}), "Arrow"),
        ("kasa_config", json!({"beta": 0.1}), "KaSA"),
        ("megatron_config", json!({"tp": 2}), "Megatron"),
        ("a_field_of_next_year", json!("on"), "unknown"),
        ("a_field_of_next_year", json!(0), "unknown"),
        // names of this crate that PEFT would ignore
        ("rank", json!(2), "unknown"),
    ] {
        let error = field(name, value.clone()).unwrap_err().to_string();
        for part in [CONFIG, name, feature, &value.to_string()] {
            assert!(error.contains(part), "«{error}» lacks `{part}`");
        }
        // and is harmless while it is off
        for off in [json!(null), json!(false), json!([]), json!({}), json!("")] {
            assert!(field(name, off.clone()).is_ok(), "{name} = {off}");
        }
    }
    for kind in ["LOHA", "LOKR", "ADALORA", "IA3", "PVERA", "VERA", "OFT", "PREFIX_TUNING", "TRAINABLE_TOKENS"] {
        let error = field("peft_type", json!(kind)).unwrap_err().to_string();
        assert!(error.contains("peft_type") && error.contains(kind) && error.contains("LORA"), "{error}");
    }
    for start in ["pissa", "pissa_niter_16", "olora", "corda", "loftq", "lora_ga", "of_next_year"] {
        let error = field("init_lora_weights", json!(start)).unwrap_err().to_string();
        for part in [CONFIG, "init_lora_weights", start, "gaussian", "path_initial_model_for_weight_conversion"] {
            assert!(error.contains(part), "«{error}» lacks `{part}`");
        }
    }
}

#[test]
fn what_says_nothing_about_a_trained_adapter_is_harmless() {
    for (name, value) in [
        ("task_type", json!("SEQ_2_SEQ_LM")),
        ("base_model_name_or_path", json!("somebody/model")),
        ("revision", json!("main")),
        ("inference_mode", json!(false)),
        ("peft_version", json!("0.7.0")),
        ("auto_mapping", json!({"base_model_class": "Mine"})),
        ("auto_mapping", json!(null)),
        ("init_lora_weights", json!("gaussian")),
        ("init_lora_weights", json!("Gaussian")),
        ("init_lora_weights", json!("orthogonal")),
        ("init_lora_weights", json!("eva")),
        ("init_lora_weights", json!("mica")),
        ("init_lora_weights", json!(false)),
        ("init_lora_weights", json!(null)),
        // settings of a start that `init_lora_weights` does not name, or of one that leaves the base as it is
        ("eva_config", json!({"rho": 2.0})),
        ("corda_config", json!({"corda_method": "ipm"})),
        ("lora_ga_config", json!({"direction": "ArB2r"})),
        ("loftq_config", json!({"loftq_bits": 4})),
        ("ensure_weight_tying", json!(true)),
        ("megatron_core", json!("megatron.core")),
        ("qalora_group_size", json!(32)),
        ("runtime_config", json!({"ephemeral_gpu_offload": false})),
        ("bias", json!(null)),
        ("rank_pattern", json!(null)),
        ("layers_pattern", json!([])),
        ("modules_to_save", json!([])),
        ("fan_in_fan_out", json!(true)),
    ] {
        field(name, value.clone()).unwrap_or_else(|error| panic!("{name} = {value}: {error}"));
    }
}

#[test]
fn a_configuration_that_contradicts_itself_is_refused_by_name() {
    check(&[
        ("a rank that is no number", || field("r", json!("four")), &[CONFIG, "`r`", "four"]),
        ("a rank with a fraction", || field("r", json!(4.5)), &["`r`", "4.5"]),
        ("a negative rank", || field("rank_pattern", json!({"q_proj": -1})), &["`rank_pattern`", "-1"]),
        ("no targets", || field("target_modules", json!(null)), &["target_modules"]),
        ("targets that are no names", || field("target_modules", json!([1])), &["`target_modules`", "[1]"]),
        ("an empty list of targets", || field("target_modules", json!([])), &["target_modules", "empty"]),
        ("targets that the model lacks", || field("target_modules", json!(["query"])), &["query", "15 linear modules"]),
        (
            "a target pattern that is none",
            || field("target_modules", json!("(")),
            &[CONFIG, "target_modules", "regular"],
        ),
        (
            "a target pattern that takes for ever",
            || field("target_modules", json!("(?!x)(.+)+!")),
            &[CONFIG, "target_modules", "`(?!x)(.+)+!`", "model.layers.0.self_attn.q_proj", "steps"],
        ),
        (
            "a rank pattern that takes for ever",
            || field("rank_pattern", json!({"(.+)+!": 2})),
            &[CONFIG, "rank_pattern[(.+)+!]", "steps"],
        ),
        (
            "a name to save that is no pattern",
            || field("modules_to_save", json!(["lm_head", "("])),
            &[CONFIG, "modules_to_save", "regular"],
        ),
        ("an exclusion that is none", || field("exclude_modules", json!("(")), &["exclude_modules", "regular"]),
        ("a rank pattern that is none", || field("rank_pattern", json!({"(": 2})), &["rank_pattern[(]", "regular"]),
        ("an alpha pattern that is none", || field("alpha_pattern", json!({"(": 2})), &["alpha_pattern[(]", "regular"]),
        ("an alpha of zero", || field("alpha_pattern", json!({"q_proj": 0})), &["alpha_pattern[q_proj]", "positive"]),
        ("an unknown kind of bias", || field("bias", json!("some")), &["`bias`", "some"]),
        (
            "layers that are no numbers",
            || field("layers_to_transform", json!(["1"])),
            &["`layers_to_transform`", "\"1\""],
        ),
        (
            "layers beside a pattern of targets",
            || fields(json!({"target_modules": ".*q_proj", "layers_to_transform": [0]})),
            &["layers_to_transform", "[0]", "target_modules"],
        ),
        (
            "a pattern of layers beside a pattern of targets",
            || fields(json!({"target_modules": "all-linear", "layers_pattern": "layers"})),
            &["layers_pattern", "layers", "target_modules"],
        ),
        (
            "a pattern of layers without layers",
            || field("layers_pattern", json!("layers")),
            &["layers_pattern", "layers_to_transform"],
        ),
        (
            "a pattern of layers that is none",
            || fields(json!({"layers_to_transform": [0], "layers_pattern": "("})),
            &["layers_pattern", "regular"],
        ),
        (
            "layers that the model lacks",
            || field("layers_to_transform", json!([7])),
            &["q_proj, v_proj", "none of the 15 linear modules"],
        ),
        (
            "a saved module whose orientation is unknown",
            || fields(json!({"fan_in_fan_out": true, "modules_to_save": ["lm_head"]})),
            &["fan_in_fan_out", "modules_to_save"],
        ),
        (
            "a saved module that the model lacks",
            || field("modules_to_save", json!(["lm_head", "wte"])),
            &["modules_to_save", "wte", "lm_head", "model.embed_tokens"],
        ),
        (
            "a saved head that the model lacks",
            || field("modules_to_save", json!(["score", "classifier"])),
            &["modules_to_save", "score"],
        ),
        ("no object", || load(|d| std::fs::write(d.join(CONFIG), "[1]").unwrap()), &[CONFIG, "map"]),
        (
            "an endless configuration",
            || load(|d| std::fs::write(d.join(CONFIG), " ".repeat(17 << 20)).unwrap()),
            &[CONFIG, "16777216"],
        ),
    ]);
}

#[test]
fn tensors_that_do_not_fit_are_all_listed_with_their_shapes() {
    check(&[
        (
            "missing, unexpected and misshapen at once",
            || {
                weights(|t| {
                    t.remove(A).unwrap();
                    t.insert(A.replace("layers.0", "layers.1"), zeros(&[5, 32]));
                    t.insert("base_model.model.lm_head.lora_A.weight".into(), zeros(&[4, 32]));
                    t.insert("lora_magnitude_vector".into(), zeros(&[7]));
                })
            },
            &[
                "adapter_model.safetensors",
                "1 missing: base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight [4, 32]",
                "2 unexpected: ",
                "lora_magnitude_vector [7]",
                "base_model.model.lm_head.lora_A.weight [4, 32]",
                "1 of another shape: ",
                "layers.1.self_attn.q_proj.lora_A.weight expected [4, 32], found [5, 32]",
            ],
        ),
        (
            "more than an error lists",
            || weights(|t| (0..40).for_each(|i| drop(t.insert(format!("x.{i:02}.weight"), zeros(&[1]))))),
            &["40 unexpected", "x.00.weight [1]", "x.15.weight [1] and 24 more"],
        ),
        (
            "two adapters in a file",
            || {
                weights(|t| {
                    let other = A.replace("lora_A.weight", "lora_A.second.weight");
                    t.insert(other, t[A].clone());
                })
            },
            &[A, "lora_A.second.weight", "same tensor"],
        ),
        (
            "biases of a model that has none",
            || {
                let dir = spoilt("adapter", |d| {
                    with_field(CONFIG, "bias", json!("lora_only"))(d);
                    let bias = A.replace("lora_A.weight", "base_layer.bias");
                    with_tensors("adapter_model.safetensors", |t| drop(t.insert(bias, zeros(&[32]))))(d);
                });
                load_peft(bare(), dir.path()).map(|_| ())
            },
            &["1 unexpected", "q_proj.base_layer.bias [32]"],
        ),
        (
            "a head that is listed and not there",
            || field("modules_to_save", json!(["lm_head"])),
            &["1 missing: base_model.model.lm_head.weight [96, 32]"],
        ),
        (
            "a norm that is there and not listed",
            || weights(|t| drop(t.insert("base_model.model.model.norm.weight".into(), zeros(&[32])))),
            &["1 unexpected: base_model.model.model.norm.weight [32]"],
        ),
        (
            "a norm that is listed and not there",
            || field("modules_to_save", json!(["model.norm"])),
            &["1 missing: base_model.model.model.norm.weight [32]"],
        ),
        (
            "a resized embedding without its head",
            || weights(|t| drop(t.insert("base_model.model.model.embed_tokens.weight".into(), zeros(&[100, 32])))),
            &["adapter_model.safetensors", "`model.embed_tokens` would have 100 rows", "`lm_head` 96"],
        ),
        (
            "a value that is not finite",
            || weights(|t| t.get_mut(A).unwrap().1[..4].copy_from_slice(&f32::NAN.to_le_bytes())),
            &[A, "1 of 128"],
        ),
        (
            "an adapter on an adapter",
            || load_peft(adapted(), Fixture::load(NAME).dir().join("adapter")).map(|_| ()),
            &["model.layers.0.self_attn.q_proj", "already has an adapter", "clone"],
        ),
    ]);
}

#[test]
fn an_adapter_is_not_saved_under_a_configuration_that_does_not_describe_it() {
    check(&[
        ("another rank", || save(|c| c.rank = 3), &["rank 3", "rank 4", "q_proj"]),
        ("another scale", || save(|c| c.alpha = 3.0), &["scale 0.75", "scale 2", "q_proj"]),
        ("fewer targets", || save(|c| *c = c.clone().with_target_modules(["q_proj"])), &["v_proj", "does not target"]),
        (
            "more targets",
            || save(|c| *c = c.clone().with_target_modules(["q_proj", "v_proj", "o_proj"])),
            &["o_proj", "has no adapter"],
        ),
        (
            "other layers",
            || save(|c| *c = c.clone().with_layers_to_transform([0])),
            &["model.layers.1.self_attn.q_proj", "target"],
        ),
        (
            "trained biases of a fresh adapter",
            || fresh(|c| c.bias = bayes_lora::lora::TrainedBiases::All),
            &["bias", "none", "All"],
        ),
        (
            "whole modules of a fresh adapter",
            || fresh(|c| c.modules_to_save = Some(vec!["lm_head".into()])),
            &["modules_to_save", "fresh"],
        ),
        (
            "no layer of a fresh adapter",
            || fresh(|c| *c = c.clone().with_layers_to_transform([9])),
            &["q_proj", "none of the 15 linear modules"],
        ),
    ]);
}
