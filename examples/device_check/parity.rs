//! What a device computes for the model that ships with the crate, beside f64 on the CPU.

use crate::Outcome;
use bayes_lora::curvature::{Cotangents, CurvatureConfig, FactorSum, fit_curvature, probe};
use bayes_lora::data::{
    AnswerForm, BatchLimits, EncodedDataset, Encoding, PromptTemplate, Task, Tokenizer, Truncation,
};
use bayes_lora::likelihood::Categorical;
use bayes_lora::lora::{AdapterWeights, LoraConfig, attach, read_adapter, write_adapter};
use bayes_lora::models::{Classifier, Dataset, Pretrained, PromptClassifier};
use bayes_lora::number::significant;
use bayes_lora::posterior::log_likelihood_gradient;
use bayes_lora::predict::predict_map;
use bayes_lora::progress::Control;
use burn::module::Module;
use burn::tensor::{DType, Device};
use ndarray::Array1;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

const N_ITEMS: usize = 16;
const LIMITS: BatchLimits = BatchLimits { max_items: 8, max_tokens: 4096 };

/// One kind of numbers, compared matrix by matrix.
#[derive(Serialize)]
pub struct Agreement {
    dtype: String,
    pub what: &'static str,
    /// Largest over the matrices of `‖x − x₀‖ / ‖x₀‖`, x₀ in f64 on the CPU.
    pub error: f64,
    bound: f64,
    /// Matrices that are exactly zero where they should not be.
    all_zero: usize,
    pub holds: bool,
}

impl fmt::Display for Agreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { dtype, what, error, bound, all_zero, holds } = self;
        write!(f, "{dtype:<6} {what:<24} {:>12} {:>10}", significant(*error), significant(*bound))?;
        if *all_zero > 0 {
            write!(f, " {all_zero} matrices are exactly zero")?;
        }
        f.write_str(if *holds { "" } else { " WRONG" })
    }
}

/// Every kind of numbers, by matrix.
type Numbers = Vec<(&'static str, BTreeMap<String, Array1<f64>>)>;

/// Logits, gradients, Jacobians and Kronecker sums on the device in `dtype`.
pub fn check(device: &Device, dtype: DType) -> Outcome<Vec<Agreement>> {
    let expected = numbers(&Device::flex(), DType::F64)?;
    let found = numbers(device, dtype)?;
    let agreements = expected.into_iter().zip(found).map(|((what, expected), (_, found))| {
        let (mut error, mut all_zero) = (0.0f64, 0);
        for (name, right) in &expected {
            let size = right.dot(right).sqrt();
            let Some(value) = found.get(name).filter(|value| value.len() == right.len()) else {
                error = f64::INFINITY;
                continue;
            };
            let difference = value - right;
            let relative = difference.dot(&difference).sqrt() / size;
            // NaN is the worst of errors
            error = if relative.is_nan() { f64::INFINITY } else { error.max(relative) };
            all_zero += usize::from(size > 0.0 && value.iter().all(|v| *v == 0.0));
        }
        let bound = bound(dtype, what);
        Agreement { dtype: format!("{dtype:?}"), what, error, bound, all_zero, holds: error <= bound && all_zero == 0 }
    });
    Ok(agreements.collect())
}

/// Logits and their gradients lose as many digits as the element type has not; sums of products of gradients twice as many.
fn bound(dtype: DType, what: &str) -> f64 {
    let of_logits = match dtype {
        DType::F32 => 1e-4,
        DType::F16 => 2e-2,
        _ => 0.1,
    };
    match what {
        "logits" => of_logits,
        "Kronecker sums" => 4.0 * of_logits,
        _ => 2.0 * of_logits,
    }
}

fn numbers(device: &Device, dtype: DType) -> Outcome<Numbers> {
    let (model, data) = subject(device, dtype)?;
    let control = Control::silent();
    let flat = |values: &ndarray::Array2<f64>| values.iter().copied().collect::<Array1<f64>>();
    let logits = predict_map(&model, &data, &LIMITS, &control)?.moments().0;
    let gradient = log_likelihood_gradient(&model, &data, &Categorical, &LIMITS, &control)?;
    let mut jacobians: BTreeMap<String, Array1<f64>> = BTreeMap::new();
    let input = data.batch(&[0, 1, 2, 3], &model.device(), model.dtype())?;
    for site in probe(&model.valid(), &input, Cotangents::Contrasts)?.sites {
        jacobians.insert(site.site.to_string(), site.jacobians()?.iter().copied().collect());
    }
    let curvature = fit_curvature(&model, &data, &CurvatureConfig::default().with_limits(LIMITS), &control)?;
    let mut sums = BTreeMap::new();
    for factors in curvature.kronecker_factors()? {
        for (side, sum) in [("inputs", &factors.activation), ("gradients", &factors.gradient)] {
            if let FactorSum::Dense(matrix) = sum {
                sums.insert(format!("{} {side}", factors.site), flat(matrix));
            }
        }
    }
    Ok(vec![
        ("logits", [("all".to_string(), flat(&logits))].into()),
        ("gradients", gradient.iter().map(|(site, values)| (site.to_string(), flat(values))).collect()),
        ("Jacobians", jacobians),
        ("Kronecker sums", sums),
    ])
}

/// stories260K with an adapter away from its start, and questions of several lengths.
fn subject(device: &Device, dtype: DType) -> Outcome<(PromptClassifier, EncodedDataset)> {
    let assets = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets");
    let tokenizer = Tokenizer::from_dir(assets.join("stories260K"))?;
    let data = Encoding::new(PromptTemplate::question_area(), AnswerForm::class_tokens(["A", "B", "C", "D"]))
        .with_max_tokens(64)
        .with_truncation(Truncation::End)
        .encode(&Task::from_jsonl(assets.join("mmlu_areas/test.jsonl.gz"))?.sample(N_ITEMS, 0)?, &tokenizer)?;
    let lm = Pretrained::from_dir(assets.join("stories260K"))?.with_dtype(dtype).load(device)?;
    let lora = LoraConfig::new(8).with_target_modules(["q_proj", "k_proj", "v_proj", "o_proj"]);
    let model = attach(PromptClassifier::new(lm, &data)?, &lora, 0)?;
    let mut weights: AdapterWeights = read_adapter(&model)?;
    for values in weights.values_mut() {
        // B starts at zero, where A has no gradient; these numbers are exact in every element type
        let columns = values.ncols();
        values.indexed_iter_mut().for_each(|((i, j), value)| {
            *value = (((7 * i + 3 * j + i * j) % 17) as f64 - 8.0) / if columns == 8 { 128.0 } else { 64.0 };
        });
    }
    Ok((write_adapter(model, &weights)?, data))
}
