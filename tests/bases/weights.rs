//! Weights beyond what the configuration declares.

use super::{
    Tensors, WEIGHTS, assert_logits, configure, copy, fixture, load, logits, read, refused, reweigh, tiny, widest,
    write, zeros,
};
use crate::support::{device, relative_error};
use bayes_lora::lora::{Adaptable, LoraConfig, attach};
use bayes_lora::models::{MERGE_TOLERANCE, Pretrained};
use burn::tensor::DType;
use serde_json::json;
use std::path::Path;

const HEAD: &str = "lm_head.weight";
const TABLE: &str = "model.embed_tokens.weight";

fn tie(dir: &Path) {
    configure(dir, |config| config["tie_word_embeddings"] = json!(true));
}

#[test]
fn a_head_of_its_own_is_used_in_a_tied_configuration_and_reported() {
    let dir = fixture("cases/tied_with_other_head");
    let (lm, report) = load(&dir, widest()).unwrap();
    assert!(report.untied_head && report.to_string().contains("lm_head.weight"), "{report}");
    assert!(!lm.config().tied_head && !lm.linears().last().unwrap().is_tied);
    let first = [
        [
            -0.18896264099154897,
            -0.5602984026122527,
            -0.6388531973595466,
            -0.49641001521462563,
            0.5419743514337286,
            -0.5144748923552254,
        ],
        [
            0.31602308018476793,
            -0.9057807664008877,
            0.03699697803105814,
            -0.10383531676037404,
            -0.45164857870139397,
            -2.4927635760855478,
        ],
        [
            -0.15640747055869852,
            0.319881874430615,
            0.02528296707375266,
            -1.4782246610749756,
            -2.04316052041004,
            0.8723301917666559,
        ],
    ];
    assert_logits(&logits(lm), [-49.188885622, 579.484020486], &first);
}

#[test]
fn a_model_with_a_head_of_its_own_merges_into_an_untied_one() {
    let source = Pretrained::from_dir(fixture("cases/tied_with_other_head")).unwrap();
    let (lm, _) = source.load_with_report(&device()).unwrap();
    let adapted = attach(lm, &LoraConfig::new(2).with_target_modules(["q_proj"]), 0).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("merged");
    source.merge_and_save(&adapted, &[vec![5, 9, 30]], MERGE_TOLERANCE, &place).unwrap();
    let merged = Pretrained::from_dir(&place).unwrap();
    assert!(!merged.config().tied_head);
    assert!(merged.load_with_report(&device()).unwrap().1.is_empty());
}

#[test]
fn a_tied_pair_with_the_same_values_or_with_one_half_missing_is_one_matrix() {
    let table = |tensors: &Tensors| tensors[TABLE].clone();
    let dir = tiny();
    tie(dir.path());
    reweigh(dir.path(), |tensors| drop(tensors.remove(HEAD)));
    let expected = logits(load(dir.path(), DType::F32).unwrap().0);
    for keep_table in [true, false] {
        let dir = tiny();
        tie(dir.path());
        reweigh(dir.path(), |tensors| {
            tensors.insert(HEAD.into(), table(tensors));
            if !keep_table {
                tensors.remove(TABLE);
            }
        });
        let (lm, report) = load(dir.path(), DType::F32).unwrap();
        assert!(report.is_empty() && lm.config().tied_head && lm.linears().last().unwrap().is_tied, "{report}");
        assert_eq!(logits(lm), expected);
    }
}

#[test]
fn names_without_their_prefix_as_automodel_saves_them_are_read() {
    let bare = |dir: &Path, head: bool| {
        reweigh(dir, |tensors| {
            let old = std::mem::take(tensors).into_iter().filter(|(name, _)| head || name != HEAD);
            *tensors = old.map(|(name, tensor)| (name.trim_start_matches("model.").to_string(), tensor)).collect();
        });
    };
    let whole = tiny();
    let expected = logits(load(whole.path(), DType::F32).unwrap().0);
    bare(whole.path(), true);
    let (lm, report) = load(whole.path(), DType::F32).unwrap();
    assert!(report.is_empty(), "{report}");
    assert_eq!(logits(lm), expected);
    let headless = tiny();
    bare(headless.path(), false);
    refused(load(headless.path(), DType::F32), &["lm_head.weight", "AutoModel", "tie_word_embeddings"]);
    tie(headless.path());
    assert!(load(headless.path(), DType::F32).unwrap().0.config().tied_head);
}

