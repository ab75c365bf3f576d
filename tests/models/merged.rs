//! Merged models on disk: what is written, that it is refused where it would compute something else, and that nothing is left
//! behind then.

use crate::support::{Fixture, device, logits, relative_error, root};
use bayes_lora::bayes_lora::{BayesLoraConfig, FittedBayesLora};
use bayes_lora::data::BatchLimits;
use bayes_lora::lora::{Adaptable, LoraConfig, attach, load_peft, merge, read_adapter, write_adapter};
use bayes_lora::models::{CausalLm, MERGE_TOLERANCE, Pretrained, PromptClassifier};
use bayes_lora::posterior::{Laplace, POSTERIOR_FILE};
use bayes_lora::tensor_file::write_tensors;
use bayes_lora::train::TrainerConfig;
use burn::tensor::DType;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const NAME: &str = "tiny_llama";

fn base(name: &str) -> PathBuf {
    root().join("tests/fixtures").join(name).join("base")
}

fn rows() -> Vec<Vec<u32>> {
    vec![vec![5, 9, 30, 2], (3..63).collect()]
}

/// The base with an adapter of large B on the given modules.
fn adapted(source: &Pretrained, targets: &[&str]) -> CausalLm {
    let config = LoraConfig::new(2).with_target_modules(targets.iter().copied());
    let model = attach(source.load(&device()).unwrap(), &config, 0).unwrap();
    let mut weights = read_adapter(&model).unwrap();
    weights.values_mut().enumerate().for_each(|(i, w)| w.mapv_inplace(|v| v + 0.01 * (i % 5) as f64));
    write_adapter(model, &weights).unwrap()
}

