//! Plans batches: every item once, similar lengths together, an item's rows never apart.

use std::collections::BTreeMap;

use rand::Rng;
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};

use super::encoded::{EncodedDataset, EncodedItem};
use crate::draws::{Purpose, generator, place, within};
use crate::error::{Error, Result};

/// How many full batches of shuffled items are sorted by length together.
const WINDOW_BATCHES: usize = 16;

/// What an item takes in a batch, and what names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ItemSize {
    /// The number of its rows.
    pub n_rows: usize,
    /// The length of its longest row, in tokens.
    pub longest: usize,
    /// What a shuffle draws by, so that it does not depend on the order in which items come; items may share one.
    pub key: u64,
}

impl From<&EncodedItem> for ItemSize {
    fn from(item: &EncodedItem) -> Self {
        Self { n_rows: item.rows.len(), longest: item.longest(), key: place(&item.id) }
    }
}

/// How large a batch may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchLimits {
    /// The most items.
    pub max_items: usize,
    /// The most tokens, **padded**: items × most rows of an item × longest row. A single item may exceed it.
    pub max_tokens: usize,
}

impl BatchLimits {
    /// Checks every bound.
    ///
    /// # Errors
    /// Names the field, its bound and its value.
    pub fn validate(&self) -> Result<()> {
        for (field, value) in [("max_items", self.max_items), ("max_tokens", self.max_tokens)] {
            if value == 0 {
                return Err(Error::config(field, "at least 1", value));
            }
        }
        Ok(())
    }

    /// Limits under which a batch may be repeated `copies` times and still respect these (one item always fits).
    pub fn shared_by(self, copies: usize) -> Self {
        let share = |limit: usize| (limit / copies.max(1)).max(1);
        Self { max_items: share(self.max_items), max_tokens: share(self.max_tokens) }
    }
}

/// The order of the items.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BatchOrder {
    /// As they come.
    Sequential,
    /// The longest first, so that a batch that does not fit the memory fails at once.
    ByLength,
    /// At random, the same for the same seed and epoch whatever the order of the items: shuffled, then sorted by length within
    /// windows of 16 · `max_items`, cut into batches, and the batches shuffled, so many neighbours at a time as make a step.
    Shuffled {
        /// The seed.
        seed: u64,
        /// The pass over the data; each has its own order.
        epoch: u64,
        /// Batches a step: being of similar lengths, they keep as many workers busy equally long.
        step: usize,
    },
}

/// Cuts items into batches of indices; every item is in exactly one.
///
/// ```
/// use bayes_lora::data::{BatchLimits, BatchOrder, ItemSize, plan_batches};
///
/// let sizes: Vec<ItemSize> = [9, 2, 8, 3].map(|longest| ItemSize { n_rows: 1, longest, key: 0 }).to_vec();
/// let limits = BatchLimits { max_items: 2, max_tokens: 100 };
/// assert_eq!(plan_batches(&sizes, limits, BatchOrder::ByLength)?, [[0, 2], [3, 1]]);
/// # Ok::<(), bayes_lora::error::Error>(())
/// ```
///
/// # Errors
/// [`Error::Config`] for a limit of 0.
pub fn plan_batches(sizes: &[ItemSize], limits: BatchLimits, order: BatchOrder) -> Result<Vec<Vec<usize>>> {
    plan_in(&Rectangle::default(), sizes, limits, order)
}

