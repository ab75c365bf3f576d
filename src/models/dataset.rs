//! The trait by which data join: items with targets, cut into batches.

use super::classifier::{Classifier, ClassifierInput};
use crate::data::{Asked, BatchLimits, BatchOrder};
use crate::error::{Error, Result};
use crate::hash::{fnv1a, fnv1a_words};
use crate::likelihood::Target;
use crate::tape::RowKeys;
use burn::tensor::{DType, Device};

/// Items with labels, or with targets of another kind, that can be cut into batches.
pub trait Dataset: Send + Sync {
    /// The batches' type.
    type Input: ClassifierInput;

    /// Number of items.
    fn n_items(&self) -> usize;

    /// True if every choice of an item is a row of its own (see [`RowMeaning::Choice`](super::RowMeaning::Choice)).
    fn rows_are_choices(&self) -> bool {
        false
    }

    /// The label of an item, if it is known.
    fn label(&self, item: usize) -> Option<usize>;

    /// What was observed of an item, if it is known: its label, unless the data say otherwise. A regression gives
    /// [`Target::Values`], one for each output of the model, and has no labels.
    fn target(&self, item: usize) -> Option<Target> {
        self.label(item).map(Target::Class)
    }

    /// How many units of its likelihood an item holds ([`crate::likelihood::Likelihood::unit`]): what means are taken over. One, unless
    /// the data say otherwise; a text holds its scored tokens.
    fn units(&self, item: usize) -> usize {
        let _ = item;
        1
    }

    /// A name of an item, for errors.
    fn item_id(&self, item: usize) -> String;

    /// What names an item in every data set that holds it: all that is drawn for it depends on it, and merged sums count it once.
    ///
    /// A hash of [`Dataset::item_id`] unless that is a mere position.
    fn item_key(&self, item: usize) -> u64 {
        fnv1a(self.item_id(item).bytes())
    }

    /// A hash of everything that a model sees of an item, and of its target; equal hashes stand for equal items.
    ///
    /// Unfinished work on disk (see [`crate::checkpoints`]) is about items with these hashes, and needs them: `None`, the
    /// default, says that they are unknown.
    fn content_hash(&self, item: usize) -> Option<u64> {
        let _ = item;
        None
    }

    /// How the questions were put to a language model; `None`, the default, says that this is unknown, or that there is nothing
    /// to ask.
    ///
    /// A posterior remembers it, and refuses questions that are known to be asked in another way.
    fn asked(&self) -> Option<&Asked> {
        None
    }

    /// Tokens that every row of every item begins with, before the first token that anything is read off; none by default.
    fn common_beginning(&self) -> Vec<u32> {
        Vec::new()
    }

    /// Cuts all items into batches of similar cost.
    ///
    /// # Errors
    /// If there is no item or a limit is zero.
    fn plan(&self, limits: BatchLimits, order: BatchOrder) -> Result<Vec<Vec<usize>>>;

    /// Builds the batch of the items at `indices`, its float tensors of the model's element type.
    ///
    /// # Errors
    /// If an item cannot be represented.
    fn batch(&self, indices: &[usize], device: &Device, dtype: DType) -> Result<Self::Input>;

    /// Cuts all items into batches in whose rows of at most `row_tokens` several items lie; `None`, the default, where each needs rows of its
    /// own.
    ///
    /// # Errors
    /// As [`Dataset::plan`].
    fn plan_packed(
        &self,
        _limits: BatchLimits,
        _order: BatchOrder,
        _row_tokens: usize,
    ) -> Result<Option<Vec<Vec<usize>>>> {
        Ok(None)
    }

    /// Builds such a batch. The outputs of every item are those that it has in [`Dataset::batch`]; what a pass records token by token is laid
    /// out otherwise, so that curvature goes through the rows apart.
    ///
    /// # Errors
    /// As [`Dataset::batch`].
    fn packed_batch(
        &self,
        _indices: &[usize],
        _row_tokens: usize,
        _device: &Device,
        _dtype: DType,
    ) -> Result<Option<Self::Input>> {
        Ok(None)
    }
}

/// A hash of all items, in order.
///
/// # Errors
/// If the data cannot tell what an item holds.
pub(crate) fn data_fingerprint<D: Dataset>(data: &D) -> Result<u64> {
    let hash = |item: usize| {
        data.content_hash(item).ok_or_else(|| {
            Error::Incompatible(format!(
                "the data do not tell what item `{}` holds (`Dataset::content_hash`), so its unfinished work could be taken for \
                 another's: go without checkpoints",
                data.item_id(item)
            ))
        })
    };
    Ok(fnv1a_words((0..data.n_items()).map(hash).collect::<Result<Vec<_>>>()?))
}

/// All labels, each known and in range.
///
/// # Errors
/// Names the first item whose label is missing or no class.
pub(crate) fn known_labels<D: Dataset>(data: &D, n_classes: usize) -> Result<Vec<usize>> {
    (0..data.n_items())
        .map(|i| match data.label(i) {
            Some(label) if label < n_classes => Ok(label),
            Some(label) => Err(Error::LabelOutOfRange { item: data.item_id(i), label, n_classes }),
            None => Err(Error::Incompatible(format!("item `{}` has no label", data.item_id(i)))),
        })
        .collect()
}

/// Builds the batch of the items at `indices` for `model`, on its device and in its element type, and checks it.
///
/// # Errors
/// As [`Dataset::batch`] and [`Classifier::check`].
pub(crate) fn batch_for<M: Classifier, D: Dataset<Input = M::Input>>(
    model: &M,
    data: &D,
    indices: &[usize],
) -> Result<M::Input> {
    let input = data.batch(indices, &model.device(), model.dtype())?;
    model.check(&input)?;
    Ok(input)
}

/// What names the rows of the batch of the items at `indices`.
pub(crate) fn row_keys<D: Dataset>(data: &D, indices: &[usize], input: &D::Input) -> RowKeys {
    let items = indices.iter().map(|&item| data.item_key(item)).collect();
    let keys = match input.token_owners() {
        None => RowKeys::new(items, &input.token_mask()),
        Some(owners) => RowKeys::packed(items, &owners),
    };
    keys.with_read(input.read_tokens())
}