#[test]
fn a_tensor_in_two_shards_must_be_the_same_in_both() {
    let dir = tiny();
    let all = read(&dir.path().join(WEIGHTS));
    std::fs::remove_file(dir.path().join(WEIGHTS)).unwrap();
    let expected = logits(load(tiny().path(), DType::F32).unwrap().0);
    let norm = "model.norm.weight";
    let twice: Tensors = [(norm.to_string(), all[norm].clone())].into();
    write(&dir.path().join("a.safetensors"), &all);
    write(&dir.path().join("b.safetensors"), &twice);
    let index = json!({"weight_map": {norm: "b.safetensors", HEAD: "a.safetensors"}});
    std::fs::write(dir.path().join("model.safetensors.index.json"), index.to_string()).unwrap();
    let (lm, report) = load(dir.path(), DType::F32).unwrap();
    assert_eq!(report.repeated_tensors, [norm]);
    assert_eq!(logits(lm), expected);
    write(&dir.path().join("b.safetensors"), &[(norm.to_string(), zeros(&[32]))].into());
    refused(load(dir.path(), DType::F32), &[norm, "`a.safetensors`", "`b.safetensors`"]);
}

#[test]
fn what_no_logit_depends_on_is_reported_by_name() {
    let dir = tiny();
    let expected = logits(load(dir.path(), DType::F32).unwrap().0);
    let names = ["model.layers.0.self_attn.rotary_emb.inv_freq", "score.weight"];
    reweigh(dir.path(), |tensors| names.iter().for_each(|name| drop(tensors.insert(name.to_string(), zeros(&[4])))));
    for name in ["adapter_config.json", "model.safetensors.index.json"] {
        std::fs::write(dir.path().join(name), "{}").unwrap();
    }
    let (lm, report) = load(dir.path(), DType::F32).unwrap();
    assert_eq!(report.unread_tensors, names);
    assert_eq!(report.unread_files, ["model.safetensors.index.json", "adapter_config.json"]);
    assert!(names.iter().all(|name| report.to_string().contains(name)), "{report}");
    assert_eq!(logits(lm), expected);
}

#[test]
fn what_would_change_the_logits_is_refused_by_name_and_cause() {
    let module = "model.layers.1.self_attn.o_proj";
    for (name, parts) in [
        (format!("{module}.lora_A.weight"), &["lora_A", "not merged"][..]),
        (format!("{module}.base_layer.weight"), &["base_layer", "not merged"]),
        (format!("{module}.bias"), &["o_proj.bias", "attention_bias"]),
        ("model.layers.1.mlp.up_proj.bias".into(), &["up_proj.bias", "mlp_bias"]),
        ("lm_head.bias".into(), &["lm_head.bias", "does not declare"]),
        ("model.layers.2.input_layernorm.weight".into(), &["model.layers.2.", "beyond the 2 of `num_hidden_layers`"]),
        ("model.layers.1.self_attn.q_norm.weight".into(), &["q_norm", "does not compute"]),
        ("model.layers.1.mlp.up_proj.weight_scale".into(), &["weight_scale", "does not compute"]),
        ("norm.weight".into(), &["`norm.weight`", "does not compute"]),
    ] {
        let dir = tiny();
        reweigh(dir.path(), |tensors| drop(tensors.insert(name.clone(), zeros(&[32]))));
        refused(load(dir.path(), DType::F32), parts);
    }
}

#[test]
fn biases_that_qwen2_does_not_have_are_refused_even_where_the_configuration_claims_them() {
    let dir = copy(&fixture("tiny_qwen2/base"));
    configure(dir.path(), |config| config["mlp_bias"] = json!(true));
    let expected = logits(load(&fixture("tiny_qwen2/base"), DType::F32).unwrap().0);
    // transformers' Qwen2 does not know the setting
    assert!(relative_error(&logits(load(dir.path(), DType::F32).unwrap().0), &expected) == 0.0);
    reweigh(dir.path(), |tensors| drop(tensors.insert("model.layers.0.mlp.up_proj.bias".into(), zeros(&[48]))));
    refused(load(dir.path(), DType::F32), &["up_proj.bias"]);
}
