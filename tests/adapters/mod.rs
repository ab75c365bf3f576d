//! Adapters in PEFT's files on tiny models: what is read, what it replaces, and that nothing of it is lost. Needs no Python;
//! `tests/peft_round_trip.rs` asks the real PEFT.

mod whole;

use crate::support::{Fixture, device, logits, relative_error, root};
use bayes_lora::lora::{
    Adaptable, LoraConfig, OneOrMany, Replaced, TrainedBiases, attach, base_fingerprint, load_peft, merge,
    read_adapter, save_peft, write_adapter,
};
use bayes_lora::models::{CausalLm, Pretrained, PromptClassifier};
use bayes_lora::tensor_file::write_tensors;
use burn::tensor::DType;
use safetensors::SafeTensors;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use tempfile::TempDir;

const Q: &str = "model.layers.1.self_attn.q_proj";

/// Shape and bytes by name.
type Tensors = BTreeMap<String, (Vec<usize>, Vec<u8>)>;

fn tensors(dir: &Path) -> Tensors {
    let bytes = std::fs::read(dir.join("adapter_model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    file.tensors().into_iter().map(|(name, view)| (name, (view.shape().to_vec(), view.data().to_vec()))).collect()
}

fn config(dir: &Path) -> BTreeMap<String, Value> {
    serde_json::from_str(&std::fs::read_to_string(dir.join("adapter_config.json")).unwrap()).unwrap()
}

/// The model of a fixture without adapter.
fn bare(name: &'static str) -> PromptClassifier {
    Fixture::load(name).bare(DType::F32)
}

/// An adapter's directory: rank 2 on `targets`, with `more` fields and tensors of rising numbers.
fn adapter(model: &PromptClassifier, targets: &[&str], more: Value, extra: &[(&str, Vec<usize>)]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut fields = json!({"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": targets});
    fields.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    std::fs::write(dir.path().join("adapter_config.json"), fields.to_string()).unwrap();
    let config: LoraConfig = serde_json::from_value(fields).unwrap();
    let mut all = Vec::new();
    let mut add = |name: String, shape: Vec<usize>| {
        let n = shape.iter().product::<usize>();
        let values = (0..n).map(|i| 0.01 * (((i * 31 + all.len() * 7) % 41) as f32 - 20.0)).collect();
        all.push((name, shape, values));
    };
    for linear in model.linears() {
        if config.targets(&linear.path, linear.is_head).unwrap() {
            add(format!("base_model.model.{}.lora_A.weight", linear.path), vec![2, linear.d_in()]);
            add(format!("base_model.model.{}.lora_B.weight", linear.path), vec![linear.d_out(), 2]);
        }
    }
    extra.iter().for_each(|(name, shape)| add(format!("base_model.model.{name}"), shape.clone()));
    write_tensors(dir.path().join("adapter_model.safetensors"), &all, None).unwrap();
    dir
}

/// Loads, writes again, and compares every tensor byte by byte and the configuration.
fn check_round_trip(name: &'static str, dir: &TempDir) -> (PromptClassifier, LoraConfig) {
    let (model, config) = load_peft(bare(name), dir.path()).unwrap();
    let again = tempfile::tempdir().unwrap();
    save_peft(&model, &config, "base", again.path()).unwrap();
    assert_eq!(tensors(again.path()), tensors(dir.path()));
    let (loaded, read) = load_peft(bare(name), again.path()).unwrap();
    assert_eq!(read, config);
    assert_eq!(read_adapter(&loaded).unwrap(), read_adapter(&model).unwrap());
    let fixture = Fixture::load(name);
    assert_eq!(logits(&loaded, &fixture.test), logits(&model, &fixture.test));
    (model, config)
}

#[test]
fn every_field_that_peft_writes_is_written_in_its_way() {
    let fixture = Fixture::load("tiny_llama");
    let theirs = fixture.dir().join("adapter");
    let (model, lora) = load_peft(fixture.bare(DType::F32), &theirs).unwrap();
    let dir = tempfile::tempdir().unwrap();
    save_peft(&model, &lora, "base", dir.path()).unwrap();
    assert_eq!(tensors(dir.path()), tensors(&theirs));
    let (ours, theirs) = (config(dir.path()), config(&theirs));
    assert_eq!(ours.keys().collect::<Vec<_>>(), theirs.keys().collect::<Vec<_>>());
    for (field, value) in &theirs {
        let expected = match field.as_str() {
            "peft_version" => &Value::Null,
            "base_model_name_or_path" => &json!("base"),
            _ => value,
        };
        // the fixture's 8.0 is 8 here, as PEFT writes what was given as an integer
        let same = ours[field] == *expected || ours[field].as_f64().is_some_and(|v| Some(v) == expected.as_f64());
        assert!(same, "{field}: {} and {expected}", ours[field]);
    }
}

#[test]
fn layers_and_their_patterns_come_back_as_they_were_written() {
    for (layers, pattern) in
        [(json!([1]), json!(null)), (json!(1), json!("layers")), (json!([1]), json!(["h", "layers"]))]
    {
        let more = json!({"layers_to_transform": layers, "layers_pattern": pattern, "task_type": "CAUSAL_LM"});
        let dir = adapter(&bare("tiny_llama"), &["q_proj"], more, &[]);
        let (model, config) = check_round_trip("tiny_llama", &dir);
        let adapted: Vec<_> = model.linears().into_iter().filter(|l| l.adapter.is_some()).map(|l| &l.path).collect();
        assert_eq!(adapted, [Q]);
        assert_eq!(serde_json::to_value(&config).unwrap()["layers_to_transform"], layers);
        assert_eq!(serde_json::to_value(&config).unwrap()["layers_pattern"], pattern);
    }
}

#[test]
fn trained_biases_take_the_place_of_the_bases_and_are_written_again() {
    let k = "model.layers.0.self_attn.k_proj.bias";
    let q0 = "model.layers.0.self_attn.q_proj.base_layer.bias";
    let q1 = "model.layers.1.self_attn.q_proj.base_layer.bias";
    let v = |layer| format!("model.layers.{layer}.self_attn.v_proj.bias");
    let lora_only: Vec<(&str, Vec<usize>)> = vec![(q0, vec![32]), (q1, vec![32])];
    let (v0, v1, k1) = (v(0), v(1), k.replace('0', "1"));
    let rest = [(k, vec![16]), (v0.as_str(), vec![16]), (v1.as_str(), vec![16]), (k1.as_str(), vec![16])];
    let all: Vec<_> = lora_only.iter().cloned().chain(rest).collect();
    for (bias, extra) in [("lora_only", lora_only), ("all", all)] {
        let dir = adapter(&bare("tiny_qwen2"), &["q_proj"], json!({"bias": bias}), &extra);
        let (model, mut config) = check_round_trip("tiny_qwen2", &dir);
        let replaced = model.linears().iter().filter(|l| l.replaced.bias).count();
        assert_eq!(replaced, extra.len());
        // a configuration that does not mention them would lose them
        config.bias = TrainedBiases::None;
        let error = save_peft(&model, &config, "base", dir.path()).unwrap_err().to_string();
        assert!(error.contains("Bias") && error.contains("self_attn.") && error.contains("lost"), "{error}");
        // merging makes them the base's own
        assert!(merge(model).linears().iter().all(|l| l.replaced == Replaced::default()));
    }
}

#[test]
fn biases_that_the_model_lacks_are_none_to_save() {
    let dir = adapter(&bare("tiny_llama"), &["q_proj"], json!({"bias": "all"}), &[]);
    let (_, config) = check_round_trip("tiny_llama", &dir);
    assert_eq!(config.bias, TrainedBiases::All);
}

#[test]
fn a_head_that_was_trained_whole_is_the_models_head_and_is_written_again() {
    let more = json!({"modules_to_save": ["lm_head"]});
    let dir = adapter(&bare("tiny_llama"), &["q_proj"], more, &[("lm_head.weight", vec![96, 32])]);
    let (model, mut config) = check_round_trip("tiny_llama", &dir);
    let fixture = Fixture::load("tiny_llama");
    assert_ne!(base_fingerprint(&model).unwrap(), base_fingerprint(&bare("tiny_llama")).unwrap());
    let without = adapter(&bare("tiny_llama"), &["q_proj"], json!({}), &[]);
    let (adapter_alone, _) = load_peft(bare("tiny_llama"), without.path()).unwrap();
    assert_eq!(read_adapter(&adapter_alone).unwrap(), read_adapter(&model).unwrap());
    assert!(relative_error(&logits(&adapter_alone, &fixture.test), &logits(&model, &fixture.test)) > 0.1);
    config.modules_to_save = None;
    let error = save_peft(&model, &config, "base", dir.path()).unwrap_err().to_string();
    assert!(error.contains("Weight of `lm_head`") && error.contains("modules_to_save"), "{error}");
}

fn stories() -> CausalLm {
    Pretrained::from_dir(root().join("assets/stories260K")).unwrap().load(&device()).unwrap()
}

#[test]
fn a_tied_head_is_untied_by_a_weight_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let fields = json!({"r": 1, "lora_alpha": 1, "target_modules": ["model.layers.0.self_attn.q_proj"],
        "modules_to_save": ["lm_head"]});
    std::fs::write(dir.path().join("adapter_config.json"), fields.to_string()).unwrap();
    let q = "model.layers.0.self_attn.q_proj";
    let all = [
        (format!("{q}.lora_A.weight"), vec![1, 64], vec![0.0; 64]),
        (format!("{q}.lora_B.weight"), vec![64, 1], vec![0.0; 64]),
        ("lm_head.weight".to_string(), vec![512, 64], vec![0.5; 512 * 64]),
    ];
    write_tensors(dir.path().join("adapter_model.safetensors"), &all, None).unwrap();
    let (model, config) = load_peft(stories(), dir.path()).unwrap();
    let head = model.linears().into_iter().last().unwrap();
    assert!(!head.is_tied && head.replaced.weight);
    assert_eq!(config.layers_to_transform, None::<OneOrMany<i64>>);
    save_peft(&model, &config, "base", dir.path()).unwrap();
    let saved = tensors(dir.path());
    assert_eq!(saved["base_model.model.lm_head.weight"].1, 0.5f32.to_le_bytes().repeat(512 * 64));
    // a head that is still tied has no weight to save
    let fresh = attach(stories(), &LoraConfig::new(1).with_target_modules([q]), 0).unwrap();
    let own = LoraConfig::new(1).with_target_modules([q]).with_modules_to_save(config.modules_to_save);
    let error = save_peft(&fresh, &own, "base", dir.path()).unwrap_err().to_string();
    assert!(error.contains("lm_head") && error.contains("tied"), "{error}");
}

#[test]
fn names_without_prefix_and_with_an_adapter_name_are_the_same_tensors() {
    let dir = adapter(&bare("tiny_llama"), &["q_proj"], json!({}), &[]);
    let (expected, _) = load_peft(bare("tiny_llama"), dir.path()).unwrap();
    for (prefix, name) in [("", ""), ("", ".default"), ("base_model.model.", ".other")] {
        let all: Vec<_> = tensors(dir.path())
            .into_iter()
            .map(|(old, (shape, bytes))| {
                let bare = old.strip_prefix("base_model.model.").unwrap();
                let values = bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
                (format!("{prefix}{}", bare.replace(".weight", &format!("{name}.weight"))), shape, values)
            })
            .collect();
        let other = tempfile::tempdir().unwrap();
        std::fs::copy(dir.path().join("adapter_config.json"), other.path().join("adapter_config.json")).unwrap();
        write_tensors(other.path().join("adapter_model.safetensors"), &all, None).unwrap();
        let (found, _) = load_peft(bare("tiny_llama"), other.path()).unwrap();
        assert_eq!(read_adapter(&found).unwrap(), read_adapter(&expected).unwrap(), "`{prefix}` `{name}`");
    }
}

#[test]
fn a_sequence_classifier_lists_two_heads_and_has_one() {
    // PEFT adds both names to every configuration of this task
    let mut model = bare("tiny_llama");
    model.linears_mut().last_mut().unwrap().path = "score".into();
    let dir = adapter(
        &model,
        &["q_proj"],
        json!({"modules_to_save": ["classifier", "score"], "task_type": "SEQ_CLS"}),
        &[("score.weight", vec![96, 32])],
    );
    let (loaded, config) = load_peft(model, dir.path()).unwrap();
    assert!(loaded.linears().last().unwrap().replaced.weight);
    save_peft(&loaded, &config, "base", dir.path()).unwrap();
    assert_eq!(self::config(dir.path())["task_type"], "SEQ_CLS");
}

#[test]
fn two_adapters_live_on_clones_of_one_base() {
    let fixture = Fixture::load("tiny_llama");
    let base = fixture.bare(DType::F32);
    let plain = logits(&base, &fixture.test);
    let second = adapter(&base, &["q_proj", "up_proj"], json!({}), &[]);
    let dirs = [fixture.dir().join("adapter"), second.path().to_path_buf()];
    let both = dirs.clone().map(|dir| load_peft(base.clone(), dir).unwrap().0);
    let of = |model: &PromptClassifier| logits(model, &fixture.test);
    assert!(relative_error(&of(&both[0]), &of(&both[1])) > 0.01);
    for (dir, model) in dirs.iter().zip(&both) {
        // neither has touched the base or the other
        assert_eq!(of(model), of(&load_peft(fixture.bare(DType::F32), dir).unwrap().0));
    }
    assert_eq!(of(&base), plain);
    // a second one on top is refused, also where the first brought no A and B to that module
    let error = load_peft(both[0].clone(), &dirs[1]).unwrap_err().to_string();
    assert!(error.contains("already has an adapter") && error.contains("clone"), "{error}");
}

#[test]
fn a_copy_of_the_frozen_head_is_compared_and_left() {
    let base = bare("tiny_llama");
    let head = base.linears().into_iter().last().unwrap();
    let own: Vec<f32> = head.weight.val().transpose().into_data().iter::<f32>().collect();
    let dir = adapter(&base, &["lm_head"], json!({}), &[]);
    let with_copy = |copy: Vec<f32>| {
        let all = tensors(dir.path()).into_iter().filter(|(name, _)| name.contains("lora_"));
        let mut all: Vec<_> = all
            .map(|(name, (shape, bytes))| {
                let values = bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
                (name, shape, values)
            })
            .collect();
        all.push(("base_model.model.lm_head.base_layer.weight".into(), vec![96, 32], copy));
        write_tensors(dir.path().join("adapter_model.safetensors"), &all, None).unwrap();
        load_peft(bare("tiny_llama"), dir.path())
    };
    let (model, config) = with_copy(own.clone()).unwrap();
    assert!(!model.linears().last().unwrap().replaced.weight);
    let again = tempfile::tempdir().unwrap();
    save_peft(&model, &config, "base", again.path()).unwrap();
    assert_eq!(tensors(again.path()).len(), 2);
    // as rounded to bf16
    let rounded = own.iter().map(|v| f32::from_bits((v.to_bits() + 0x7fff) & 0xffff_0000)).collect();
    assert!(with_copy(rounded).is_ok());
    let error = with_copy(own.iter().map(|v| v * 1.01).collect()).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("lm_head.base_layer.weight") && error.contains("another base"), "{error}");
}

#[test]
fn an_adapter_that_was_trained_on_is_saved_with_what_its_files_brought() {
    let more = json!({"modules_to_save": ["lm_head"]});
    let dir = adapter(&bare("tiny_llama"), &["q_proj"], more, &[("lm_head.weight", vec![96, 32])]);
    let (model, config) = load_peft(bare("tiny_llama"), dir.path()).unwrap();
    let mut weights = read_adapter(&model).unwrap();
    weights.values_mut().for_each(|w| w.mapv_inplace(|v| v + 0.5));
    let model = write_adapter(model, &weights).unwrap();
    let moved = read_adapter(&model).unwrap(); // rounded to f32
    let again = tempfile::tempdir().unwrap();
    save_peft(&model, &config, "base", again.path()).unwrap();
    let head = "base_model.model.lm_head.weight";
    assert_eq!(tensors(again.path())[head], tensors(dir.path())[head]);
    assert_eq!(read_adapter(&load_peft(bare("tiny_llama"), again.path()).unwrap().0).unwrap(), moved);
}
