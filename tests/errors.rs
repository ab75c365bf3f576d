//! Bad input is refused with an error that names the thing and both numbers; nothing panics.

mod support;

use bayes_lora::bayes_lora::BayesLoraConfig;
use bayes_lora::belief::{LinkApprox, LogitBelief};
use bayes_lora::curvature::{Cotangents, CurvatureConfig, FisherKind, TokenTreatment, fit_kronecker, probe};
use bayes_lora::data::{
    AnswerForm, BatchLimits, EncodedDataset, Encoding, Item, Normalization, PromptTemplate, ResolvedAnswers, Task,
    Tokenizer,
};
use bayes_lora::error::{Error, Result};
use bayes_lora::likelihood::Likelihood;
use bayes_lora::lora::{LoraConfig, attach, load_peft, read_adapter, save_peft, write_adapter};
use bayes_lora::models::{Classifier, Dataset, DecoderConfig, Mlp, MlpConfig, Points, Pretrained, PromptClassifier};
use bayes_lora::posterior::{Laplace, LaplaceConfig};
use bayes_lora::predict::{Predictive, predict, predict_map, predict_sampled};
use bayes_lora::prior::{PriorMean, PriorPrecision};
use bayes_lora::progress::Control;
use bayes_lora::tape::{LoraMatrix, Site};
use bayes_lora::train::{Trainer, TrainerConfig, TrainingMode, set_trainable};
use burn::tensor::DType;
use ndarray::{Array2, array};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use support::{Fixture, continuation_dataset, device, root};
use tempfile::TempDir;

