//! Keeps the keys and values of the tokens that a decoder has seen, so that the next ones cost a pass over themselves alone.

use super::indices::indices_on;
use crate::error::{Error, Result};
use crate::float_type::absent;
use burn::tensor::{DType, Device, Int, Tensor, TensorData};

/// What a decoder has seen of some rows of tokens: their ids, and the keys and values of every layer.
///
/// Rows may have different lengths. A column holds one token of each row, or nothing of it: rows that are shorter leave columns
/// empty, which nobody looks at. Where a token stands in its row is kept beside it, and windows and rotations go by that.
#[derive(Debug, Clone)]
pub struct KeyValueCache {
    rows: Vec<Vec<u32>>,
    /// Of every row, the position of the token in each column.
    places: Vec<Vec<Option<usize>>>,
    pub(super) layers: Vec<LayerCache>,
}

/// Rotated keys, and values, of one layer: `[rows, key heads, columns, head_dim]` each.
#[derive(Debug, Clone, Default)]
pub(super) struct LayerCache(Option<[Tensor<4>; 2]>);

impl LayerCache {
    /// Adds the keys and values of new columns, and gives those of all.
    pub(super) fn extend(&mut self, new: [Tensor<4>; 2]) -> [Tensor<4>; 2] {
        let all = match self.0.take() {
            None => new,
            Some([keys, values]) => {
                let [new_keys, new_values] = new;
                [Tensor::cat(vec![keys, new_keys], 2), Tensor::cat(vec![values, new_values], 2)]
            }
        };
        self.0 = Some(all.clone());
        all
    }

    /// Puts the keys and values of one row before those of every row.
    pub(super) fn before(&self, new: [Tensor<4>; 2]) -> [Tensor<4>; 2] {
        let Some([keys, values]) = &self.0 else { return new };
        let [new_keys, new_values] = new;
        let rows = new_keys.dims()[0];
        let all = |seen: &Tensor<4>, new: Tensor<4>| {
            let [_, heads, tokens, width] = seen.dims();
            Tensor::cat(vec![seen.clone().expand([rows, heads, tokens, width]), new], 2)
        };
        [all(keys, new_keys), all(values, new_values)]
    }
}

/// Tokens that go through the decoder in one pass.
pub(super) struct NewTokens {
    /// `[rows, tokens]`
    pub(super) ids: Tensor<2, Int>,
    /// Tokens of the longest row.
    pub(super) tokens: usize,
    /// The first position of all.
    pub(super) first: usize,
    /// Positions from there on.
    pub(super) span: usize,
    /// Positions behind `first`, `[rows · tokens]`.
    pub(super) positions: Tensor<1, Int>,
    /// Each row's last token, an index in `[rows · tokens]`.
    pub(super) last: Tensor<1, Int>,
}

impl KeyValueCache {
    /// Of `n_rows` rows of which nothing has been seen yet.
    pub fn new(n_rows: usize) -> Self {
        Self { rows: vec![Vec::new(); n_rows], places: vec![Vec::new(); n_rows], layers: Vec::new() }
    }

    /// Number of rows.
    pub fn n_rows(&self) -> usize {
        self.rows.len()
    }

    /// Tokens seen of each row.
    pub fn lengths(&self) -> Vec<usize> {
        self.rows.iter().map(Vec::len).collect()
    }

    /// Goes on with these rows alone, in this order.
    ///
    /// # Errors
    /// If there is no such row.
    pub fn keep(&mut self, rows: &[usize]) -> Result<()> {
        let n = self.n_rows();
        if let Some(bad) = rows.iter().find(|row| **row >= n) {
            return Err(Error::config("row of a key-value cache", format!("below its {n} rows"), bad));
        }
        if rows.iter().copied().eq(0..n) {
            return Ok(());
        }
        self.rows = rows.iter().map(|&row| self.rows[row].clone()).collect();
        self.places = rows.iter().map(|&row| self.places[row].clone()).collect();
        for layer in &mut self.layers {
            layer.0 = layer.0.take().map(|both| {
                let index: Vec<i64> = rows.iter().map(|&row| row as i64).collect();
                let index = Tensor::from_data(TensorData::new(index, [rows.len()]), &both[0].device());
                both.map(|tensor: Tensor<4>| tensor.select(0, index.clone()))
            });
        }
        Ok(())
    }