/// The same where the items of a batch are laid out in another way: `empty` is a batch without items.
///
/// # Errors
/// As [`plan_batches`].
pub(super) fn plan_in(
    empty: &impl Room,
    sizes: &[ItemSize],
    limits: BatchLimits,
    order: BatchOrder,
) -> Result<Vec<Vec<usize>>> {
    limits.validate()?;
    let mut indices: Vec<usize> = (0..sizes.len()).collect();
    Ok(match order {
        BatchOrder::Sequential => cut(empty, &indices, sizes, limits),
        BatchOrder::ByLength => {
            sort_longest_first(&mut indices, sizes);
            cut(empty, &indices, sizes, limits)
        }
        BatchOrder::Shuffled { seed, epoch, step } => {
            let order = shuffle_keys(sizes, seed, epoch);
            indices.sort_by_key(|i| order[*i]);
            let window = limits.max_items.saturating_mul(WINDOW_BATCHES);
            for (i, part) in indices.chunks_mut(window).enumerate() {
                sort_longest_first(part, sizes);
                // Falling, rising, falling, …: where windows meet, lengths meet too.
                if i % 2 == 1 {
                    part.reverse();
                }
            }
            let (batches, step) = (cut(empty, &indices, sizes, limits), step.max(1));
            let (whole, rest) = batches.split_at(batches.len() - batches.len() % step);
            let mut steps: Vec<&[Vec<usize>]> = whole.chunks(step).collect();
            steps.shuffle(&mut generator(seed, Purpose::ShuffledBatches, 0, epoch));
            steps.push(rest);
            steps.concat()
        }
    })
}

/// How many tokens, pads included, a batch takes that is filled item by item.
pub(super) trait Room: Clone {
    /// With one more item.
    fn with(&self, size: &ItemSize) -> usize;

    /// Adds it.
    fn add(&mut self, size: &ItemSize);
}

/// Rows beside each other, as many for every item and all as long as the longest.
#[derive(Clone, Default)]
struct Rectangle {
    items: usize,
    n_rows: usize,
    longest: usize,
}

impl Room for Rectangle {
    fn with(&self, size: &ItemSize) -> usize {
        (self.items + 1).saturating_mul(size.n_rows.max(self.n_rows)).saturating_mul(size.longest.max(self.longest))
    }

    fn add(&mut self, size: &ItemSize) {
        let (n_rows, longest) = (size.n_rows.max(self.n_rows), size.longest.max(self.longest));
        *self = Self { items: self.items + 1, n_rows, longest };
    }
}

impl EncodedDataset {
    /// Plans this task's batches; see [`plan_batches`].
    ///
    /// # Errors
    /// [`Error::Config`] for a limit of 0.
    pub fn plan(&self, limits: BatchLimits, order: BatchOrder) -> Result<Vec<Vec<usize>>> {
        let sizes: Vec<ItemSize> = self.items.iter().map(ItemSize::from).collect();
        plan_batches(&sizes, limits, order)
    }
}

/// A random number for every item: in their order the items are shuffled. Of items with one key each has its own.
fn shuffle_keys(sizes: &[ItemSize], seed: u64, epoch: u64) -> Vec<u64> {
    let mut met = BTreeMap::new();
    let draw = |size: &ItemSize| {
        let nth = met.entry(size.key).and_modify(|nth| *nth += 1).or_insert(0u64);
        generator(seed, Purpose::Shuffle, within(size.key, *nth), epoch).next_u64()
    };
    sizes.iter().map(draw).collect()
}

/// Longest first; equal lengths keep their order.
fn sort_longest_first(indices: &mut [usize], sizes: &[ItemSize]) {
    indices.sort_by_key(|i| std::cmp::Reverse((sizes[*i].longest, sizes[*i].n_rows)));
}

