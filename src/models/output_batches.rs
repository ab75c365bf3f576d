//! Builds batches for a caller that wants outputs and nothing token by token, in as few tokens as the model can read them from.

use super::classifier::{Classifier, ClassifierInput};
use super::dataset::{Dataset, batch_for};
use super::seen_prefix::SeenPrefix;
use crate::error::Result;
use std::sync::Arc;

/// The length of a prefix is a multiple of this: so many tokens are worth a pass of their own, and a part of the data, whose items may
/// happen to have a few more tokens in common, is read as the whole is.
const STEP: usize = 16;

/// Batches of a model without a graph: what all items begin with is read once, for all batches.
pub(crate) struct OutputBatches<'a, M, D> {
    model: &'a M,
    data: &'a D,
    prefix: Option<Arc<SeenPrefix>>,
}

impl<'a, M: Classifier, D: Dataset<Input = M::Input>> OutputBatches<'a, M, D> {
    /// Reads what all items begin with, where there is such and the model can.
    ///
    /// # Errors
    /// If the model fails.
    pub(crate) fn new(model: &'a M, data: &'a D) -> Result<Self> {
        let mut common = data.common_beginning();
        common.truncate(common.len() / STEP * STEP);
        let prefix = if common.is_empty() || data.n_items() < 2 { None } else { model.see(&common)? };
        Ok(Self { model, data, prefix: prefix.map(Arc::new) })
    }

    /// The batch of the items at `indices`.
    ///
    /// # Errors
    /// As [`batch_for`].
    pub(crate) fn of(&self, indices: &[usize]) -> Result<M::Input> {
        let input = output_batch_for(self.model, self.data, indices)?;
        match &self.prefix {
            Some(prefix) => input.behind(prefix),
            None => Ok(input),
        }
    }
}

/// Builds a batch for outputs or the gradient of their loss: rows share their prompts where the model can read them so.
///
/// # Errors
/// As [`batch_for`].
pub(crate) fn output_batch_for<M: Classifier, D: Dataset<Input = M::Input>>(
    model: &M,
    data: &D,
    indices: &[usize],
) -> Result<M::Input> {
    let input = batch_for(model, data, indices)?;
    if model.shares_prompts() { input.with_shared_prompts() } else { Ok(input) }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use crate::data::{EncodedDataset, EncodedItem, EncodedRow, ResolvedAnswers};
    use crate::models::{DecoderConfig, Pretrained, PromptClassifier};
    use burn::tensor::Device;

    #[test]
    fn what_all_items_begin_with_is_no_part_of_their_batches() {
        let text = r#"{"model_type": "llama", "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1,
            "num_attention_heads": 2, "vocab_size": 50, "max_position_embeddings": 99, "rms_norm_eps": 1e-5}"#;
        let lm = Pretrained::random(DecoderConfig::from_json(text, "x").unwrap(), 0).load(&Device::flex()).unwrap();
        let item = |i: usize| {
            let ids = (0..40).map(|t| if t < 37 { t as u32 } else { (i + t) as u32 % 50 }).collect();
            let row = EncodedRow { ids, scored: 0..0, weight: 1.0, types: Vec::new() };
            EncodedItem { id: i.to_string(), rows: vec![row], label: None, n_choices: 2 }
        };
        let data = |n: usize| EncodedDataset {
            name: "x".into(),
            items: (0..n).map(item).collect(),
            answers: ResolvedAnswers::ClassTokens(vec![1, 2]),
            n_classes: 2,
            n_truncated: 0,
            asked: None,
        };
        let model = PromptClassifier::new(lm, &data(3)).unwrap();
        let tokens = |n: usize| {
            let data = data(n);
            OutputBatches::new(&model, &data).unwrap().of(&[0]).unwrap().token_mask().len()
        };
        // 37 in common, of which whole steps; one item alone has nobody to share with
        assert_eq!((tokens(3), tokens(1)), (40 - 2 * STEP, 40));
    }
}
