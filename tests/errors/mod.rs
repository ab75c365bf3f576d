//! Bad input is refused with an error that names the thing and both numbers; nothing panics.

mod data;
mod lora;
mod models;
mod peft;
mod posterior;
mod prediction;
mod settings;

use crate::support::{Fixture, device, root};
use bayes_lora::data::{BatchLimits, EncodedDataset};
use bayes_lora::error::Result;
use bayes_lora::lora::{LoraConfig, attach};
use bayes_lora::models::{Mlp, MlpConfig, Points, PromptClassifier};
use bayes_lora::progress::Control;
use bayes_lora::train::{Trainer, TrainerConfig};
use burn::tensor::DType;
use ndarray::array;
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde_json::Value;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
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

/// Changes one field of a JSON file in a folder.
fn with_field(file: &str, field: &str, value: Value) -> impl FnOnce(&Path) {
    move |dir: &Path| {
        let path = dir.join(file);
        let mut json: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        json[field] = value;
        std::fs::write(&path, json.to_string()).unwrap();
    }
}

/// Shape and bytes by name.
type Tensors = BTreeMap<String, (Vec<usize>, Vec<u8>)>;

/// Changes the tensors of a file in a folder.
fn with_tensors(file: &str, edit: impl FnOnce(&mut Tensors)) -> impl FnOnce(&Path) {
    move |dir: &Path| {
        let path = dir.join(file);
        let bytes = std::fs::read(&path).unwrap();
        let whole = SafeTensors::deserialize(&bytes).unwrap();
        let parts = whole.tensors().into_iter();
        let mut tensors: Tensors =
            parts.map(|(name, view)| (name, (view.shape().to_vec(), view.data().to_vec()))).collect();
        edit(&mut tensors);
        let views = tensors
            .iter()
            .map(|(name, (shape, data))| (name, TensorView::new(Dtype::F32, shape.clone(), data).unwrap()));
        std::fs::write(&path, safetensors::serialize(views, None).unwrap()).unwrap();
    }
}

fn zeros(shape: &[usize]) -> (Vec<usize>, Vec<u8>) {
    (shape.to_vec(), vec![0; 4 * shape.iter().product::<usize>()])
}

/// The model of the fixture with its adapter.
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

fn trainer(edit: impl FnOnce(&mut TrainerConfig)) -> Result<Trainer> {
    let mut config = TrainerConfig::default().with_epochs(1);
    edit(&mut config);
    Trainer::new(config)
}

/// A file where a folder should be.
fn file_in_the_way() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("occupied");
    std::fs::write(&path, "").unwrap();
    (dir, path)
}
