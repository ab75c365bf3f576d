//! Some of the items of a data set, as a data set.

use super::dataset::Dataset;
use crate::data::{Asked, BatchLimits, BatchOrder};
use crate::error::{Error, Result};
use crate::likelihood::Target;
use burn::tensor::{DType, Device};

/// The items of another data set at chosen indices, in their order.
#[derive(Debug, Clone)]
pub struct Subset<'a, D> {
    data: &'a D,
    indices: Vec<usize>,
    place: Vec<Option<usize>>,
}

impl<'a, D: Dataset> Subset<'a, D> {
    /// Chooses items.
    ///
    /// # Errors
    /// If there is none, one is chosen twice, or an index is not below the number of items.
    pub fn new(data: &'a D, indices: Vec<usize>) -> Result<Self> {
        if indices.is_empty() {
            return Err(Error::empty("subset of the items"));
        }
        let n = data.n_items();
        let mut place = vec![None; n];
        for (at, &index) in indices.iter().enumerate() {
            let slot = place.get_mut(index);
            let slot = slot.ok_or_else(|| Error::config("index of an item", format!("below {n}"), index))?;
            if slot.replace(at).is_some() {
                return Err(Error::config("indices", "all different", format!("{index} twice")));
            }
        }
        Ok(Self { data, indices, place })
    }
}

impl<D: Dataset> Dataset for Subset<'_, D> {
    type Input = D::Input;

    fn n_items(&self) -> usize {
        self.indices.len()
    }

    fn rows_are_choices(&self) -> bool {
        self.data.rows_are_choices()
    }

    fn label(&self, item: usize) -> Option<usize> {
        self.data.label(self.indices[item])
    }

    fn target(&self, item: usize) -> Option<Target> {
        self.data.target(self.indices[item])
    }

    fn units(&self, item: usize) -> usize {
        self.data.units(self.indices[item])
    }

    fn item_id(&self, item: usize) -> String {
        self.data.item_id(self.indices[item])
    }

    fn item_key(&self, item: usize) -> u64 {
        self.data.item_key(self.indices[item])
    }

    fn content_hash(&self, item: usize) -> Option<u64> {
        self.data.content_hash(self.indices[item])
    }

    fn asked(&self) -> Option<&Asked> {
        self.data.asked()
    }

    /// That of the whole.
    fn common_beginning(&self) -> Vec<u32> {
        self.data.common_beginning()
    }

    /// The whole's batches without the items that were not chosen, joined while they hold no more items than any of them did:
    /// so many of that length were within the limits.
    fn plan(&self, limits: BatchLimits, order: BatchOrder) -> Result<Vec<Vec<usize>>> {
        let mut joined: Vec<Vec<usize>> = Vec::new();
        let mut room = 0;
        for batch in self.data.plan(limits, order)? {
            let chosen: Vec<usize> = batch.iter().filter_map(|&item| self.place[item]).collect();
            if chosen.is_empty() {
                continue;
            }
            match joined.last_mut() {
                Some(last) if last.len() + chosen.len() <= room.min(batch.len()) => {
                    last.extend(chosen);
                    room = room.min(batch.len());
                }
                _ => {
                    joined.push(chosen);
                    room = batch.len();
                }
            }
        }
        Ok(joined)
    }

    fn batch(&self, indices: &[usize], device: &Device, dtype: DType) -> Result<D::Input> {
        let of_whole: Vec<usize> = indices.iter().map(|&item| self.indices[item]).collect();
        self.data.batch(&of_whole, device, dtype)
    }

    /// The whole's batches without the items that were not chosen: how many fit into a batch depends on which.
    fn plan_packed(
        &self,
        limits: BatchLimits,
        order: BatchOrder,
        row_tokens: usize,
    ) -> Result<Option<Vec<Vec<usize>>>> {
        let chosen = |batch: &Vec<usize>| batch.iter().filter_map(|&item| self.place[item]).collect::<Vec<_>>();
        let plan = self.data.plan_packed(limits, order, row_tokens)?;
        Ok(plan.map(|plan| plan.iter().map(chosen).filter(|batch| !batch.is_empty()).collect()))
    }

    fn packed_batch(
        &self,
        indices: &[usize],
        row_tokens: usize,
        device: &Device,
        dtype: DType,
    ) -> Result<Option<D::Input>> {
        let of_whole: Vec<usize> = indices.iter().map(|&item| self.indices[item]).collect();
        self.data.packed_batch(&of_whole, row_tokens, device, dtype)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::Points;
    use ndarray::Array2;

    #[test]
    fn chosen_items_keep_their_names_and_fill_the_batches() {
        let features = Array2::from_shape_fn((20, 1), |(i, _)| i as f64);
        let points = Points::new(features, (0..20).map(|i| i % 2).collect()).unwrap();
        let chosen: Vec<usize> = (0..20).filter(|i| i % 3 == 1).rev().collect();
        let subset = Subset::new(&points, chosen.clone()).unwrap();
        for (at, &item) in chosen.iter().enumerate() {
            assert_eq!((subset.label(at), subset.item_key(at)), (points.label(item), points.item_key(item)));
            assert_eq!(subset.content_hash(at), points.content_hash(item));
        }
        for order in [BatchOrder::ByLength, BatchOrder::Shuffled { seed: 1, epoch: 0, step: 1 }] {
            let plan = subset.plan(BatchLimits { max_items: 4, max_tokens: 100 }, order).unwrap();
            let mut all = plan.concat();
            all.sort_unstable();
            assert_eq!(all, (0..7).collect::<Vec<_>>());
            // 7 items of 5 batches of 4: 2 + 2, 2 + 1 at best, and never more than 4 together
            assert!(plan.len() < 5 && plan.iter().all(|batch| batch.len() <= 4), "{plan:?}");
        }
        for (indices, parts) in [(vec![], "empty"), (vec![3, 20], "20"), (vec![3, 3], "3 twice")] {
            let error = Subset::new(&points, indices).unwrap_err().to_string();
            assert!(error.contains(parts), "{error}");
        }
    }
}