/// What is done, and what the error must say.
type Case = (&'static str, fn() -> Result<()>, &'static [&'static str]);

fn check(cases: &[Case]) {
    let mut wrong = Vec::new();
    for (what, act, parts) in cases {
        match catch_unwind(AssertUnwindSafe(act)) {
            Err(_) => wrong.push(format!("{what}: panicked")),
            Ok(Ok(())) => wrong.push(format!("{what}: was accepted")),
            Ok(Err(error)) => {
                let message = error.to_string();
                println!("{what}: {message}");
                let missing: Vec<_> = parts.iter().filter(|p| !message.contains(**p)).collect();
                if !missing.is_empty() {
                    wrong.push(format!("{what}: «{message}» lacks {missing:?}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

// ---- material ---------------------------------------------------------------------------------------------------

const NAME: &str = "tiny_llama";
const LIMITS: BatchLimits = BatchLimits { max_items: 8, max_tokens: 1000 };

fn silent() -> Control {
    Control::silent()
}

/// A copy of a folder of the fixture (`base` or `adapter`) in which `spoil` did its work.
fn spoilt(part: &str, spoil: impl FnOnce(&Path)) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(root().join("tests/fixtures").join(NAME).join(part)).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, dir.path().join(path.file_name().unwrap())).unwrap();
    }
    spoil(dir.path());
    dir
}

fn load(spoil: impl FnOnce(&Path)) -> Result<()> {
    let dir = spoilt("base", spoil);
    Pretrained::from_dir(dir.path())?.load(&device()).map(|_| ())
}

fn load_adapter(spoil: impl FnOnce(&Path)) -> Result<()> {
    let dir = spoilt("adapter", spoil);
    load_peft(bare(), dir.path()).map(|_| ())
}

fn edit_json(path: &Path, edit: impl FnOnce(&mut Value)) {
    let mut value: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    edit(&mut value);
    std::fs::write(path, value.to_string()).unwrap();
}

fn with_config(field: &str, value: Value) -> impl FnOnce(&Path) {
    move |dir| edit_json(&dir.join("config.json"), |config| config[field] = value)
}

fn with_adapter_config(field: &str, value: Value) -> impl FnOnce(&Path) {
    move |dir| edit_json(&dir.join("adapter_config.json"), |config| config[field] = value)
}

type Tensors = BTreeMap<String, (Vec<usize>, Vec<u8>)>;

fn edit_tensors(path: &Path, edit: impl FnOnce(&mut Tensors)) {
    let bytes = std::fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let parts = file.tensors().into_iter().map(|(name, view)| (name, (view.shape().to_vec(), view.data().to_vec())));
    let mut tensors: Tensors = parts.collect();
    edit(&mut tensors);
    let views =
        tensors.iter().map(|(name, (shape, data))| (name, TensorView::new(Dtype::F32, shape.clone(), data).unwrap()));
    std::fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

fn with_bytes(edit: impl FnOnce(Vec<u8>) -> Vec<u8>) -> impl FnOnce(&Path) {
    move |dir| {
        let path = dir.join("model.safetensors");
        std::fs::write(&path, edit(std::fs::read(&path).unwrap())).unwrap();
    }
}

fn zeros(shape: &[usize]) -> (Vec<usize>, Vec<u8>) {
    (shape.to_vec(), vec![0; 4 * shape.iter().product::<usize>()])
}

/// The model of the fixture without adapter, and with it.
fn bare() -> PromptClassifier {
    Fixture::load(NAME).bare(DType::F32)
}

fn adapted() -> PromptClassifier {
    Fixture::load(NAME).model(DType::F32)
}

fn train_data() -> EncodedDataset {
    Fixture::load(NAME).train
}

fn points() -> Points {
    Points::new(array![[0.0, 1.0], [1.0, 0.5], [-1.0, 2.0]], vec![0, 1, 2]).unwrap()
}

fn mlp() -> Mlp {
    MlpConfig::new([2, 5, 3]).init(&device()).unwrap()
}

fn adapted_mlp(rank: usize) -> Mlp {
    attach(mlp(), &LoraConfig::new(rank), 0).unwrap()
}

fn posterior_of(model: &Mlp) -> Laplace {
    let curvature = fit_kronecker(model, &points(), &CurvatureConfig::default(), &silent()).unwrap();
    let config = LaplaceConfig { prior_precision: Some(PriorPrecision::new(1.0).unwrap()), ..LaplaceConfig::default() };
    Laplace::new(model, &curvature, &config).unwrap()
}

fn curvature_with(config: CurvatureConfig, data: &Points) -> Result<()> {
    fit_kronecker(&adapted_mlp(2), data, &config, &silent()).map(|_| ())
}

fn words() -> Tokenizer {
    Tokenizer::from_bytes(
        br#"{"version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
            "pre_tokenizer": {"type": "Whitespace"}, "post_processor": null, "decoder": null,
            "model": {"type": "WordLevel", "unk_token": "?", "vocab": {"?": 0, "yes": 1, "no": 2, "maybe": 3}}}"#,
    )
    .unwrap()
}

fn encode(classes: [&str; 2], limit: usize) -> Result<()> {
    let task = Task::new("quiz", vec![Item::new("q7", "yes or no yes or no", ["yes", "no"]).with_answer(0)])?;
    let encoding = Encoding::new(PromptTemplate::question_answer(), AnswerForm::class_tokens(classes));
    encoding.with_max_tokens(limit).encode(&task, &words()).map(|_| ())
}

fn task_file(text: &str) -> Result<()> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("quiz.jsonl");
    std::fs::write(&path, text).unwrap();
    Task::from_jsonl(path).map(|_| ())
}

fn trainer(edit: impl FnOnce(&mut TrainerConfig)) -> Result<Trainer> {
    let mut config = TrainerConfig { epochs: 1, ..TrainerConfig::default() };
    edit(&mut config);
    Trainer::new(config)
}

/// A file where a folder should be.
fn file_in_the_way() -> (TempDir, std::path::PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("occupied");
    std::fs::write(&path, "").unwrap();
    (dir, path)
}

// ---- cases ------------------------------------------------------------------------------------------------------

const UP_PROJ: &str = "model.layers.1.mlp.up_proj.weight";

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
            || load(with_config("rope_parameters", json!({"rope_type": "yarn", "rope_theta": 1e4}))),
            &["rope_type", "yarn", "llama3"],
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
            || load(with_config("hidden_act", json!("gelu"))),
            &["hidden_act", "gelu", "silu"],
        ),
        (
            "no weights at all",
            || load(|d| std::fs::remove_file(d.join("model.safetensors")).unwrap()),
            &["model.safetensors"],
        ),
        (
            "a missing tensor",
            || load(|d| edit_tensors(&d.join("model.safetensors"), |t| drop(t.remove(UP_PROJ).unwrap()))),
            &[UP_PROJ, "missing"],
        ),
        (
            "a tensor of another shape",
            || {
                load(|d| {
                    edit_tensors(&d.join("model.safetensors"), |t| drop(t.insert(UP_PROJ.into(), zeros(&[47, 32]))))
                })
            },
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
                load(|d| {
                    edit_tensors(&d.join("model.safetensors"), |t| {
                        let data = &mut t.get_mut(UP_PROJ).unwrap().1;
                        data[..8].copy_from_slice(&[f32::NAN.to_le_bytes(), f32::INFINITY.to_le_bytes()].concat());
                    })
                })
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
            || {
                load(with_bytes(|_| {
                    let header = br#"{"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}}"#;
                    [&(header.len() as u64).to_le_bytes()[..], header, &[0; 8]].concat()
                }))
            },
            &["header"],
        ),
        (
            "offsets that run backwards",
            || {
                load(with_bytes(|_| {
                    let header = br#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}}"#;
                    [&(header.len() as u64).to_le_bytes()[..], header, &[0; 8]].concat()
                }))
            },
            &["header"],
        ),
        (
            "a shard outside the directory",
            || {
                load(|d| {
                    std::fs::remove_file(d.join("model.safetensors")).unwrap();
                    let index = json!({"weight_map": {"lm_head.weight": "../elsewhere.safetensors"}});
                    std::fs::write(d.join("model.safetensors.index.json"), index.to_string()).unwrap();
                })
            },
            &["index.json", "lm_head.weight", "../elsewhere.safetensors"],
        ),
        (
            "a shard that is missing",
            || {
                load(|d| {
                    std::fs::remove_file(d.join("model.safetensors")).unwrap();
                    let index = json!({"weight_map": {"lm_head.weight": "part-2.safetensors"}});
                    std::fs::write(d.join("model.safetensors.index.json"), index.to_string()).unwrap();
                })
            },
            &["part-2.safetensors"],
        ),
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

#[test]
fn a_bad_adapter_is_refused_by_name_and_numbers() {
    const B: &str = "base_model.model.model.layers.1.self_attn.v_proj.lora_B.weight";
    check(&[
        ("rank 0", || attach(mlp(), &LoraConfig::new(0), 0).map(|_| ()), &["rank", "at least 1", "got 0"]),
        (
            "dropout 1",
            || attach(mlp(), &LoraConfig::new(2).with_dropout(1.0), 0).map(|_| ()),
            &["dropout", "[0, 1)", "got 1"],
        ),
        (
            "alpha NaN",
            || attach(mlp(), &LoraConfig::new(2).with_alpha(f64::NAN), 0).map(|_| ()),
            &["alpha", "positive", "NaN"],
        ),
        (
            "a target that matches nothing",
            || attach(bare(), &LoraConfig::new(2).with_target_modules(["q_proj", "query"]), 0).map(|_| ()),
            &["`query`", "15 linear modules", "model.layers.0.self_attn.q_proj"],
        ),
        (
            "no targets",
            || attach(mlp(), &LoraConfig::new(2).with_target_modules([""; 0]), 0).map(|_| ()),
            &["target_modules", "empty"],
        ),
        (
            "a pattern that is none",
            || attach(mlp(), &LoraConfig::new(2).with_target_pattern("("), 0).map(|_| ()),
            &["target_modules", "regular expression"],
        ),
        (
            "an adapter on an adapter",
            || attach(adapted_mlp(2), &LoraConfig::new(2), 0).map(|_| ()),
            &["layers.0", "already"],
        ),
        ("DoRA", || load_adapter(with_adapter_config("use_dora", json!(true))), &["use_dora", "true"]),
        (
            "another PEFT method",
            || load_adapter(with_adapter_config("peft_type", json!("IA3"))),
            &["peft_type", "IA3", "LORA"],
        ),
        ("trained biases", || load_adapter(with_adapter_config("bias", json!("all"))), &["bias", "all", "none"]),
        (
            "trained heads",
            || load_adapter(with_adapter_config("modules_to_save", json!(["lm_head"]))),
            &["modules_to_save", "lm_head"],
        ),
        ("rank 0 in the file", || load_adapter(with_adapter_config("r", json!(0))), &["rank", "at least 1", "got 0"]),
        (
            "another rank in the file",
            || load_adapter(with_adapter_config("r", json!(3))),
            &["lora_A", "[3, 32]", "[4, 32]"],
        ),
        (
            "no adapter weights",
            || load_adapter(|d| std::fs::remove_file(d.join("adapter_model.safetensors")).unwrap()),
            &["adapter_model.safetensors"],
        ),
        (
            "a missing adapter tensor",
            || load_adapter(|d| edit_tensors(&d.join("adapter_model.safetensors"), |t| drop(t.remove(B).unwrap()))),
            &[B, "missing"],
        ),
        (
            "an adapter tensor of another shape",
            || {
                load_adapter(|d| {
                    edit_tensors(&d.join("adapter_model.safetensors"), |t| drop(t.insert(B.into(), zeros(&[16, 5]))))
                })
            },
            &[B, "[16, 4]", "[16, 5]"],
        ),
        (
            "an unexpected adapter tensor",
            || {
                load_adapter(|d| {
                    edit_tensors(&d.join("adapter_model.safetensors"), |t| {
                        drop(t.insert("more.weight".into(), zeros(&[2, 3])))
                    })
                })
            },
            &["1 tensors", "more.weight", "[2, 3]"],
        ),
        (
            "a posterior without an adapter",
            || fit_kronecker(&mlp(), &points(), &CurvatureConfig::default(), &silent()).map(|_| ()),
            &["adapter"],
        ),
        (
            "training without an adapter",
            || trainer(|_| ())?.fit(mlp(), &points(), None, &silent()).map(|_| ()),
            &["adapter"],
        ),
        (
            "saving without an adapter",
            || {
                let dir = tempfile::tempdir().unwrap();
                save_peft(&mlp(), &LoraConfig::new(2), "none", dir.path())
            },
            &["adapter"],
        ),
        (
            "saving into a file",
            || {
                let (_dir, path) = file_in_the_way();
                save_peft(&adapted_mlp(2), &LoraConfig::new(2), "none", path)
            },
            &["occupied"],
        ),
        (
            "weights of another shape",
            || {
                let mut weights = read_adapter(&adapted_mlp(2))?;
                let site = Site { module: "layers.1".into(), matrix: LoraMatrix::B };
                weights.insert(site, Array2::zeros((3, 4)));
                write_adapter(adapted_mlp(2), &weights).map(|_| ())
            },
            &["layers.1.lora_B", "[3, 2]", "[3, 4]"],
        ),
        (
            "weights that lack a site",
            || {
                let mut weights = read_adapter(&adapted_mlp(2))?;
                weights.remove(&Site { module: "layers.0".into(), matrix: LoraMatrix::A });
                write_adapter(adapted_mlp(2), &weights).map(|_| ())
            },
            &["layers.0.lora_A"],
        ),
        (
            "a prior at an unknown start",
            || {
                let (model, data) = (adapted(), train_data());
                let curvature = fit_kronecker(&model, &data, &CurvatureConfig::default(), &silent())?;
                let config = LaplaceConfig { prior_mean: PriorMean::Initial, ..LaplaceConfig::default() };
                Laplace::new(&model, &curvature, &config).map(|_| ())
            },
            &["start", "model.layers.0.self_attn.q_proj.lora_A"],
        ),
    ]);
}

#[test]
fn bad_data_are_refused_by_name_and_numbers() {
    const GOOD: &str = r#"{"id": "a", "question": "yes?", "choices": ["yes", "no"], "answer": 1}"#;
    fn dataset(edit: impl FnOnce(&mut EncodedDataset)) -> EncodedDataset {
        let mut data = train_data();
        edit(&mut data);
        data
    }
    fn without_items() -> EncodedDataset {
        dataset(|d| d.items.clear())
    }
    fn fit(data: &EncodedDataset) -> Result<()> {
        trainer(|_| ())?.fit(adapted(), data, None, &silent()).map(|_| ())
    }
    fn curve(data: &EncodedDataset) -> Result<()> {
        fit_kronecker(&adapted(), data, &CurvatureConfig::default(), &silent()).map(|_| ())
    }
    check(&[
        (
            "an answer beyond the choices",
            || Task::new("t", vec![Item::new("q3", "yes?", ["yes", "no"]).with_answer(2)]).map(|_| ()),
            &["`q3`", "label 2", "2 classes"],
        ),
        (
            "training on a label out of range",
            || fit(&dataset(|d| d.items[3].label = Some(9))),
            &["train-3", "label 9", "4 classes"],
        ),
        (
            "curvature on a label out of range",
            || curve(&dataset(|d| d.items[3].label = Some(9))),
            &["train-3", "label 9", "4 classes"],
        ),
        (
            "a label that the item has no choice for",
            || fit(&dataset(|d| (d.items[3].label, d.items[3].n_choices) = (Some(3), 3))),
            &["train-3", "label 3", "3 classes"],
        ),
        (
            "curvature on such a label",
            || curve(&dataset(|d| (d.items[3].label, d.items[3].n_choices) = (Some(3), 3))),
            &["train-3", "label 3", "3 classes"],
        ),
        ("training without a label", || fit(&dataset(|d| d.items[5].label = None)), &["train-5", "label"]),
        (
            "validation without a label",
            || trainer(|_| ())?.fit(adapted(), &train_data(), Some(&Fixture::load(NAME).test), &silent()).map(|_| ()),
            &["test-0", "label"],
        ),
        ("an empty task file", || task_file("\n\n"), &["quiz.jsonl", "empty"]),
        (
            "an empty task",
            || {
                let task = Task::new("quiz", vec![])?;
                let encoding =
                    Encoding::new(PromptTemplate::question_answer(), AnswerForm::class_tokens(["yes", "no"]));
                encoding.encode(&task, &words()).map(|_| ())
            },
            &["`quiz`", "empty"],
        ),
        ("training on nothing", || fit(&without_items()), &["train", "empty"]),
        ("curvature of nothing", || curve(&without_items()), &["train", "empty"]),
        (
            "prediction of nothing",
            || predict_map(&adapted(), &without_items(), &LIMITS, &silent()).map(|_| ()),
            &["train", "empty"],
        ),
        ("no points", || Points::new(Array2::zeros((0, 2)), vec![]).map(|_| ()), &["points", "empty"]),
        (
            "prediction of no points",
            || {
                let none = Points { features: Array2::zeros((0, 2)), labels: vec![] };
                predict_map(&adapted_mlp(2), &none, &LIMITS, &silent()).map(|_| ())
            },
            &["points", "empty"],
        ),
        ("points that are NaN", || Points::new(array![[f64::NAN, 1.0]], vec![]).map(|_| ()), &["features", "1 of 2"]),
        (
            "fewer labels than points",
            || Points::new(array![[0.0], [1.0], [2.0]], vec![0, 1]).map(|_| ()),
            &["labels", "expected 3", "found 2"],
        ),
        (
            "points of another width",
            || {
                let wide = Points::new(Array2::ones((2, 3)), vec![0, 1])?;
                predict_map(&adapted_mlp(2), &wide, &LIMITS, &silent()).map(|_| ())
            },
            &["features", "[2, 2]", "[2, 3]"],
        ),
        (
            "training on points of another width",
            || {
                let wide = Points::new(Array2::ones((2, 3)), vec![0, 1])?;
                trainer(|_| ())?.fit(adapted_mlp(2), &wide, None, &silent()).map(|_| ())
            },
            &["features", "[2, 2]", "[2, 3]"],
        ),
        (
            "data with another number of classes",
            || predict_map(&adapted(), &dataset(|d| d.n_classes = 5), &LIMITS, &silent()).map(|_| ()),
            &["classes", "expected 4", "found 5"],
        ),
        (
            "data that ask in another form",
            || predict_map(&adapted(), &continuation_dataset(), &LIMITS, &silent()).map(|_| ()),
            &["another form"],
        ),
        (
            "a token beyond the vocabulary in later data",
            || curve(&dataset(|d| d.items[4].rows[0].ids[1] = 96)),
            &["token id", "below", "96"],
        ),
        (
            "a continuation whose first token is scored",
            || {
                let mut data = continuation_dataset();
                let model = Fixture::load(NAME).model_for(&data, DType::F32);
                data.items[2].rows[1].scored = 0..3;
                predict_map(&model, &data, &LIMITS, &silent()).map(|_| ())
            },
            &["continuation-2", "1..", "0..3"],
        ),
        (
            "a token beyond any vocabulary",
            || curve(&dataset(|d| d.items[4].rows[0].ids[1] = 4_000_000_000)),
            &["token id", "2147483647", "4000000000"],
        ),
        (
            "a malformed line",
            || task_file(&format!("{GOOD}\n{GOOD}\n{{\"id\": \"b\", \"question\": }}\n")),
            &["quiz.jsonl:3", "column"],
        ),
        ("a line that is no object", || task_file(&format!("{GOOD}\n[1, 2]\n")), &["quiz.jsonl:2", "object"]),
        (
            "a line without choices",
            || task_file(r#"{"id": "a", "question": "yes?", "choices": []}"#),
            &["quiz.jsonl:1", "choices", "empty"],
        ),
        (
            "a line whose answer is out of range",
            || task_file(&GOOD.replace("1}", "5}")),
            &["quiz.jsonl:1", "label 5", "2 classes"],
        ),
        ("a tokenizer that is none", || Tokenizer::from_bytes(b"{}").map(|_| ()), &["tokenizer"]),
        ("a class of two tokens", || encode([" yes", " no no"], 99), &["` no no`", "2 tokens", "[\"no\", \"no\"]"]),
        ("two classes that are one token", || encode([" yes", " yes"], 99), &["` yes`", "same token 1"]),
        ("a prompt longer than the context", || encode([" yes", " no"], 5), &["`q7`", "10 tokens", "limit of 5"]),
        (
            "a choice more than class tokens",
            || {
                let task = Task::new("quiz", vec![Item::new("q8", "yes?", ["yes", "no", "maybe"])])?;
                let encoding =
                    Encoding::new(PromptTemplate::question_answer(), AnswerForm::class_tokens([" yes", " no"]));
                encoding.encode(&task, &words()).map(|_| ())
            },
            &["`q8`", "expected 2", "found 3"],
        ),
        (
            "an empty choice",
            || {
                let task = Task::new("quiz", vec![Item::new("q9", "yes?", ["yes", " "])])?;
                let form = AnswerForm::Continuation { normalization: Normalization::Sum };
                Encoding::new(PromptTemplate::question_answer(), form).encode(&task, &words()).map(|_| ())
            },
            &["`q9`", "no token"],
        ),
        (
            "a token beyond the vocabulary",
            || {
                let lm = Pretrained::from_dir(root().join("tests/fixtures").join(NAME).join("base"))?.load(&device())?;
                PromptClassifier::new(lm, &dataset(|d| d.items[4].rows[0].ids[1] = 96)).map(|_| ())
            },
            &["train-4", "id 96", "of 96"],
        ),
        (
            "a class token beyond the vocabulary",
            || {
                let lm = Pretrained::from_dir(root().join("tests/fixtures").join(NAME).join("base"))?.load(&device())?;
                PromptClassifier::new(lm, &dataset(|d| d.answers = ResolvedAnswers::ClassTokens(vec![5, 17, 40, 100])))
                    .map(|_| ())
            },
            &["class tokens", "id 100", "of 96"],
        ),
        (
            "batches of nothing",
            || {
                predict_map(&adapted(), &train_data(), &BatchLimits { max_items: 0, max_tokens: 9 }, &silent())
                    .map(|_| ())
            },
            &["max_items", "at least 1", "got 0"],
        ),
    ]);
}

#[test]
fn bad_settings_are_refused_by_name_and_numbers() {
    fn labelless() -> Points {
        Points { labels: vec![], ..points() }
    }
    check(&[
        ("learning rate 0", || trainer(|c| c.learning_rate = 0.0).map(|_| ()), &["learning_rate", "positive", "got 0"]),
        ("learning rate NaN", || trainer(|c| c.learning_rate = f64::NAN).map(|_| ()), &["learning_rate", "NaN"]),
        ("no epochs", || trainer(|c| c.epochs = 0).map(|_| ()), &["epochs", "at least 1", "got 0"]),
        ("no accumulation", || trainer(|c| c.accumulation = 0).map(|_| ()), &["accumulation", "at least 1", "got 0"]),
        (
            "warm-up to the end",
            || trainer(|c| c.warmup_fraction = 1.0).map(|_| ()),
            &["warmup_fraction", "[0, 1)", "got 1"],
        ),
        (
            "a negative norm",
            || trainer(|c| c.max_grad_norm = Some(-1.0)).map(|_| ()),
            &["max_grad_norm", "positive", "got -1"],
        ),
        (
            "negative decay",
            || trainer(|c| c.weight_decay = -0.1).map(|_| ()),
            &["weight_decay", "at least 0", "got -0.1"],
        ),
        (
            "settings that init checks",
            || {
                let mut config = BayesLoraConfig::new(LoraConfig::new(2));
                config.curvature.low_rank = 0;
                config.init().map(|_| ())
            },
            &["low_rank", "at least 1", "got 0"],
        ),
        (
            "a log in a folder that is none",
            || {
                let (_dir, path) = file_in_the_way();
                let config = |c: &mut TrainerConfig| c.log = Some(path.join("log.jsonl"));
                trainer(config)?.fit(adapted_mlp(2), &points(), None, &silent()).map(|_| ())
            },
            &["occupied", "log.jsonl"],
        ),
        (
            "a partial mode that matches nothing",
            || set_trainable(mlp(), &TrainingMode::Partial(vec!["layers.7".into()])).map(|_| ()),
            &["layers.7"],
        ),
        ("prior precision 0", || PriorPrecision::new(0.0).map(|_| ()), &["prior precision", "positive", "got 0"]),
        ("prior precision NaN", || PriorPrecision::new(f64::NAN).map(|_| ()), &["prior precision", "NaN"]),
        (
            "`last` with continuations",
            || {
                let data = continuation_dataset();
                let model = attach(Fixture::load(NAME).model_for(&data, DType::F32), &LoraConfig::new(2), 0)?;
                let config = CurvatureConfig { treatment: TokenTreatment::Last, ..CurvatureConfig::default() };
                fit_kronecker(&model, &data, &config, &silent()).map(|_| ())
            },
            &["last", "continuation"],
        ),
        (
            "an empirical Fisher without labels",
            || {
                curvature_with(
                    CurvatureConfig { fisher: FisherKind::Empirical, ..CurvatureConfig::default() },
                    &labelless(),
                )
            },
            &["empirical", "label", "point 0"],
        ),
        (
            "a sampled Fisher without samples",
            || {
                curvature_with(
                    CurvatureConfig { fisher: FisherKind::Sampled { n: 0, seed: 0 }, ..CurvatureConfig::default() },
                    &points(),
                )
            },
            &["labels", "at least 1", "got 0"],
        ),
        (
            "a sampled Fisher of a Gaussian",
            || {
                let likelihood = Likelihood::Gaussian { noise_variance: 1.0 };
                curvature_with(
                    CurvatureConfig {
                        fisher: FisherKind::Sampled { n: 1, seed: 0 },
                        likelihood,
                        ..CurvatureConfig::default()
                    },
                    &points(),
                )
            },
            &["Gaussian", "Sampled"],
        ),
        (
            "negative noise",
            || {
                let likelihood = Likelihood::Gaussian { noise_variance: -1.0 };
                curvature_with(CurvatureConfig { likelihood, ..CurvatureConfig::default() }, &points())
            },
            &["noise_variance", "positive", "got -1"],
        ),
        (
            "an evidence without labels",
            || {
                let model = adapted_mlp(2);
                let curvature = fit_kronecker(&model, &labelless(), &CurvatureConfig::default(), &silent())?;
                let config =
                    LaplaceConfig { prior_precision: Some(PriorPrecision::new(1.0)?), ..LaplaceConfig::default() };
                Laplace::new(&model, &curvature, &config)?
                    .log_marginal_likelihood(PriorPrecision::new(1.0)?)
                    .map(|_| ())
            },
            &["evidence", "labels"],
        ),
        (
            "an evidence at the prior's centre",
            || {
                let model = adapted_mlp(2);
                let curvature = fit_kronecker(&model, &points(), &CurvatureConfig::default(), &silent())?;
                Laplace::new(&model, &curvature, &LaplaceConfig::default()).map(|_| ())
            },
            &["evidence", "is 0"],
        ),
        (
            "the posterior of fewer sites",
            || {
                let fewer = attach(mlp(), &LoraConfig::new(2).with_target_modules(["layers.0"]), 0)?;
                let limits = BatchLimits { max_items: 2, max_tokens: 2 };
                predict(&adapted_mlp(2), &posterior_of(&fewer), &points(), Predictive::default(), &limits, &silent())
                    .map(|_| ())
            },
            &["sites", "expected 2", "found 4"],
        ),
        (
            "the posterior of another rank",
            || {
                let other = adapted_mlp(1);
                predict(&adapted_mlp(2), &posterior_of(&other), &points(), Predictive::default(), &LIMITS, &silent())
                    .map(|_| ())
            },
            &["layers.0.lora_A", "[1, 2]", "[2, 2]"],
        ),
        (
            "the posterior of another module",
            || {
                let square = MlpConfig::new([3, 3, 3]).init(&device())?;
                let at = |target: &str| attach(square.clone(), &LoraConfig::new(2).with_target_modules([target]), 0);
                let data = Points::new(Array2::ones((2, 3)), vec![0, 1])?;
                let curvature = fit_kronecker(&at("layers.0")?, &data, &CurvatureConfig::default(), &silent())?;
                let config =
                    LaplaceConfig { prior_precision: Some(PriorPrecision::new(1.0)?), ..LaplaceConfig::default() };
                let laplace = Laplace::new(&at("layers.0")?, &curvature, &config)?;
                let model = at("layers.1")?;
                let input = data.batch(&[0, 1], &model.device(), model.dtype())?;
                laplace.project(&probe(&model, &input, Cotangents::Classes)?).map(|_| ())
            },
            &["layers.0.lora_A", "layers.1.lora_A"],
        ),
        (
            "the curvature of another adapter",
            || {
                let curvature = fit_kronecker(&adapted_mlp(1), &points(), &CurvatureConfig::default(), &silent())?;
                let config =
                    LaplaceConfig { prior_precision: Some(PriorPrecision::new(1.0)?), ..LaplaceConfig::default() };
                Laplace::new(&adapted_mlp(2), &curvature, &config).map(|_| ())
            },
            &["layers.0.lora_A", "[2, 2]", "[1, 2]"],
        ),
        (
            "no draws",
            || {
                let (model, draws) = (adapted_mlp(2), read_adapter(&adapted_mlp(2))?);
                predict_sampled(&model, &points(), |_| draws.clone(), 0, &LIMITS, &silent()).map(|_| ())
            },
            &["n_samples", "at least 1", "got 0"],
        ),
        (
            "weights so large that logits overflow",
            || {
                let weights = read_adapter(&adapted_mlp(2))?.into_iter().map(|(site, w)| (site, w.mapv(|_| 1e30)));
                let model = write_adapter(adapted_mlp(2), &weights.collect())?;
                predict_map(&model, &points(), &LIMITS, &silent()).map(|_| ())
            },
            &["logits", "of 9"],
        ),
        (
            "quadrature over three classes",
            || {
                let belief =
                    LogitBelief::Gaussian { mean: Array2::zeros((1, 3)), covariance: ndarray::Array3::ones((1, 3, 3)) };
                belief.probabilities(LinkApprox::GaussHermite { points: 8 }).map(|_| ())
            },
            &["classes", "expected 2", "found 3"],
        ),
        ("a network of one width", || MlpConfig::new([3]).init(&device()).map(|_| ()), &["widths", "two", "[3]"]),
        ("no workers", || Control::silent().with_workers(0).map(|_| ()), &["workers", "at least 1", "got 0"]),
    ]);
}

#[test]
fn cancelled_work_says_what_and_how_far() {
    let control = Control::silent();
    control.cancel();
    let limits = BatchLimits { max_items: 2, max_tokens: 9 };
    let error = predict_map(&mlp(), &points(), &limits, &control).unwrap_err();
    assert!(matches!(error, Error::Cancelled { done: 2, total: 3, .. }), "{error}");
}
