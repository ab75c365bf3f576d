//! Lays texts with their scored tokens out as tensors.

use super::classifier::ClassifierInput;
use super::dataset::Dataset;
use super::indices::indices_on;
use super::token_batch::TokenBatch;
use crate::data::{BatchLimits, BatchOrder, PackedRows, TextDataset, TextExample};
use crate::error::{Error, Result};
use crate::hash::fnv1a;
use crate::likelihood::Target;
use crate::lora::at_least_f32;
use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use ndarray::Array2;

/// Texts, one a row or several, with the tokens that count.
#[derive(Debug, Clone)]
pub struct TextBatch {
    pub(super) tokens: TokenBatch,
    /// Index in `[rows · tokens]` of the token before each scored one, `[n]`; text after text.
    pub(super) predictors: Tensor<1, Int>,
    /// The same on the host.
    read: Vec<usize>,
    /// The scored token ids, `[n, 1]`.
    pub(super) targets: Tensor<2, Int>,
    /// Text, and place in it, of each scored token, `[n]`.
    pub(super) places: Vec<(usize, usize)>,
    texts: Vec<TextExample>,
    /// Where several share a row.
    packed: Option<Packed>,
    device: Device,
    dtype: DType,
}

#[derive(Debug, Clone)]
struct Packed {
    /// The most tokens of a row.
    row_tokens: usize,
    rows: PackedRows,
}

impl TextBatch {
    /// Builds the batch of some texts, a row each, padded on the right.
    ///
    /// # Errors
    /// If there is none, or a text scores nothing or tokens that are not its own.
    pub fn new(texts: Vec<TextExample>, device: &Device, dtype: DType) -> Result<Self> {
        Self::build(texts, None, device, dtype)
    }

    /// The same with several texts in a row of at most `row_tokens`, one behind the other ([`PackedRows`]): positions start again with each,
    /// and a token sees nothing of another text, so that every text has the outputs that it has in a row of its own.
    ///
    /// # Errors
    /// As [`TextBatch::new`].
    pub fn packed(texts: Vec<TextExample>, row_tokens: usize, device: &Device, dtype: DType) -> Result<Self> {
        Self::build(texts, Some(row_tokens), device, dtype)
    }

    fn build(texts: Vec<TextExample>, row_tokens: Option<usize>, device: &Device, dtype: DType) -> Result<Self> {
        texts.iter().try_for_each(TextExample::check)?;
        let packed = row_tokens.map(|row_tokens| {
            let mut rows = PackedRows::new(row_tokens);
            texts.iter().for_each(|text| rows.push(text.ids.len()));
            Packed { row_tokens, rows }
        });
        let (tokens, starts): (_, Vec<(usize, usize)>) = match &packed {
            None => {
                let rows: Vec<(&str, &[u32])> = texts.iter().map(named).collect();
                (TokenBatch::of_rows(&rows, device, dtype)?, (0..texts.len()).map(|text| (text, 0)).collect())
            }
            Some(Packed { rows, .. }) => {
                let of_row = |of: &Vec<usize>| of.iter().map(|&text| named(&texts[text])).collect();
                let laid: Vec<Vec<(&str, &[u32])>> = rows.texts().iter().map(of_row).collect();
                (TokenBatch::packed(&laid, device, dtype)?, rows.starts().to_vec())
            }
        };
        let width = tokens.ids.dims()[1];
        let places: Vec<(usize, usize)> =
            texts.iter().enumerate().flat_map(|(i, text)| text.scored_places().map(move |t| (i, t))).collect();
        let before = |(text, t): &(usize, usize)| starts[*text].0 * width + starts[*text].1 + t - 1;
        let read: Vec<usize> = places.iter().map(before).collect();
        let predictors = indices_on(device, read.iter().map(|&place| place as i64).collect());
        let targets = indices_on(device, places.iter().map(|(text, t)| i64::from(texts[*text].ids[*t])).collect());
        let targets = targets.reshape([places.len(), 1]);
        Ok(Self { tokens, predictors, read, targets, places, texts, packed, device: device.clone(), dtype })
    }

    /// True if several texts may share a row.
    pub(super) fn is_packed(&self) -> bool {
        self.packed.is_some()
    }

    /// The texts; each has a row, in their order, unless they are packed.
    pub fn texts(&self) -> &[TextExample] {
        &self.texts
    }

    /// Sums numbers of the scored tokens `[n, 1]` over each text: `[n_items, 1]`.
    pub(super) fn sum_over_texts(&self, of_tokens: Tensor<2>) -> Tensor<2> {
        let (n_texts, n) = (self.texts.len(), self.places.len());
        let mut owners = vec![0f32; n_texts * n];
        for (j, (text, _)) in self.places.iter().enumerate() {
            owners[text * n + j] = 1.0;
        }
        let options = (&self.device, at_least_f32(self.dtype));
        let owners = Tensor::<2>::from_data(TensorData::new(owners, [n_texts, n]), options);
        owners.cast(of_tokens.dtype()).matmul(of_tokens)
    }
}

/// A text's row with its name.
fn named(text: &TextExample) -> (&str, &[u32]) {
    (text.id.as_str(), &text.ids[..])
}

impl ClassifierInput for TextBatch {
    fn n_items(&self) -> usize {
        self.texts.len()
    }

    fn token_mask(&self) -> Array2<bool> {
        self.tokens.token_mask()
    }

    fn read_tokens(&self) -> Option<&[usize]> {
        Some(&self.read)
    }

    fn token_owners(&self) -> Option<Array2<Option<(usize, usize)>>> {
        let Packed { rows, .. } = self.packed.as_ref()?;
        let mut owners = Array2::from_elem(self.tokens.mask.dim(), None);
        for (text, &(row, start)) in rows.starts().iter().enumerate() {
            (0..self.texts[text].ids.len()).for_each(|t| owners[[row, start + t]] = Some((text, t)));
        }
        Some(owners)
    }

    fn repeat(&self, times: usize) -> Result<Self> {
        let texts = (0..times).flat_map(|_| self.texts.iter().cloned()).collect();
        Self::build(texts, self.packed.as_ref().map(|packed| packed.row_tokens), &self.device, self.dtype)
    }
}

impl TextDataset {
    fn at(&self, indices: &[usize]) -> Vec<TextExample> {
        indices.iter().map(|&item| self.examples[item].clone()).collect()
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
        TextBatch::new(self.at(indices), &device.clone().without_autodiff(), dtype)
    }

    fn plan_packed(
        &self,
        limits: BatchLimits,
        order: BatchOrder,
        row_tokens: usize,
    ) -> Result<Option<Vec<Vec<usize>>>> {
        if self.is_empty() {
            return Err(Error::empty(format!("texts `{}`", self.name)));
        }
        TextDataset::plan_packed(self, limits, order, row_tokens).map(Some)
    }

    fn packed_batch(
        &self,
        indices: &[usize],
        row_tokens: usize,
        device: &Device,
        dtype: DType,
    ) -> Result<Option<TextBatch>> {
        TextBatch::packed(self.at(indices), row_tokens, &device.clone().without_autodiff(), dtype).map(Some)
    }
}
