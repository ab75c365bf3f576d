//! What several tests share: the device under test and the fixtures.
#![allow(dead_code)] // every test file uses a part

use bayes_lora::belief::LogitBelief;
use bayes_lora::data::{
    BatchLimits, BatchOrder, EncodedDataset, EncodedItem, EncodedRow, PaddingSide, ResolvedAnswers,
};
use bayes_lora::error::Result;
use bayes_lora::lora::{load_peft, read_adapter, write_adapter};
use bayes_lora::models::{Classifier, Dataset, Pretrained, PromptClassifier, TokenBatch};
use bayes_lora::predict::predict_map;
use bayes_lora::progress::Control;
use bayes_lora::tape::Site;
use burn::tensor::{DType, Device, Tensor};
use ndarray::{Array, Array1, Array2, Array4, ArrayD, Axis, Dimension, IxDyn};
use safetensors::SafeTensors;
use std::path::PathBuf;

pub mod allocations;
pub mod families;
pub mod heads;
pub mod points;
pub mod python;

/// `BAYES_LORA_TEST_DEVICE` = `flex` (default), `wgpu-cpu` (a software driver), `wgpu` or `cuda`.
pub fn device() -> Device {
    match std::env::var("BAYES_LORA_TEST_DEVICE").as_deref() {
        #[cfg(feature = "wgpu")]
        Ok("wgpu-cpu") => Device::wgpu(burn::tensor::DeviceKind::Cpu),
        #[cfg(feature = "wgpu")]
        Ok("wgpu") => Device::wgpu(burn::tensor::DeviceKind::DefaultDevice),
        #[cfg(feature = "cuda")]
        Ok("cuda") => Device::cuda(0),
        Err(_) | Ok("flex") => Device::flex(),
        Ok(other) => panic!("BAYES_LORA_TEST_DEVICE={other} needs its feature"),
    }
}

/// True on burn's CPU backend. A software Vulkan driver says that it has f64 too, but burn 0.22.1's kernels are wrong there
/// (relative errors above 1 in the logits where f32 is right to 5e-6).
pub fn has_f64() -> bool {
    !matches!(std::env::var("BAYES_LORA_TEST_DEVICE"), Ok(name) if name != "flex")
        && device().supports_dtype(DType::F64)
}

/// Says so where a test in f64 cannot run.
pub fn f64_or_skip(test: &str) -> bool {
    if !has_f64() {
        println!("{test}: skipped, this device has no f64");
    }
    has_f64()
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

pub const FIXTURES: [&str; 3] = ["tiny_llama", "tiny_llama_all_linear", "tiny_qwen2"];

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
                        rows: vec![EncodedRow { ids, scored: 0..0, weight: 1.0, types: Vec::new() }],
                        label: labels.map(|l| l[i]),
                        n_choices: 4,
                    })
                    .collect(),
                answers: ResolvedAnswers::ClassTokens(class_ids.clone()),
                n_classes: 4,
                n_truncated: 0,
                asked: None,
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

    pub fn dir(&self) -> PathBuf {
        root().join("tests/fixtures").join(self.name)
    }

    /// The model with PEFT's adapter.
    pub fn model(&self, dtype: DType) -> PromptClassifier {
        load_peft(self.bare(dtype), self.dir().join("adapter")).unwrap().0
    }

    /// The model without adapter.
    pub fn bare(&self, dtype: DType) -> PromptClassifier {
        self.model_for(&self.train, dtype)
    }

    /// The model without adapter, asked in the form of `data`.
    pub fn model_for(&self, data: &EncodedDataset, dtype: DType) -> PromptClassifier {
        let lm = Pretrained::from_dir(self.dir().join("base")).unwrap().with_dtype(dtype).load(&device()).unwrap();
        PromptClassifier::new(lm, data).unwrap()
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

/// Questions answered by continuations: 3 and 4 choices, prompts and continuations of several lengths, weights of both
/// kinds, token ids of the fixtures' vocabulary.
pub fn continuation_dataset() -> EncodedDataset {
    let token = |seed: usize| (3 + (seed * 37 + 11) % 90) as u32;
    let item = |i: usize| {
        let (prompt, n_choices) = (2 + (i * 3) % 5, 3 + i % 2);
        let row = |c: usize| {
            let length = 1 + (i + 2 * c) % 3;
            let common = (0..prompt).map(|t| token(10 * i + t));
            let ids: Vec<u32> = common.chain((0..length).map(|t| token(100 + 20 * i + 5 * c + t))).collect();
            let weight = if i.is_multiple_of(3) { 1.0 } else { 1.0 / (2.0 + c as f64) };
            EncodedRow { scored: prompt..ids.len(), ids, weight, types: Vec::new() }
        };
        EncodedItem {
            id: format!("continuation-{i}"),
            rows: (0..n_choices).map(row).collect(),
            label: Some((i * 2) % n_choices),
            n_choices,
        }
    };
    EncodedDataset {
        name: "continuations".into(),
        items: (0..7).map(item).collect(),
        answers: ResolvedAnswers::Continuation,
        n_classes: 4,
        n_truncated: 0,
        asked: None,
    }
}

/// A task whose batches are padded on a chosen side.
pub struct Padded<'a>(pub &'a EncodedDataset, pub PaddingSide);