fn entries(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn config(dir: &Path) -> serde_json::Value {
    serde_json::from_str(&std::fs::read_to_string(dir.join("config.json")).unwrap()).unwrap()
}

#[test]
fn a_merged_directory_has_the_logits_of_the_adapted_model_and_no_adapter() {
    let (fixture, dir) = (Fixture::load(NAME), tempfile::tempdir().unwrap());
    let source = Pretrained::from_dir(base(NAME)).unwrap();
    let model = fixture.model(DType::F32);
    let place = dir.path().join("merged");
    let report = source.merge_and_save(&model.lm, &rows(), MERGE_TOLERANCE, &place).unwrap();
    assert_eq!((report.n_modules, report.n_rows, report.n_positions), (4, 2, 64));
    assert!(report.largest_difference > 0.0 && report.largest_difference < MERGE_TOLERANCE);
    assert!(report.to_string().contains("no posterior"), "{report}");
    assert_eq!(entries(dir.path()), ["merged"]);
    assert_eq!(entries(&place), ["config.json", "generation_config.json", "model.safetensors"]);

    let merged = Pretrained::from_dir(&place).unwrap().load(&device()).unwrap();
    let merged = PromptClassifier::new(merged, &fixture.train).unwrap();
    assert!(read_adapter(&merged).is_err());
    let (expected, plain) = (logits(&model, &fixture.test), logits(&fixture.bare(DType::F32), &fixture.test));
    assert!(relative_error(&plain, &expected) > 0.01);
    // bit by bit what merging in memory gives
    assert_eq!(logits(&merged, &fixture.test), logits(&merge(model), &fixture.test));
    assert_eq!(Pretrained::from_dir(&place).unwrap().config(), source.config());
}

#[test]
fn heads_stay_tied_unless_they_were_adapted_and_stored_types_become_f32() {
    // the variant is bf16 on disk, in three shards, with a tied head and biases
    let source = Pretrained::from_dir(base("tiny_llama_variant")).unwrap();
    for (targets, tied) in [(&["q_proj"][..], true), (&["q_proj", "lm_head"], false)] {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("merged");
        // the second row has more positions than are compared at once
        let rows = [vec![5, 9, 30, 2], (3..93).collect()];
        let report = source.merge_and_save(&adapted(&source, targets), &rows, MERGE_TOLERANCE, &place).unwrap();
        assert_eq!(report.n_positions, 94);
        assert_eq!(
            (config(&place)["tie_word_embeddings"].as_bool(), config(&place)["dtype"].as_str()),
            (Some(tied), Some("float32"))
        );
        let bytes = std::fs::read(place.join("model.safetensors")).unwrap();
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(file.tensor("lm_head.weight").is_ok(), !tied);
        assert!(file.tensors().iter().all(|(_, view)| view.dtype() == safetensors::Dtype::F32));
        let biases = file.names().iter().filter(|name| name.ends_with(".bias")).count();
        assert_eq!(biases, 8); // q, k, v, o of two layers
    }
}

#[test]
fn what_an_adapters_files_brought_is_merged_too() {
    // a head of its own for a model whose head is tied
    let source = Pretrained::from_dir(root().join("assets/stories260K")).unwrap();
    let (saved, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let q = "model.layers.0.self_attn.q_proj";
    let config = serde_json::json!({"r": 1, "lora_alpha": 2, "target_modules": [q], "modules_to_save": ["lm_head"]});
    std::fs::write(saved.path().join("adapter_config.json"), config.to_string()).unwrap();
    let values = |n: usize| (0..n).map(|i| 0.01 * (i % 17) as f32).collect();
    let all = [
        (format!("{q}.lora_A.weight"), vec![1, 64], values(64)),
        (format!("{q}.lora_B.weight"), vec![64, 1], values(64)),
        ("lm_head.weight".to_string(), vec![512, 64], values(512 * 64)),
    ];
    write_tensors(saved.path().join("adapter_model.safetensors"), &all, None).unwrap();
    let (model, _) = load_peft(source.load(&device()).unwrap(), saved.path()).unwrap();
    let place = dir.path().join("merged");
    source.merge_and_save(&model, &rows(), MERGE_TOLERANCE, &place).unwrap();
    assert_eq!(self::config(&place)["tie_word_embeddings"].as_bool(), Some(false));
    let bytes = std::fs::read(place.join("model.safetensors")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let expected: Vec<u8> = all[2].2.iter().flat_map(|v| v.to_le_bytes()).collect();
    assert_eq!(file.tensor("lm_head.weight").unwrap().data(), expected);
    assert_ne!(file.tensor("model.embed_tokens.weight").unwrap().data(), expected);
}

#[test]
fn tokenizer_files_are_copied() {
    let (source, dir) =
        (Pretrained::from_dir(root().join("assets/stories260K")).unwrap(), tempfile::tempdir().unwrap());
    let place = dir.path().join("merged");
    source.merge_and_save(&adapted(&source, &["v_proj"]), &rows(), MERGE_TOLERANCE, &place).unwrap();
    for name in ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"] {
        assert_eq!(std::fs::read(place.join(name)).unwrap(), std::fs::read(source.dir().join(name)).unwrap(), "{name}");
    }
}

/// A directory and what it says when the merge into it is refused; nothing may be left there.
fn refused(source: &Pretrained, model: &CausalLm, rows: &[Vec<u32>], tolerance: f64) -> String {
    let dir = tempfile::tempdir().unwrap();
    let error = source.merge_and_save(model, rows, tolerance, dir.path().join("merged")).unwrap_err().to_string();
    assert_eq!(entries(dir.path()), [""; 0], "{error}");
    error
}

#[test]
fn a_merge_that_cannot_be_right_is_refused_with_both_numbers_and_leaves_nothing() {
    let source = Pretrained::from_dir(base(NAME)).unwrap();
    let model = adapted(&source, &["q_proj", "up_proj"]);
    let bare = source.load(&device()).unwrap();
    let other = Pretrained::from_dir(base("tiny_qwen2")).unwrap();
    let cases: [(String, &[&str]); 8] = [
        // rounding alone differs by more than nothing
        (
            refused(&source, &model, &rows(), 0.0),
            &["difference of a logit", "at most 0e0", "e-", "nothing was written"],
        ),
        (refused(&source, &model, &rows(), f64::NAN), &["tolerance", "NaN"]),
        (refused(&source, &bare, &rows(), 1e-4), &["adapter", "empty"]),
        (refused(&source, &model, &[], 1e-4), &["rows", "empty"]),
        (refused(&source, &model, &[vec![4], vec![]], 1e-4), &["row 1", "empty"]),
        (refused(&source, &model, &[vec![4, 96]], 1e-4), &["row 0", "96"]),
        (refused(&source, &model, &[vec![4; 65]], 1e-4), &["row 0", "65", "64"]),
        (refused(&other, &model, &rows(), 1e-4), &["tiny_qwen2", "shape"]),
    ];
    for (error, parts) in cases {
        println!("{error}");
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
    }
}

#[test]
fn an_update_that_the_merged_weights_cannot_hold_is_refused() {
    // tiny updates of huge weights are lost in the sum: 1e6 + 1e-3 is 1e6 in f32, but not on its own way through the adapter
    let source = Pretrained::from_dir(base(NAME)).unwrap();
    let mut model = adapted(&source, &["lm_head"]);
    let head = model.linears_mut().pop().unwrap();
    let huge = head.weight.val().mul_scalar(0.0).add_scalar(1e6);
    head.weight = burn::module::Param::from_tensor(huge);
    let error = refused(&source, &model, &rows(), 1e-4);
    assert!(error.contains("difference of a logit"), "{error}");
}

#[test]
fn what_is_at_the_place_already_stays() {
    let source = Pretrained::from_dir(base(NAME)).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("merged");
    std::fs::create_dir(&place).unwrap();
    std::fs::write(place.join("precious"), "x").unwrap();
    let model = adapted(&source, &["q_proj"]);
    let error = source.merge_and_save(&model, &rows(), MERGE_TOLERANCE, &place).unwrap_err().to_string();
    assert!(error.contains("merged") && error.contains("exist"), "{error}");
    assert_eq!((entries(dir.path()), entries(&place)), (vec!["merged".to_string()], vec!["precious".to_string()]));
}

/// An adapter with its posterior, saved.
fn fitted() -> (TempDir, FittedBayesLora<PromptClassifier>) {
    let fixture = Fixture::load(NAME);
    let lora = LoraConfig::new(2).with_target_modules(["q_proj"]);
    let limits = BatchLimits { max_items: 8, max_tokens: 1000 };
    let trainer = TrainerConfig::default().with_epochs(1).with_limits(limits);
    let bayes = BayesLoraConfig::new(lora).with_trainer(trainer).with_limits(limits).init().unwrap();
    let fitted = bayes.fit(fixture.bare(DType::F32), &fixture.train).unwrap();
    let dir = tempfile::tempdir().unwrap();
    fitted.save(dir.path(), "tiny").unwrap();
    (dir, fitted)
}

#[test]
fn a_posterior_does_not_load_onto_a_merged_model() {
    let (saved, fitted) = fitted();
    let (source, dir) = (Pretrained::from_dir(base(NAME)).unwrap(), tempfile::tempdir().unwrap());
    let place = dir.path().join("merged");
    source.merge_and_save(&fitted.model.lm, &rows(), MERGE_TOLERANCE, &place).unwrap();
    let load = || Pretrained::from_dir(&place).unwrap().load(&device()).unwrap();
    let classifier = PromptClassifier::new(load(), &Fixture::load(NAME).train).unwrap();
    let error = Laplace::load(saved.path().join(POSTERIOR_FILE), &classifier).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("adapter"), "{error}");
    // nor with the adapter on top, which would count twice: the base is another
    let twice = load_peft(classifier, saved.path()).unwrap().0;
    let error = Laplace::load(saved.path().join(POSTERIOR_FILE), &twice).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("base"), "{error}");
}
