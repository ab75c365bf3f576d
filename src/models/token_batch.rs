//! Lays the rows of a batch out as tensors.

use super::classifier::{ClassifierInput, RowMeaning};
use super::indices::indices_on;
use super::seen_prefix::SeenPrefix;
use crate::data::{EncodedDataset, EncodedItem, EncodedRow, PaddedRows, PaddingSide, ResolvedAnswers, SharedPrompt};
use crate::error::{Error, Result};
use crate::float_type::check_float;
use crate::lora::at_least_f32;
use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use ndarray::Array2;
use std::sync::Arc;

/// Token rows of several items, padded to one length.
#[derive(Debug, Clone)]
pub struct TokenBatch {
    /// `[rows, tokens]`
    pub(super) ids: Tensor<2, Int>,
    /// The same on the host.
    pub(super) ids_on_host: Vec<u32>,
    /// Kind of every token, `[rows, tokens]`; `None` when all are of the first.
    pub(super) types: Option<Tensor<2, Int>>,
    /// Position of every token in its row, behind what was seen already, `[rows · tokens]`; `None` when rows start at their first token and
    /// go on from there.
    pub(super) positions: Option<Tensor<1, Int>>,
    /// Index of each row's first real token in `[rows · tokens]`.
    pub(super) first: Tensor<1, Int>,
    /// Index of each row's last real token in `[rows · tokens]`.
    pub(super) last: Tensor<1, Int>,
    /// Where continuations are scored.
    pub(super) scored: Option<Scored>,
    pub(super) mask: Array2<bool>,
    class_mask: Option<Array2<bool>>,
    rows_per_item: usize,
    /// One tree a row, where items share their prompts.
    pub(super) trees: Option<Vec<SharedPrompt>>,
    /// The column of each row's first real token.
    pub(super) starts: Vec<usize>,
    host: HostBatch,
}

/// Scored tokens of continuations.
#[derive(Debug, Clone)]
pub(super) struct Scored {
    /// Index in `[rows · tokens]` of the token before each scored one, `[n]`.
    pub(super) predictors: Tensor<1, Int>,
    /// The same on the host.
    places: Vec<usize>,
    /// The scored token ids, `[n, 1]`.
    pub(super) targets: Tensor<2, Int>,
    /// Which choice each counts for, and with which weight, `[items · choices, n]`.
    pub(super) weights: Tensor<2>,
}

/// What a batch is built from; kept to build repetitions.
#[derive(Debug, Clone)]
struct HostBatch {
    items: Vec<EncodedItem>,
    is_continuation: bool,
    rows_are_choices: bool,
    n_classes: usize,
    side: PaddingSide,
    layout: Layout,
    /// What the model has seen already of all rows.
    seen: Option<Arc<SeenPrefix>>,
    device: Device,
    dtype: DType,
}

/// How the rows of an item lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layout {
    /// Each is a row of the batch.
    Apart,
    /// All are one row, which holds once what they begin with alike.
    Shared,
    /// All are one row, one behind the other.
    Packed,
}

/// Fills pads; any token would do, since no real token looks at them.
const PAD_ID: u32 = 0;

impl TokenBatch {
    /// Builds the batch of the items at `indices`.
    ///
    /// An item with fewer choices than the batch's maximum gets empty rows, so that rows are item-major.
    ///
    /// # Errors
    /// If there is no token, an id exceeds what a device counts to, or a continuation scores tokens that are not its own.
    pub fn new(
        dataset: &EncodedDataset,
        indices: &[usize],
        side: PaddingSide,
        device: &Device,
        dtype: DType,
    ) -> Result<Self> {
        Self::build(HostBatch {
            items: indices.iter().map(|&i| dataset.items[i].clone()).collect(),
            is_continuation: dataset.answers == ResolvedAnswers::Continuation,
            rows_are_choices: dataset.answers.rows_are_choices(),
            n_classes: dataset.n_classes,
            side,
            layout: Layout::Apart,
            seen: None,
            device: device.clone(),
            dtype,
        })
    }