impl Dataset for Padded<'_> {
    type Input = TokenBatch;

    fn n_items(&self) -> usize {
        self.0.len()
    }

    fn label(&self, item: usize) -> Option<usize> {
        self.0.label(item)
    }

    fn item_id(&self, item: usize) -> String {
        self.0.item_id(item)
    }

    fn plan(&self, limits: BatchLimits, order: BatchOrder) -> Result<Vec<Vec<usize>>> {
        Dataset::plan(self.0, limits, order)
    }

    fn batch(&self, indices: &[usize], device: &Device, dtype: DType) -> Result<TokenBatch> {
        TokenBatch::new(self.0, indices, self.1, device, dtype)
    }
}

/// Copies a tensor of four dimensions to the host.
pub fn host(tensor: Tensor<4>) -> Array4<f64> {
    let dims = tensor.dims();
    let values = tensor.into_data().convert::<f64>().try_into_vec::<f64>().unwrap();
    Array4::from_shape_vec(dims, values).unwrap()
}

/// Copies a matrix to the host.
pub fn on_host(tensor: Tensor<2>) -> Array2<f64> {
    let [rows, columns] = tensor.dims();
    let values = tensor.into_data().convert::<f64>().try_into_vec().unwrap();
    Array2::from_shape_vec((rows, columns), values).unwrap()
}

/// Logits at the model's present weights, items in order.
pub fn logits<M: Classifier, D: Dataset<Input = M::Input>>(model: &M, data: &D) -> Array2<f64> {
    let limits = BatchLimits { max_items: 64, max_tokens: 10_000 };
    match predict_map(model, data, &limits, &Control::silent()).unwrap() {
        LogitBelief::Point { logits } => logits,
        other => panic!("a point was expected, not {other:?}"),
    }
}

/// Derivatives `[n_items, n_classes]` of all logits by one weight of an adapter, by central differences.
///
/// With steps of 1e-5 in f64 the error is about 1e-11 times the third derivative, and 1e-10 of rounding.
pub fn central_difference<M: Classifier, D: Dataset<Input = M::Input>>(
    model: &M,
    data: &D,
    site: &Site,
    at: [usize; 2],
) -> Array2<f64> {
    const STEP: f64 = 1e-5;
    let weights = read_adapter(model).unwrap();
    let moved = |step: f64| {
        let mut weights = weights.clone();
        weights.get_mut(site).unwrap()[at] += step;
        logits(&write_adapter(model.clone(), &weights).unwrap(), data)
    };
    (moved(STEP) - moved(-STEP)) / (2.0 * STEP)
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
