//! Encoders with heads from `tests/fixtures`, and what PyTorch says about them in f64.

use super::{device, has_f64, logits, relative_error, root};
use bayes_lora::curvature::{Cotangents, probe};
use bayes_lora::data::{BatchLimits, EncodedDataset, EncodedItem, EncodedRow, ResolvedAnswers};
use bayes_lora::likelihood::Categorical;
use bayes_lora::lora::load_peft;
use bayes_lora::models::{
    Classifier, Dataset, Encoder, LoadedEncoder, PretrainedEncoder, SequenceClassifier, TokenBatch,
};
use bayes_lora::posterior::log_likelihood_gradient;
use bayes_lora::progress::Control;
use bayes_lora::tape::{LoraMatrix, Site};
use burn::tensor::DType;
use ndarray::{ArrayD, Axis, IxDyn, concatenate};
use safetensors::SafeTensors;
use std::path::{Path, PathBuf};

pub const LIMITS: BatchLimits = BatchLimits { max_items: 4, max_tokens: 1000 };

pub fn dir(name: &str) -> PathBuf {
    root().join("tests/fixtures").join(name)
}

/// Rows with labels of three classes.
pub fn dataset(rows: Vec<EncodedRow>, labels: Vec<usize>) -> EncodedDataset {
    let item = |(i, (row, label)): (usize, (EncodedRow, usize))| EncodedItem {
        id: i.to_string(),
        rows: vec![row],
        label: Some(label),
        n_choices: 3,
    };
    EncodedDataset {
        name: "texts".into(),
        items: rows.into_iter().zip(labels).enumerate().map(item).collect(),
        answers: ResolvedAnswers::Labels,
        n_classes: 3,
        n_truncated: 0,
        asked: None,
    }
}

/// The prompts of a fixture.
pub fn data(name: &str) -> EncodedDataset {
    let text = std::fs::read_to_string(dir(name).join("data.json")).unwrap();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let rows: Vec<Vec<u32>> = serde_json::from_value(json["prompts"].clone()).unwrap();
    let row = |ids| EncodedRow { ids, scored: 0..0, weight: 1.0, types: Vec::new() };
    dataset(rows.into_iter().map(row).collect(), serde_json::from_value(json["labels"].clone()).unwrap())
}

pub fn loaded(base: &Path, dtype: DType) -> LoadedEncoder {
    PretrainedEncoder::from_dir(base).unwrap().with_dtype(dtype).load(&device()).unwrap()
}

/// The base with the head of its checkpoint, and PEFT's adapter with the head that it saved.
pub fn adapted(base: &Path, adapter: &Path, data: &EncodedDataset, dtype: DType) -> SequenceClassifier<Encoder> {
    let LoadedEncoder { encoder, head, .. } = loaded(base, dtype);
    let base = SequenceClassifier::with_head(encoder, head.unwrap(), data).unwrap();
    load_peft(base, adapter).unwrap().0
}

/// A tensor in f64 of a safetensors file.
pub fn expected(file: &Path, key: &str) -> ArrayD<f64> {
    let bytes = std::fs::read(file).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let view = file.tensor(key).unwrap();
    let values = view.data().chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect();
    ArrayD::from_shape_vec(IxDyn(view.shape()), values).unwrap()
}

/// What PyTorch says of a site; of a head, weight and bias side by side as they are held here.
fn expected_at(file: &Path, kind: &str, site: &Site) -> ArrayD<f64> {
    match site.matrix {
        LoraMatrix::Whole => {
            let (weight, bias) =
                (expected(file, &format!("{kind}.{site}")), expected(file, &format!("{kind}.{}.bias", site.module)));
            let last = Axis(weight.ndim() - 1);
            concatenate(last, &[weight.view(), bias.insert_axis(last).view()]).unwrap()
        }
        _ => expected(file, &format!("{kind}.{site}.weight")),
    }
}

/// Element types with the tolerance that each deserves: a hundred operations in f32; in f64 what the error function is approximated to.
pub fn precisions() -> Vec<(DType, f64)> {
    let f64_too = has_f64().then_some((DType::F64, 1e-6));
    [(DType::F32, 1e-4)].into_iter().chain(f64_too).collect()
}

/// Asserts that logits, gradients of the log-likelihood at all `n_sites`, and Jacobians of one item are those of the fixture's file.
pub fn assert_parity<M: Classifier<Input = TokenBatch>>(
    (model, data): (&M, &EncodedDataset),
    name: &str,
    (n_sites, item): (usize, usize),
    (dtype, tolerance): (DType, f64),
) {
    let file = dir(name).join("expected.safetensors");
    let error = relative_error(&logits(model, data).into_dyn(), &expected(&file, "logits"));
    assert!(error < tolerance, "{dtype:?}: logits {error:e}");
    let gradient = log_likelihood_gradient(model, data, &Categorical, &LIMITS, &Control::silent()).unwrap();
    assert_eq!(gradient.len(), n_sites);
    for (site, gradient) in gradient {
        // PyTorch differentiated the negative log-likelihood
        let error = relative_error(&(-gradient).into_dyn(), &expected_at(&file, "gradient", &site));
        assert!(error < 10.0 * tolerance, "{dtype:?}: gradient at {site} {error:e}");
    }
    let one = EncodedDataset { items: vec![data.items[item].clone()], ..data.clone() };
    let input = one.batch(&[0], &model.device(), model.dtype()).unwrap();
    let sites = probe(&model.valid(), &input, Cotangents::Classes).unwrap().sites;
    assert_eq!(sites.len(), n_sites);
    for site in sites {
        let jacobian = site.jacobians().unwrap().index_axis_move(Axis(0), 0);
        let error = relative_error(&jacobian.into_dyn(), &expected_at(&file, "jacobian", &site.site));
        assert!(error < 10.0 * tolerance, "{dtype:?}: Jacobian at {} {error:e}", site.site);
    }
}