fn cut(empty: &impl Room, indices: &[usize], sizes: &[ItemSize], limits: BatchLimits) -> Vec<Vec<usize>> {
    let mut batches: Vec<Vec<usize>> = Vec::new();
    let (mut batch, mut room) = (Vec::new(), empty.clone());
    for &index in indices {
        let size = &sizes[index];
        if !batch.is_empty() && (batch.len() >= limits.max_items || room.with(size) > limits.max_tokens) {
            batches.push(std::mem::take(&mut batch));
            room = empty.clone();
        }
        room.add(size);
        batch.push(index);
    }
    if !batch.is_empty() {
        batches.push(batch);
    }
    batches
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};

    use super::*;

    fn sizes(lengths: &[usize]) -> Vec<ItemSize> {
        lengths.iter().zip(0..).map(|(&longest, key)| ItemSize { n_rows: 1, longest, key }).collect()
    }

    fn padded(batch: &[usize], sizes: &[ItemSize]) -> usize {
        let rows = batch.iter().map(|i| sizes[*i].n_rows).max().unwrap();
        let longest = batch.iter().map(|i| sizes[*i].longest).max().unwrap();
        batch.len() * rows * longest
    }

    proptest! {
        #[test]
        fn every_item_is_in_exactly_one_batch_and_every_batch_within_its_limits(
            shapes in prop::collection::vec((1usize..6, 1usize..40), 0..80),
            max_items in 1usize..9,
            max_tokens in 1usize..200,
            seed in 0u64..4,
        ) {
            let sizes: Vec<ItemSize> =
                shapes.iter().map(|&(n_rows, longest)| ItemSize { n_rows, longest, key: 0 }).collect();
            let limits = BatchLimits { max_items, max_tokens };
            for order in [BatchOrder::Sequential, BatchOrder::ByLength, BatchOrder::Shuffled { seed, epoch: 1, step: 2 }] {
                let batches = plan_batches(&sizes, limits, order).unwrap();
                let mut seen: Vec<usize> = batches.concat();
                seen.sort_unstable();
                prop_assert_eq!(seen, (0..sizes.len()).collect::<Vec<_>>());
                for batch in &batches {
                    prop_assert!(!batch.is_empty() && batch.len() <= max_items);
                    prop_assert!(batch.len() == 1 || padded(batch, &sizes) <= max_tokens);
                }
            }
        }
    }

    #[test]
    fn sequential_batches_keep_the_order() {
        let limits = BatchLimits { max_items: 2, max_tokens: 10 };
        let batches = plan_batches(&sizes(&[3, 3, 3, 9, 9, 50]), limits, BatchOrder::Sequential).unwrap();
        assert_eq!(batches, [vec![0, 1], vec![2], vec![3], vec![4], vec![5]]);
    }

    #[test]
    fn the_rows_of_an_item_count_together() {
        let two = [ItemSize { n_rows: 4, longest: 5, key: 0 }, ItemSize { n_rows: 2, longest: 6, key: 1 }];
        let plan = |max_tokens| {
            plan_batches(&two, BatchLimits { max_items: 9, max_tokens }, BatchOrder::Sequential).unwrap().len()
        };
        // Together they take 2 items × 4 rows × 6 tokens.
        assert_eq!((plan(48), plan(47)), (1, 2));
    }

    #[test]
    fn a_seed_and_an_epoch_fix_the_order() {
        let sizes = sizes(&(1..200).map(|i| i % 37 + 1).collect::<Vec<_>>());
        let limits = BatchLimits { max_items: 8, max_tokens: 1000 };
        let plan = |seed, epoch| plan_batches(&sizes, limits, BatchOrder::Shuffled { seed, epoch, step: 1 }).unwrap();
        assert_eq!(plan(1, 0), plan(1, 0));
        assert_ne!(plan(1, 0), plan(1, 1));
        assert_ne!(plan(1, 0), plan(2, 0));
        // Epochs are streams of one seed, not neighbouring seeds.
        assert_ne!(plan(1, 1), plan(2, 0));
    }

    #[test]
    fn the_batches_of_a_step_are_of_similar_lengths_and_steps_are_shuffled() {
        let sizes = sizes(&(0..99).map(|i| (i * 31) % 97 + 1).collect::<Vec<_>>());
        let limits = BatchLimits { max_items: 4, max_tokens: 10_000 };
        let plan = |seed, step| plan_batches(&sizes, limits, BatchOrder::Shuffled { seed, epoch: 0, step }).unwrap();
        let tokens = |batch: &Vec<usize>| batch.iter().map(|i| sizes[*i].longest).sum::<usize>();
        let apart = |batches: &[Vec<usize>]| -> usize {
            let whole = batches.chunks(2).filter(|step| step.len() == 2);
            whole.map(|step| tokens(&step[0]).abs_diff(tokens(&step[1]))).sum()
        };
        let batches = plan(0, 2);
        assert_eq!(batches.len(), 25);
        // neighbours of some dozen sorted batches against any two of them
        assert!(3 * apart(&batches) < apart(&plan(0, 1)), "{batches:?}");
        assert_ne!(batches, plan(1, 2));
    }

    #[test]
    fn the_order_in_which_items_come_changes_no_batch_of_a_shuffle() {
        let named = |keys: &[u64]| -> Vec<ItemSize> {
            keys.iter().map(|&key| ItemSize { n_rows: 1, longest: key as usize % 7 + 1, key }).collect()
        };
        let limits = BatchLimits { max_items: 8, max_tokens: 30 };
        let order = BatchOrder::Shuffled { seed: 1, epoch: 2, step: 1 };
        let keys = |keys: &[u64]| -> Vec<Vec<u64>> {
            let batches = plan_batches(&named(keys), limits, order).unwrap();
            batches.into_iter().map(|batch| batch.into_iter().map(|i| keys[i]).collect()).collect()
        };
        let forwards: Vec<u64> = (0..300).collect();
        let backwards: Vec<u64> = (0..300).rev().collect();
        assert_eq!(keys(&forwards), keys(&backwards));
        // items that share a name are shuffled all the same
        let limits = BatchLimits { max_items: 8, max_tokens: 100 };
        let alike = plan_batches(&named(&[5; 300]), limits, order).unwrap().concat();
        let (mut ascents, mut sorted) = (0, alike.clone());
        alike.windows(2).for_each(|pair| ascents += usize::from(pair[0] < pair[1]));
        sorted.sort_unstable();
        assert_eq!(sorted, (0..300).collect::<Vec<_>>());
        // half of 299, with a standard deviation of √(301/12) = 5
        assert!((125..175).contains(&ascents), "{ascents}");
    }

    #[test]
    fn shuffled_batches_are_random_and_yet_pad_little() {
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        let sizes = sizes(&(0..4000).map(|_| rng.random_range(10..200)).collect::<Vec<_>>());
        let limits = BatchLimits { max_items: 16, max_tokens: usize::MAX };
        let waste = |batches: &[Vec<usize>]| {
            let padded: usize = batches.iter().map(|b| padded(b, &sizes)).sum();
            let real: usize = sizes.iter().map(|s| s.longest).sum();
            padded as f64 / real as f64 - 1.0
        };
        let shuffled = plan_batches(&sizes, limits, BatchOrder::Shuffled { seed: 0, epoch: 0, step: 1 }).unwrap();
        let plain = plan_batches(&sizes, limits, BatchOrder::Sequential).unwrap();
        // A window of 256 uniform lengths over 190 values leaves gaps of about 12 within a batch of 16: 6 % of the mean.
        assert!(waste(&shuffled) < 0.10, "{}", waste(&shuffled));
        assert!(waste(&plain) > 0.5, "{}", waste(&plain));
        assert_eq!(shuffled.len(), 250);
        // The mean index of the first half's batches is that of the whole, within 4 standard errors (1155 / √2000).
        let early: Vec<usize> = shuffled[..125].concat();
        let mean = early.iter().sum::<usize>() as f64 / early.len() as f64;
        assert!((mean - 1999.5).abs() < 4.0 * 1155.0 / 2000f64.sqrt(), "{mean}");
    }

    #[test]
    fn limits_of_zero_are_refused_by_name() {
        for (max_items, max_tokens, field) in [(0, 1, "max_items"), (1, 0, "max_tokens")] {
            let limits = BatchLimits { max_items, max_tokens };
            let error = plan_batches(&sizes(&[1]), limits, BatchOrder::Sequential).unwrap_err();
            assert!(error.to_string().contains(field), "{error}");
        }
        let limits = BatchLimits { max_items: 1, max_tokens: 1 };
        assert!(plan_batches(&[], limits, BatchOrder::ByLength).unwrap().is_empty());
    }
}