    /// Forgets keys and values but not the ids, which are given back: whoever asks wants them computed again.
    pub(super) fn forget(&mut self) -> Vec<Vec<u32>> {
        self.layers.clear();
        self.places.iter_mut().for_each(Vec::clear);
        self.rows.iter_mut().map(std::mem::take).collect()
    }

    /// Adds columns for new tokens, at least one of each row.
    pub(super) fn push(&mut self, new: &[Vec<u32>], device: &Device) -> NewTokens {
        let tokens = new.iter().map(Vec::len).max().unwrap_or(0);
        let starts = self.lengths();
        let first = starts.iter().copied().min().unwrap_or(0);
        let end = starts.iter().zip(new).map(|(start, ids)| start + ids.len()).max().unwrap_or(0);
        let (mut ids, mut positions, mut last) = (Vec::new(), Vec::new(), Vec::new());
        for (r, row) in new.iter().enumerate() {
            last.push((r * tokens + row.len().saturating_sub(1)) as i64);
            for t in 0..tokens {
                let place = row.get(t).map(|_| starts[r] + t);
                self.places[r].push(place);
                // any token would do at a pad
                ids.push(row.get(t).map_or(0, |id| i64::from(*id)));
                positions.push((place.unwrap_or(first) - first) as i64);
            }
            self.rows[r].extend(row);
        }
        NewTokens {
            ids: indices_on(device, ids).reshape([new.len(), tokens]),
            tokens,
            first,
            span: end - first,
            positions: indices_on(device, positions),
            last: indices_on(device, last),
        }
    }

    /// `[rows or 1, 1, tokens, columns]`: 0 where one of the last `tokens` columns may look at a column, far below any score elsewhere;
    /// with a window, at the nearest positions only. One for all rows where these stand alike.
    pub(super) fn attention_mask(&self, tokens: usize, window: Option<usize>, on: (&Device, DType)) -> Tensor<4> {
        let columns = self.places.first().map_or(0, Vec::len);
        let alike = self.places.iter().all(|places| *places == self.places[0]);
        let n = if alike { self.places.len().min(1) } else { self.places.len() };
        let hidden = absent(on.1) as f32;
        let mut values = Vec::with_capacity(n * tokens * columns);
        for places in &self.places[..n] {
            for query in columns - tokens..columns {
                let near = |key: usize| places[query].zip(window).is_none_or(|(place, window)| key + window > place);
                let sees = |(column, place): (usize, &Option<usize>)| column <= query && place.is_some_and(near);
                values.extend(places.iter().enumerate().map(|each| if sees(each) { 0.0 } else { hidden }));
            }
        }
        Tensor::from_data(TensorData::new(values, [n, 1, tokens, columns]), on)
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;

    fn seen(mask: Tensor<4>) -> Vec<String> {
        let [rows, _, tokens, columns] = mask.dims();
        let values: Vec<f32> = mask.into_data().try_into_vec().unwrap();
        let line = |values: &[f32]| values.iter().map(|v| if *v == 0.0 { 'x' } else { '.' }).collect();
        assert_eq!(values.len(), rows * tokens * columns);
        values.chunks(columns).map(line).collect()
    }

    #[test]
    fn a_token_sees_the_tokens_before_it_in_its_window_and_no_empty_column() {
        let device = Device::flex();
        let on = (&device, DType::F32);
        let mut cache = KeyValueCache::new(2);
        cache.push(&[vec![5, 6, 7], vec![8]], &device);
        assert_eq!(seen(cache.attention_mask(3, None, on))[..4], ["x..", "xx.", "xxx", "x.."]);
        let new = cache.push(&[vec![9], vec![9]], &device);
        assert_eq!((new.tokens, new.first, new.span), (1, 1, 3));
        assert_eq!(new.positions.into_data().convert::<i64>().try_into_vec::<i64>().unwrap(), [2, 0]);
        assert_eq!(cache.lengths(), [4, 2]);
        assert_eq!(seen(cache.attention_mask(1, None, on)), ["xxxx", "x..x"]);
        // the window goes by positions: the second row's tokens stand at 0 and 1
        assert_eq!(seen(cache.attention_mask(1, Some(2), on)), ["..xx", "x..x"]);
        cache.keep(&[1]).unwrap();
        assert_eq!(seen(cache.attention_mask(1, Some(1), on)), ["...x"]);
        let error = cache.keep(&[1]).unwrap_err().to_string();
        assert!(error.contains("below its 1 rows") && error.contains("got 1"), "{error}");
    }
}
