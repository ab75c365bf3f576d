//! Lays texts with their scored tokens out as tensors.

use super::classifier::{ClassifierInput, Dataset};
use super::indices::indices_on;
use super::token_batch::TokenBatch;
use crate::data::{BatchLimits, BatchOrder, TextDataset, TextExample};
use crate::error::{Error, Result};
use crate::hash::fnv1a;
use crate::likelihood::Target;
use crate::lora::at_least_f32;
use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use ndarray::Array2;

/// Texts, one a row, with the tokens that count.
#[derive(Debug, Clone)]
pub struct TextBatch {
    pub(super) tokens: TokenBatch,
    /// Index in `[rows · tokens]` of the token before each scored one, `[n]`; row after row.
    pub(super) predictors: Tensor<1, Int>,
    /// The scored token ids, `[n, 1]`.
    pub(super) targets: Tensor<2, Int>,
    /// Row and place in its text of each scored token, `[n]`.
    pub(super) places: Vec<(usize, usize)>,
    texts: Vec<TextExample>,
    device: Device,
    dtype: DType,
}

impl TextBatch {
    /// Builds the batch of some texts, padded on the right.
    ///
    /// # Errors
    /// If there is none, or a text scores nothing or tokens that are not its own.
    pub fn new(texts: Vec<TextExample>, device: &Device, dtype: DType) -> Result<Self> {
        texts.iter().try_for_each(TextExample::check)?;
        let rows: Vec<(&str, &[u32])> = texts.iter().map(|text| (text.id.as_str(), &text.ids[..])).collect();
        let tokens = TokenBatch::of_rows(&rows, device, dtype)?;
        let width = tokens.ids.dims()[1];
        let places: Vec<(usize, usize)> =
            texts.iter().enumerate().flat_map(|(row, text)| text.scored_places().map(move |t| (row, t))).collect();
        let predictors = indices_on(device, places.iter().map(|(row, t)| (row * width + t - 1) as i64).collect());
        let targets = indices_on(device, places.iter().map(|(row, t)| i64::from(texts[*row].ids[*t])).collect());
        let targets = targets.reshape([places.len(), 1]);
        Ok(Self { tokens, predictors, targets, places, texts, device: device.clone(), dtype })
    }

    /// The texts, in the order of the rows.
    pub fn texts(&self) -> &[TextExample] {
        &self.texts
    }

    /// Sums numbers of the scored tokens `[n, 1]` over each text: `[rows, 1]`.
    pub(super) fn sum_over_texts(&self, of_tokens: Tensor<2>) -> Tensor<2> {
        let (rows, n) = (self.texts.len(), self.places.len());
        let mut owners = vec![0f32; rows * n];
        for (j, (row, _)) in self.places.iter().enumerate() {
            owners[row * n + j] = 1.0;
        }
        let options = (&self.device, at_least_f32(self.dtype));
        let owners = Tensor::<2>::from_data(TensorData::new(owners, [rows, n]), options);
        owners.cast(of_tokens.dtype()).matmul(of_tokens)
    }
}

impl ClassifierInput for TextBatch {
    fn n_items(&self) -> usize {
        self.texts.len()
    }

    fn token_mask(&self) -> Array2<bool> {
        self.tokens.token_mask()
    }

    fn repeat(&self, times: usize) -> Result<Self> {
        let texts = (0..times).flat_map(|_| self.texts.iter().cloned()).collect();
        Self::new(texts, &self.device, self.dtype)
    }
}

impl Dataset for TextDataset {
    type Input = TextBatch;

    fn n_items(&self) -> usize {
        self.len()
    }

    fn label(&self, _item: usize) -> Option<usize> {
        None
    }

    fn target(&self, _item: usize) -> Option<Target> {
        Some(Target::OfInput)
    }

    /// The scored tokens.
    fn units(&self, item: usize) -> usize {
        self.examples[item].n_scored()
    }

    fn item_id(&self, item: usize) -> String {
        self.examples[item].id.clone()
    }

    /// Of the name, which may be a line's, and of the text.
    fn item_key(&self, item: usize) -> u64 {
        self.examples[item].key()
    }

    fn content_hash(&self, item: usize) -> Option<u64> {
        Some(fnv1a(serde_json::to_vec(&self.examples[item]).ok()?))
    }

    fn plan(&self, limits: BatchLimits, order: BatchOrder) -> Result<Vec<Vec<usize>>> {
        if self.is_empty() {
            return Err(Error::empty(format!("texts `{}`", self.name)));
        }
        TextDataset::plan(self, limits, order)
    }

    fn batch(&self, indices: &[usize], device: &Device, dtype: DType) -> Result<TextBatch> {
        let texts = indices.iter().map(|&item| self.examples[item].clone()).collect();
        TextBatch::new(texts, &device.clone().without_autodiff(), dtype)
    }
}
