//! Heads of merged models: how they are written, and that they compute the same.

use super::language_model::LanguageModel;
use super::merged_dir::{fetched, largest_difference};
use super::problem::ProblemType;
use super::reward_model::RewardModel;
use super::sequence_classifier::SequenceClassifier;
use super::token_batch::TokenBatch;
use crate::error::{Error, Result};
use crate::lora::TrainedHead;
use crate::tape::Tape;
use crate::tensor_file::StoredArray;
use burn::tensor::{DType, Device};
use serde_json::{Map, Value, json};

/// A network with its head, and the names of the head's outputs.
#[derive(Debug)]
pub struct HeadedNetwork<'a, L> {
    pub(super) network: &'a L,
    pub(super) head: &'a TrainedHead,
    pub(super) labels: &'a [String],
}

impl<'a, L> HeadedNetwork<'a, L> {
    /// Puts them together; outputs have the names that the base has for as many, else `LABEL_0`, `LABEL_1`, … as in transformers.
    pub fn new(network: &'a L, head: &'a TrainedHead) -> Self {
        Self { network, head, labels: &[] }
    }

    /// Names the outputs, in order.
    pub fn with_labels(mut self, labels: &'a [String]) -> Self {
        self.labels = labels;
        self
    }
}

impl<'a, L> From<&'a SequenceClassifier<L>> for HeadedNetwork<'a, L> {
    fn from(model: &'a SequenceClassifier<L>) -> Self {
        Self::new(&model.network, &model.head)
    }
}

impl<'a, L> From<&'a RewardModel<L>> for HeadedNetwork<'a, L> {
    fn from(model: &'a RewardModel<L>) -> Self {
        Self::new(&model.network, &model.head)
    }
}

impl<L: LanguageModel> HeadedNetwork<'_, L> {
    /// The head's tensors as they are written.
    pub(super) fn tensors(&self) -> Vec<(String, StoredArray<'_>)> {
        let head = self.head;
        let weight = fetched([head.d_out(), head.d_in()], || head.matrix());
        let bias = head.bias().map(|bias| (format!("{}.bias", head.path), fetched(bias.dims(), move || bias.clone())));
        [(format!("{}.weight", head.path), weight)].into_iter().chain(bias).collect()
    }
}

/// Describes a head in a `config.json`: the class in transformers, the labels, the problem.
pub(super) fn write_head(
    head: &TrainedHead,
    labels: &[String],
    class: &str,
    fields: &mut Map<String, Value>,
) -> Result<()> {
    let n = head.d_out();
    if !labels.is_empty() && labels.len() != n {
        let what = "names of the labels, one for each output of the head".into();
        return Err(Error::Count { what, expected: n, found: labels.len() });
    }
    fields.insert("architectures".into(), json!([class]));
    fields.remove("num_labels");
    let known = fields.get("id2label").and_then(Value::as_object).is_some_and(|names| names.len() == n);
    if !(known && labels.is_empty()) {
        let name = |i: usize| labels.get(i).cloned().unwrap_or_else(|| format!("LABEL_{i}"));
        let names: Map<String, Value> = (0..n).map(|i| (i.to_string(), json!(name(i)))).collect();
        let numbers: Map<String, Value> = (0..n).map(|i| (name(i), json!(i))).collect();
        fields.insert("id2label".into(), names.into());
        fields.insert("label2id".into(), numbers.into());
    }
    // one output is a number, or a reward, which transformers has no word for
    match n {
        1 if fields.get("problem_type").and_then(Value::as_str) == Some(ProblemType::Regression.name()) => {}
        1 => drop(fields.remove("problem_type")),
        _ => drop(fields.insert("problem_type".into(), json!(ProblemType::SingleLabel.name()))),
    }
    Ok(())
}

/// Largest difference of an output of the head for any row.
pub(super) fn difference_of_heads<L: LanguageModel>(
    models: [&HeadedNetwork<L>; 2],
    rows: &[Vec<u32>],
    device: &Device,
    dtype: DType,
) -> Result<f64> {
    let mut largest = 0.0f64;
    for row in rows {
        let batch = TokenBatch::of_row(row, device, dtype)?;
        let outputs = models.map(|model| {
            let pooled = model.network.pooled(&batch, &mut Tape::off());
            model.head.forward(pooled, &mut Tape::off())
        });
        largest = largest.max(largest_difference(outputs)?);
    }
    Ok(largest)
}