    /// One row of token ids that asks nothing, for the logits at all its positions.
    ///
    /// # Errors
    /// As [`TokenBatch::new`].
    pub fn of_row(row: &[u32], device: &Device, dtype: DType) -> Result<Self> {
        Self::of_rows(&[("row", row)], device, dtype)
    }

    /// Rows of token ids with their names, that ask nothing, padded on the right.
    ///
    /// # Errors
    /// As [`TokenBatch::new`].
    pub(super) fn of_rows(rows: &[(&str, &[u32])], device: &Device, dtype: DType) -> Result<Self> {
        let items = rows.iter().map(|row| unasked(&[*row])).collect();
        Self::of_items(items, Layout::Apart, device, dtype)
    }

    /// The same with several in each row of the batch, which do not see each other and whose positions start again.
    ///
    /// # Errors
    /// As [`TokenBatch::new`].
    pub(super) fn packed(rows: &[Vec<(&str, &[u32])>], device: &Device, dtype: DType) -> Result<Self> {
        Self::of_items(rows.iter().map(|row| unasked(row)).collect(), Layout::Packed, device, dtype)
    }

    fn of_items(items: Vec<EncodedItem>, layout: Layout, device: &Device, dtype: DType) -> Result<Self> {
        Self::build(HostBatch {
            items,
            is_continuation: false,
            rows_are_choices: false,
            n_classes: 1,
            side: PaddingSide::Right,
            layout,
            seen: None,
            device: device.clone(),
            dtype,
        })
    }

    fn build(host: HostBatch) -> Result<Self> {
        check_float("element type of a batch", host.dtype)?;
        let rest = host.seen.as_ref().map(|seen| seen.strip(&host.items)).transpose()?;
        let items: Vec<&EncodedItem> = rest.as_ref().unwrap_or(&host.items).iter().collect();
        let trees = |tree: fn(&EncodedItem) -> SharedPrompt| items.iter().map(|item| tree(item)).collect();
        let trees: Option<Vec<SharedPrompt>> = match host.layout {
            Layout::Apart => None,
            Layout::Shared => Some(trees(SharedPrompt::new)),
            Layout::Packed => Some(trees(SharedPrompt::without_trunk)),
        };
        let padded = match &trees {
            None => PaddedRows::from_items(&items, PAD_ID, host.side)?,
            Some(trees) => {
                let rows: Vec<&[u32]> = trees.iter().map(|tree| tree.ids.as_slice()).collect();
                PaddedRows::from_rows(&rows, PAD_ID, host.side)?
            }
        };
        // devices count in i32
        if let Some(id) = padded.ids.iter().find(|id| i32::try_from(**id).is_err()) {
            return Err(Error::config("token id", format!("at most {}", i32::MAX), id));
        }
        for item in items.iter().filter(|_| host.is_continuation) {
            let bad =
                |row: &&EncodedRow| row.scored.is_empty() || row.scored.start == 0 || row.scored.end > row.ids.len();
            if let Some(row) = item.rows.iter().find(bad) {
                let bound = format!("some of 1..{}", row.ids.len());
                return Err(Error::config(
                    format!("scored tokens of item `{}`", item.id),
                    bound,
                    format!("{:?}", row.scored),
                ));
            }
        }
        let (n_rows, tokens) = (padded.n_rows, padded.n_tokens);
        let ids = padded.ids.iter().map(|&id| i64::from(id)).collect();
        let last = padded.last_positions().into_iter().enumerate();
        let last = last.map(|(r, t)| (r * tokens + t.unwrap_or(0)) as i64).collect();
        let first = padded.starts.iter().enumerate().map(|(r, start)| (r * tokens + start) as i64).collect();
        let positions = (host.side == PaddingSide::Left || trees.is_some()).then(|| {
            let place = |r: usize, t: usize| {
                let own = t.saturating_sub(padded.starts[r]);
                let of_tree = |trees: &Vec<SharedPrompt>| trees[r].positions.get(own).copied().unwrap_or(0);
                trees.as_ref().map_or(own, of_tree) as i64
            };
            indices_on(&host.device, (0..n_rows * tokens).map(|index| place(index / tokens, index % tokens)).collect())
        });
        let types = padded.types(&items)?.map(|types| indices_on(&host.device, types).reshape([n_rows, tokens]));
        let scored = host.is_continuation.then(|| host.scored(&items, &padded, trees.as_deref()));
        let partial = host.items.iter().any(|item| item.n_choices < host.n_classes);
        let class_mask = partial
            .then(|| Array2::from_shape_fn((host.items.len(), host.n_classes), |(i, c)| c < host.items[i].n_choices));
        Ok(Self {
            ids: indices_on(&host.device, ids).reshape([n_rows, tokens]),
            types,
            positions,
            first: indices_on(&host.device, first),
            last: indices_on(&host.device, last),
            scored,
            mask: Array2::from_shape_fn((n_rows, tokens), |(r, t)| padded.mask[r * tokens + t]),
            class_mask,
            rows_per_item: padded.rows_per_item,
            trees,
            starts: padded.starts,
            ids_on_host: padded.ids,
            host,
        })
    }
}

