//! Predicts with noise inside the forward pass, drawn anew for every token.

use super::rows::rows;
use super::sampled::stacked;
use crate::belief::LogitBelief;
use crate::curvature::host_logits;
use crate::data::{BatchLimits, BatchOrder};
use crate::error::{Error, Result};
use crate::hash::{fnv1a, fnv1a_words};
use crate::models::{Classifier, ClassifierInput, Dataset, batch_for};
use crate::progress::Control;
use crate::tape::{SiteNoise, Tape};

/// Names the rows that a linear sees, so that the noise of a token depends neither on its batch nor on its padding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowKeys {
    /// A key for each of the batch's `rows · tokens`: of the item, its choice and the token's place among the real ones.
    tokens: Vec<u64>,
    /// A key for each item.
    items: Vec<u64>,
}

impl RowKeys {
    /// The keys of a batch: those of the items at `indices`.
    pub fn new<D: Dataset>(data: &D, indices: &[usize], input: &D::Input) -> Self {
        let items: Vec<u64> = indices.iter().map(|&item| data.item_key(item)).collect();
        let mask = input.token_mask();
        let rows_per_item = mask.nrows() / items.len().max(1);
        let mut tokens = Vec::with_capacity(mask.len());
        for (row, real) in mask.outer_iter().enumerate() {
            let (item, choice) = (items[row / rows_per_item], (row % rows_per_item) as u64);
            let mut place = 0;
            tokens.extend(real.iter().map(|real| {
                place += u64::from(*real);
                fnv1a_words([item, choice, place])
            }));
        }
        Self { tokens, items }
    }

    /// Keys of a linear's `n` rows: of the tokens or of the items, whichever are as many. Of other rows only the number is known:
    /// their noise depends on the batch.
    pub fn of_rows(&self, n: usize) -> Vec<u64> {
        if n == self.tokens.len() {
            self.tokens.clone()
        } else if n == self.items.len() {
            self.items.clone()
        } else {
            (0..n as u64).collect()
        }
    }
}

/// Logits of every item in `n_samples` passes with noise.
///
/// `noise` makes the noise of a pass (0, 1, …) over the rows of a batch; `name` says all that it depends on.
///
/// # Errors
/// If `n_samples` is 0, the output head is adapted and scores continuations (it sees tokens picked from several rows, which have
/// no keys), or as [`super::predict_map`].
pub fn predict_noisy<M: Classifier, D: Dataset<Input = M::Input>>(
    model: &M,
    data: &D,
    (name, noise): (&str, impl Fn(u64, RowKeys) -> Box<dyn SiteNoise> + Sync),
    n_samples: usize,
    limits: &BatchLimits,
    control: &Control,
) -> Result<LogitBelief> {
    let has_noisy_head = model.linears().iter().any(|linear| linear.is_head && linear.adapter.is_some());
    if has_noisy_head && data.rows_are_choices() {
        return Err(Error::Incompatible(
            "noise per token would depend on the batch where an adapted output head scores continuations: take coherent \
             noise, class tokens, or another adapter"
                .into(),
        ));
    }
    let model = model.valid();
    let n_classes = model.n_classes();
    let batches = data.plan(*limits, BatchOrder::ByLength)?;
    stacked(n_samples, (data.n_items(), n_classes), |index| {
        let work = |indices: &[usize]| {
            let input = batch_for(&model, data, indices)?;
            let noise = noise(index, RowKeys::new(data, indices, &input));
            host_logits(model.logits(&input, &mut Tape::noise(noise)), input.class_mask())
        };
        let kind = || Ok(fnv1a_words([fnv1a(name.bytes()), index]));
        rows((&model, data), (n_classes, kind), &batches, control, work)
    })
}
