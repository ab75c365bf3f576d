//! What several tests share: the device under test and the fixtures.
#![allow(dead_code)] // every test file uses a part

use bayes_lora::data::{EncodedDataset, EncodedItem, EncodedRow, ResolvedAnswers};
use bayes_lora::lora::load_peft;
use bayes_lora::models::{Pretrained, PromptClassifier};
use burn::tensor::{DType, Device};
use ndarray::{Array, Array1, Array2, Array4, ArrayD, Axis, Dimension, IxDyn};
use safetensors::SafeTensors;
use std::path::PathBuf;

/// `BAYES_LORA_TEST_DEVICE` = `flex` (default) or `wgpu`.
pub fn device() -> Device {
    match std::env::var("BAYES_LORA_TEST_DEVICE").as_deref() {
        #[cfg(feature = "wgpu")]
        Ok("wgpu") => Device::wgpu(burn::tensor::DeviceKind::DefaultDevice),
        #[cfg(feature = "cuda")]
        Ok("cuda") => Device::cuda(0),
        Err(_) | Ok("flex") => Device::flex(),
        Ok(other) => panic!("BAYES_LORA_TEST_DEVICE={other} needs its feature"),
    }
}

/// True on the CPU backend, the only one here with f64.
pub fn has_f64() -> bool {
    device().supports_dtype(DType::F64)
}

pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// A tiny pretrained model with a PEFT adapter and what PyTorch says about it in f64.
pub struct Fixture {
    pub name: &'static str,
    pub train: EncodedDataset,
    pub test: EncodedDataset,
    bytes: Vec<u8>,
    pub parameter_order: Vec<String>,
    pub shapes: Vec<[usize; 2]>,
}

pub const FIXTURES: [&str; 2] = ["tiny_llama", "tiny_llama_all_linear"];

impl Fixture {
    pub fn load(name: &'static str) -> Self {
        let dir = root().join("tests/fixtures").join(name);
        let json = |file: &str| -> serde_json::Value {
            serde_json::from_str(&std::fs::read_to_string(dir.join(file)).unwrap()).unwrap()
        };
        let (data, meta) = (json("data.json"), json("meta.json"));
        let class_ids: Vec<u32> = serde_json::from_value(data["class_token_ids"].clone()).unwrap();
        let labels: Vec<usize> = serde_json::from_value(data["labels"].clone()).unwrap();
        let dataset = |key: &str, labels: Option<&[usize]>| {
            let rows: Vec<Vec<u32>> = serde_json::from_value(data[key].clone()).unwrap();
            EncodedDataset {
                name: key.into(),
                items: rows
                    .into_iter()
                    .enumerate()
                    .map(|(i, ids)| EncodedItem {
                        id: format!("{key}-{i}"),
                        rows: vec![EncodedRow { ids, scored: 0..0, weight: 1.0 }],
                        label: labels.map(|l| l[i]),
                        n_choices: 4,
                    })
                    .collect(),
                answers: ResolvedAnswers::ClassTokens(class_ids.clone()),
                n_classes: 4,
                n_truncated: 0,
            }
        };
        Self {
            name,
            train: dataset("train", Some(&labels)),
            test: dataset("test", None),
            bytes: std::fs::read(dir.join("expected.safetensors")).unwrap(),
            parameter_order: serde_json::from_value(meta["parameter_order"].clone()).unwrap(),
            shapes: serde_json::from_value(meta["shapes"].clone()).unwrap(),
        }
    }

    pub fn model(&self, dtype: DType) -> PromptClassifier {
        let dir = root().join("tests/fixtures").join(self.name);
        let lm = Pretrained::from_dir(dir.join("base")).unwrap().with_dtype(dtype).load(&device()).unwrap();
        let model = PromptClassifier::new(lm, &self.train).unwrap();
        load_peft(model, dir.join("adapter")).unwrap().0
    }

    pub fn expected(&self, key: &str) -> ArrayD<f64> {
        let file = SafeTensors::deserialize(&self.bytes).unwrap();
        let view = file.tensor(key).unwrap_or_else(|_| panic!("fixture {} has no {key}", self.name));
        let values = view.data().chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect();
        ArrayD::from_shape_vec(IxDyn(view.shape()), values).unwrap()
    }

    pub fn matrix(&self, key: &str) -> Array2<f64> {
        self.expected(key).into_dimensionality().unwrap()
    }

    pub fn scalar(&self, key: &str) -> f64 {
        self.expected(key).sum()
    }

    /// The Jacobian `[n, C, P]` under `key`, cut into one `[n, C, d_out, d_in]` for every matrix in order.
    pub fn jacobians(&self, key: &str) -> Vec<Array4<f64>> {
        let whole = self.expected(key);
        let (n, c) = (whole.shape()[0], whole.shape()[1]);
        let mut offset = 0;
        self.shapes
            .iter()
            .map(|&[rows, columns]| {
                let part = whole.slice_axis(Axis(2), (offset..offset + rows * columns).into());
                offset += rows * columns;
                let values: Vec<f64> = part.iter().copied().collect();
                Array4::from_shape_vec((n, c, rows, columns), values).unwrap()
            })
            .collect()
    }
}

/// Largest difference divided by the largest magnitude expected.
pub fn relative_error<D: Dimension>(found: &Array<f64, D>, expected: &Array<f64, D>) -> f64 {
    assert_eq!(found.shape(), expected.shape());
    let scale = expected.iter().fold(0.0f64, |m, v| m.max(v.abs()));
    let error = found.iter().zip(expected).fold(0.0f64, |m, (a, b)| m.max((a - b).abs()));
    assert!(error.is_finite());
    error / scale.max(f64::MIN_POSITIVE)
}

pub fn flat(parts: &[Array2<f64>]) -> Array1<f64> {
    parts.iter().flat_map(|p| p.iter().copied()).collect()
}