impl TokenBatch {
    /// Position of every token in its row, `[rows · tokens]`.
    pub(super) fn places(&self) -> Tensor<1, Int> {
        let (n_rows, tokens) = self.mask.dim();
        let from_first = || indices_on(&self.host.device, (0..n_rows).flat_map(|_| 0..tokens as i64).collect());
        self.positions.clone().unwrap_or_else(from_first)
    }

    /// Checks that a model has all of the tokens, and room for the longest row.
    ///
    /// # Errors
    /// Names the token or the item, with both numbers.
    pub(super) fn check_fits(&self, vocabulary: usize, limit: usize) -> Result<()> {
        let largest = self.largest_id() as usize;
        if largest >= vocabulary {
            return Err(Error::config("token id", format!("below the vocabulary's {vocabulary}"), largest));
        }
        match self.longest_item() {
            Some((item, tokens)) if tokens > limit => {
                Err(Error::PromptTooLong { item: item.to_string(), tokens, limit })
            }
            _ => Ok(()),
        }
    }
}

/// Named rows that ask nothing as one item, called by the longest of them.
fn unasked(rows: &[(&str, &[u32])]) -> EncodedItem {
    let longest = rows.iter().max_by_key(|(_, ids)| ids.len()).map_or("", |(id, _)| id);
    let row =
        |(_, ids): &(&str, &[u32])| EncodedRow { ids: ids.to_vec(), scored: 0..0, weight: 1.0, types: Vec::new() };
    EncodedItem { id: longest.into(), rows: rows.iter().map(row).collect(), label: None, n_choices: 1 }
}

impl HostBatch {
    fn scored(&self, items: &[&EncodedItem], padded: &PaddedRows, trees: Option<&[SharedPrompt]>) -> Scored {
        let choices = items.iter().map(|item| item.rows.len()).max().unwrap_or(0);
        let (mut places, mut targets, mut owners) = (Vec::new(), Vec::new(), Vec::new());
        for (i, item) in items.iter().enumerate() {
            for (c, row) in item.rows.iter().enumerate() {
                for token in row.scored.clone() {
                    let (r, before) = match trees {
                        None => (i * choices + c, token - 1),
                        Some(trees) => (i, trees[i].column(c, token - 1)),
                    };
                    places.push(r * padded.n_tokens + padded.starts[r] + before);
                    targets.push(i64::from(row.ids[token]));
                    owners.push((i * choices + c, row.weight));
                }
            }
        }
        let n = owners.len();
        let n_choices = items.len() * choices;
        let mut weights = vec![0.0; n_choices * n];
        for (j, (owner, weight)) in owners.into_iter().enumerate() {
            weights[owner * n + j] = weight;
        }
        Scored {
            predictors: indices_on(&self.device, places.iter().map(|&place| place as i64).collect()),
            places,
            targets: indices_on(&self.device, targets).reshape([n, 1]),
            weights: Tensor::from_data(
                TensorData::new(weights, [n_choices, n]),
                (&self.device, at_least_f32(self.dtype)),
            ),
        }
    }
}

