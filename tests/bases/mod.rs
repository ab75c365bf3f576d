//! Bases as their owners have them: settings said twice, weights beyond the configuration, half precision, files that are not
//! what their names say. Logits are those of transformers 5.24 in f64.

mod element_types;
mod files;
mod random;
mod settings;
mod weights;

use crate::support::{device, root};
use bayes_lora::data::{EncodedDataset, EncodedItem, EncodedRow, ResolvedAnswers};
use bayes_lora::error::Result;
use bayes_lora::models::{CausalLm, LoadReport, Pretrained, PromptClassifier};
use burn::tensor::DType;
use ndarray::Array2;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const WEIGHTS: &str = "model.safetensors";

/// Three prompts, asked for all 96 tokens of the vocabulary.
fn prompts() -> EncodedDataset {
    let rows: [&[u32]; 3] = [&[59, 42, 17, 40, 16], &[68, 77, 90, 5, 21], &[8, 82, 6, 42, 84]];
    let items = rows.into_iter().enumerate().map(|(i, ids)| EncodedItem {
        id: i.to_string(),
        rows: vec![EncodedRow { ids: ids.to_vec(), scored: 0..0, weight: 1.0, types: Vec::new() }],
        label: Some(0),
        n_choices: 96,
    });
    EncodedDataset {
        name: "prompts".into(),
        items: items.collect(),
        answers: ResolvedAnswers::ClassTokens((0..96).collect()),
        n_classes: 96,
        n_truncated: 0,
        asked: None,
    }
}

/// Logits of the last tokens.
fn logits(lm: CausalLm) -> Array2<f64> {
    let data = prompts();
    crate::support::logits(&PromptClassifier::new(lm, &data).unwrap(), &data)
}

fn load(dir: &Path, dtype: DType) -> Result<(CausalLm, LoadReport)> {
    Pretrained::from_dir(dir)?.with_dtype(dtype).load_with_report(&device())
}

/// The widest element type of the device under test.
fn widest() -> DType {
    if crate::support::has_f64() { DType::F64 } else { DType::F32 }
}

/// transformers computes its rotary tables in f32 even in an f64 model, which is 3e-7 in the logits.
fn tolerance() -> f64 {
    if crate::support::has_f64() { 1e-6 } else { 1e-4 }
}

/// Sum and sum of squares of the logits, and the first six of each prompt where they are known.
fn assert_logits(found: &Array2<f64>, [sum, squares]: [f64; 2], first: &[[f64; 6]]) {
    let scale = squares.sqrt();
    let error = (found.sum() - sum).abs() / scale;
    println!("sum {} for {sum}, squares {} for {squares}", found.sum(), found.mapv(|v| v * v).sum());
    assert!(error < tolerance(), "the sum is {} instead of {sum}", found.sum());
    assert!((found.mapv(|v| v * v).sum() / squares - 1.0).abs() < tolerance());
    for (row, first) in found.rows().into_iter().zip(first) {
        for (found, expected) in row.iter().zip(first) {
            assert!((found - expected).abs() < tolerance(), "{found} instead of {expected}");
        }
    }
}

fn fixture(name: &str) -> PathBuf {
    root().join("tests/fixtures").join(name)
}

/// A copy of a directory that the test may change.
fn copy(dir: &Path) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, copy.path().join(path.file_name().unwrap())).unwrap();
    }
    copy
}

fn tiny() -> TempDir {
    copy(&fixture("tiny_llama/base"))
}

/// Changes the fields of `config.json`.
fn configure(dir: &Path, edit: impl FnOnce(&mut Value)) {
    let path = dir.join("config.json");
    let mut json: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    edit(&mut json);
    std::fs::write(&path, json.to_string()).unwrap();
}

/// Element type, shape and bytes by name.
type Tensors = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

fn read(file: &Path) -> Tensors {
    let bytes = std::fs::read(file).unwrap();
    let whole = SafeTensors::deserialize(&bytes).unwrap();
    let parts = whole.tensors().into_iter();
    parts.map(|(name, view)| (name, (view.dtype(), view.shape().to_vec(), view.data().to_vec()))).collect()
}

fn write(file: &Path, tensors: &Tensors) {
    let view = |(dtype, shape, data): &'_ (Dtype, Vec<usize>, Vec<u8>)| (*dtype, shape.clone(), data.clone());
    let owned: Vec<_> = tensors.iter().map(|(name, tensor)| (name.clone(), view(tensor))).collect();
    let views =
        owned.iter().map(|(name, (dtype, shape, data))| (name, TensorView::new(*dtype, shape.clone(), data).unwrap()));
    std::fs::write(file, safetensors::serialize(views, None).unwrap()).unwrap();
}

/// Changes the tensors of `model.safetensors`.
fn reweigh(dir: &Path, edit: impl FnOnce(&mut Tensors)) {
    let mut tensors = read(&dir.join(WEIGHTS));
    edit(&mut tensors);
    write(&dir.join(WEIGHTS), &tensors);
}

/// A tensor of f32 zeros.
fn zeros(shape: &[usize]) -> (Dtype, Vec<usize>, Vec<u8>) {
    (Dtype::F32, shape.to_vec(), vec![0; 4 * shape.iter().product::<usize>()])
}

/// The message of the refusal, which must hold all `parts`.
fn refused<T>(result: Result<T>, parts: &[&str]) {
    let error = match result {
        Ok(_) => panic!("was accepted, instead of an error with {parts:?}"),
        Err(error) => error.to_string(),
    };
    println!("{error}");
    for part in parts {
        assert!(error.contains(part), "«{error}» lacks «{part}»");
    }
}
