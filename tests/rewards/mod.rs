//! Rewards from preferences, and numbers: rewards and gradients are those of transformers and PEFT in f64, curvature and beliefs those of
//! dense matrices by finite differences, noise and prior those with the most evidence of a dense Gaussian.

mod pairs;
mod values;

use crate::support::{device, has_f64, root};
use bayes_lora::data::{BatchLimits, EncodedDataset, EncodedItem, EncodedRow, ResolvedAnswers};
use bayes_lora::models::{CausalLm, Encoder, Pretrained, PretrainedEncoder};
use bayes_lora::tape::{LoraMatrix, Site};
use burn::tensor::DType;
use ndarray::{Array2, ArrayD, Axis, IxDyn, concatenate};
use safetensors::SafeTensors;
use serde_json::Value;
use std::path::PathBuf;

const LIMITS: BatchLimits = BatchLimits { max_items: 3, max_tokens: 1000 };

fn dir() -> PathBuf {
    root().join("tests/fixtures/tiny_reward")
}

fn adapter(name: &str) -> PathBuf {
    dir().join(name).join("adapter")
}

fn json(key: &str) -> Value {
    let text = std::fs::read_to_string(dir().join("data.json")).unwrap();
    serde_json::from_str::<Value>(&text).unwrap()[key].clone()
}

fn row(ids: Vec<u32>) -> EncodedRow {
    EncodedRow { ids, scored: 0..0, weight: 1.0, types: Vec::new() }
}

fn dataset(items: Vec<EncodedItem>, answers: ResolvedAnswers, n_classes: usize) -> EncodedDataset {
    EncodedDataset { name: "texts".into(), items, answers, n_classes, n_truncated: 0, asked: None }
}

/// The four pairs, two texts each.
fn pairs() -> EncodedDataset {
    let rows: Vec<[Vec<u32>; 2]> = serde_json::from_value(json("pairs")).unwrap();
    let labels: Vec<usize> = serde_json::from_value(json("preferred")).unwrap();
    let item = |(i, (texts, label)): (usize, ([Vec<u32>; 2], usize))| EncodedItem {
        id: i.to_string(),
        rows: texts.into_iter().map(row).collect(),
        label: Some(label),
        n_choices: 2,
    };
    dataset(rows.into_iter().zip(labels).enumerate().map(item).collect(), ResolvedAnswers::Rewards, 2)
}

fn encoder(dtype: DType) -> Encoder {
    let base = root().join("tests/fixtures/tiny_bert/base");
    PretrainedEncoder::from_dir(base).unwrap().with_dtype(dtype).load(&device()).unwrap().encoder
}

fn decoder(dtype: DType) -> CausalLm {
    let base = root().join("tests/fixtures/tiny_llama/base");
    Pretrained::from_dir(base).unwrap().with_dtype(dtype).load(&device()).unwrap()
}

/// What PyTorch says.
fn expected(name: &str, key: &str) -> Option<ArrayD<f64>> {
    let bytes = std::fs::read(dir().join(name).join("expected.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let view = file.tensor(key).ok()?;
    let values = view.data().chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect();
    Some(ArrayD::from_shape_vec(IxDyn(view.shape()), values).unwrap())
}

/// Its gradient at a site; of a head with a bias, both side by side as they are held here.
fn expected_gradient(name: &str, loss: &str, site: &Site) -> Array2<f64> {
    let weight = match site.matrix {
        LoraMatrix::Whole => format!("{loss}.{site}"),
        _ => format!("{loss}.{site}.weight"),
    };
    let weight = expected(name, &weight).unwrap();
    let bias = expected(name, &format!("{loss}.{}.bias", site.module)).filter(|_| site.matrix == LoraMatrix::Whole);
    let whole = match bias {
        None => weight,
        Some(bias) => concatenate(Axis(1), &[weight.view(), bias.insert_axis(Axis(1)).view()]).unwrap(),
    };
    whole.into_dimensionality().unwrap()
}

/// Element types with the tolerance that each deserves: a hundred operations in f32; in f64 what the error function and rotary tables are
/// approximated to.
fn precisions() -> Vec<(DType, f64)> {
    let f64_too = has_f64().then_some((DType::F64, 1e-6));
    [(DType::F32, 1e-4)].into_iter().chain(f64_too).collect()
}