impl TokenBatch {
    /// Where its tensors are.
    pub(super) fn device(&self) -> &Device {
        &self.host.device
    }

    /// Number of classes of the task.
    pub(super) fn n_classes(&self) -> usize {
        self.host.n_classes
    }

    /// True if every choice of an item is a row of its own.
    pub(super) fn rows_are_choices(&self) -> bool {
        self.host.rows_are_choices
    }

    /// Real tokens of each row, those included that the model has seen already.
    pub(super) fn lengths(&self) -> Vec<usize> {
        let seen = self.n_seen();
        self.mask.outer_iter().map(|row| seen + row.iter().filter(|real| **real).count()).collect()
    }

    /// What the model has seen already of all rows.
    pub(super) fn seen(&self) -> Option<&SeenPrefix> {
        self.host.seen.as_deref()
    }

    /// How many tokens that is.
    pub(super) fn n_seen(&self) -> usize {
        self.seen().map_or(0, SeenPrefix::n_tokens)
    }

    /// Indices in `[rows · tokens]` of the tokens whose final states answer: those before scored ones, or each row's last.
    pub(super) fn read(&self) -> &Tensor<1, Int> {
        self.scored.as_ref().map_or(&self.last, |scored| &scored.predictors)
    }

    /// True if the rows of an item are one.
    pub(super) fn is_shared(&self) -> bool {
        self.trees.is_some()
    }

    /// Largest token id.
    pub(super) fn largest_id(&self) -> u32 {
        let rows = self.host.items.iter().flat_map(|item| &item.rows);
        rows.flat_map(|row| row.ids.iter().copied()).max().unwrap_or(0)
    }

    /// Largest kind of a token.
    pub(super) fn largest_type(&self) -> u32 {
        let rows = self.host.items.iter().flat_map(|item| &item.rows);
        rows.flat_map(|row| row.types.iter().copied()).max().unwrap_or(0)
    }

    /// The item with the longest row, and that row's real tokens.
    pub(super) fn longest_item(&self) -> Option<(&str, usize)> {
        self.host.items.iter().map(|item| (item.id.as_str(), item.longest())).max_by_key(|(_, tokens)| *tokens)
    }
}

impl ClassifierInput for TokenBatch {
    fn n_items(&self) -> usize {
        self.host.items.len()
    }

    fn row_meaning(&self) -> RowMeaning {
        match self.host.rows_are_choices && self.trees.is_none() {
            true => RowMeaning::Choice { choices: self.rows_per_item },
            false => RowMeaning::Item,
        }
    }

    fn read_tokens(&self) -> Option<&[usize]> {
        self.scored.as_ref().map(|scored| &scored.places[..])
    }

    fn token_mask(&self) -> Array2<bool> {
        self.mask.clone()
    }

    fn class_mask(&self) -> Option<&Array2<bool>> {
        self.class_mask.as_ref()
    }

    fn repeat(&self, times: usize) -> Result<Self> {
        let mut host = self.host.clone();
        host.items = (0..times).flat_map(|_| self.host.items.iter().cloned()).collect();
        Self::build(host)
    }

    fn with_shared_prompts(self) -> Result<Self> {
        // what is read at the last token of a row needs rows of their own
        match self.host.is_continuation && self.rows_per_item > 1 {
            true => Self::build(HostBatch { layout: Layout::Shared, ..self.host }),
            false => Ok(self),
        }
    }

    fn behind(self, prefix: &Arc<SeenPrefix>) -> Result<Self> {
        Self::build(HostBatch { seen: Some(prefix.clone()), ..self.host })
    }
}
