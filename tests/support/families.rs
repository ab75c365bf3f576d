//! A tiny model of every family of decoders, and what PyTorch says about it in f64 (`tests/fixtures/make_families.py`).

use super::{device, root};
use bayes_lora::data::{EncodedDataset, EncodedItem, EncodedRow, ResolvedAnswers};
use bayes_lora::lora::load_peft;
use bayes_lora::models::{Pretrained, PromptClassifier};
use burn::tensor::DType;
use ndarray::{Array1, Array2, Array3};
use safetensors::SafeTensors;
use std::path::PathBuf;
use tempfile::TempDir;

/// `model_type` of every family but `llama` and `qwen2`, which have fixtures of their own.
pub const FAMILIES: [&str; 11] = [
    "qwen3",
    "mistral",
    "phi3",
    "gemma2",
    "gemma3_text",
    "gemma3",
    "olmo2",
    "granite",
    "smollm3",
    "olmo3",
    "ministral3",
];

/// The configuration as transformers 5 writes it, and as it was written before.
pub const SPELLINGS: [&str; 2] = ["config.json", "config.old.json"];

pub struct FamilyFixture {
    pub name: &'static str,
    pub data: EncodedDataset,
    /// PEFT's names of the adapted matrices, in the order of the expected derivatives.
    pub order: Vec<String>,
    pub shapes: Vec<[usize; 2]>,
    expected: Vec<u8>,
}

impl FamilyFixture {
    pub fn load(name: &'static str) -> Self {
        let dir = dir(name);
        let text = std::fs::read_to_string(dir.join("data.json")).unwrap();
        let data: serde_json::Value = serde_json::from_str(&text).unwrap();
        let prompts: Vec<Vec<u32>> = serde_json::from_value(data["prompts"].clone()).unwrap();
        let labels: Vec<usize> = serde_json::from_value(data["labels"].clone()).unwrap();
        let classes: Vec<u32> = serde_json::from_value(data["class_token_ids"].clone()).unwrap();
        let n_classes = classes.len();
        let item = |(i, ids): (usize, Vec<u32>)| EncodedItem {
            id: format!("{name}-{i}"),
            rows: vec![EncodedRow { ids, scored: 0..0, weight: 1.0, types: Vec::new() }],
            label: Some(labels[i]),
            n_choices: n_classes,
        };
        Self {
            name,
            order: serde_json::from_value(data["parameter_order"].clone()).unwrap(),
            shapes: serde_json::from_value(data["shapes"].clone()).unwrap(),
            data: EncodedDataset {
                name: name.into(),
                items: prompts.into_iter().enumerate().map(item).collect(),
                answers: ResolvedAnswers::ClassTokens(classes),
                n_classes,
                n_truncated: 0,
                asked: None,
            },
            expected: std::fs::read(dir.join("expected.safetensors")).unwrap(),
        }
    }

    fn values(&self, key: &str) -> Array1<f64> {
        let file = SafeTensors::deserialize(&self.expected).unwrap();
        let bytes = file.tensor(key).unwrap().data();
        bytes.chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect()
    }

    /// `[n, C]`
    pub fn logits(&self) -> Array2<f64> {
        let shape = (self.data.items.len(), self.data.n_classes);
        self.values("logits").into_shape_with_order(shape).unwrap()
    }

    /// Of the summed NLL, a matrix for each of `order`.
    pub fn gradient(&self) -> Vec<Array2<f64>> {
        let whole = self.values("nll_gradient").insert_axis(ndarray::Axis(0));
        self.cut(&whole).into_iter().map(|part| part.index_axis_move(ndarray::Axis(0), 0)).collect()
    }

    /// Of the last item, `[C, d_out, d_in]` for each of `order`.
    pub fn jacobian(&self) -> Vec<Array3<f64>> {
        let whole = self.values("jacobian");
        let shape = (self.data.n_classes, whole.len() / self.data.n_classes);
        self.cut(&whole.into_shape_with_order(shape).unwrap())
    }

    fn cut(&self, whole: &Array2<f64>) -> Vec<Array3<f64>> {
        let mut start = 0;
        let part = |&[rows, columns]: &[usize; 2]| {
            let values = whole.slice(ndarray::s![.., start..start + rows * columns]).iter().copied().collect();
            start += rows * columns;
            Array3::from_shape_vec((whole.nrows(), rows, columns), values).unwrap()
        };
        self.shapes.iter().map(part).collect()
    }

    /// A directory with one spelling of the configuration.
    pub fn base(&self, spelling: &str) -> TempDir {
        let (from, to) = (dir(self.name), tempfile::tempdir().unwrap());
        std::fs::copy(from.join(spelling), to.path().join("config.json")).unwrap();
        std::fs::copy(from.join("model.safetensors"), to.path().join("model.safetensors")).unwrap();
        to
    }

    /// Without an adapter.
    pub fn bare(&self, spelling: &str, dtype: DType) -> PromptClassifier {
        let dir = self.base(spelling);
        let checkpoint = Pretrained::from_dir(dir.path()).unwrap().with_dtype(dtype);
        let (lm, report) = checkpoint.load_with_report(&device()).unwrap();
        let of_images = |name: &String| name.starts_with("vision_tower.") || name.starts_with("multi_modal_projector.");
        let is_larger = lm.config().inside;
        assert!(
            report.is_empty() != is_larger && report.unread_tensors.iter().all(of_images),
            "{}: {report}",
            self.name
        );
        PromptClassifier::new(lm, &self.data).unwrap()
    }

    /// With PEFT's adapter.
    pub fn model(&self, spelling: &str, dtype: DType) -> PromptClassifier {
        load_peft(self.bare(spelling, dtype), dir(self.name).join("adapter")).unwrap().0
    }
}

pub fn dir(name: &str) -> PathBuf {
    root().join("tests/fixtures/families").join(name)
}
