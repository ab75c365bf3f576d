//! Lays rows of different lengths into one rectangle of ids and a mask.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::encoded::EncodedItem;
use crate::error::{Error, Result};

/// Where pads go. The side never changes a result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PaddingSide {
    /// Before the row.
    Left,
    /// After the row.
    #[default]
    Right,
}

/// Rows of one length, `[n_rows, n_tokens]`, row-major.
///
/// ```
/// use bayes_lora::data::{PaddedRows, PaddingSide};
///
/// let rows = PaddedRows::from_rows(&[&[5, 6, 7], &[8]], 0, PaddingSide::Left)?;
/// assert_eq!(rows.ids, [5, 6, 7, 0, 0, 8]);
/// assert_eq!(rows.mask, [true, true, true, false, false, true]);
/// assert_eq!(rows.shifted(1, &(0..1)), 2..3);
/// assert_eq!(rows.last_positions(), [Some(2), Some(2)]);
/// # Ok::<(), bayes_lora::error::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PaddedRows {
    /// The ids, pads included.
    pub ids: Vec<u32>,
    /// Which of them are real.
    pub mask: Vec<bool>,
    /// The number of rows, dummies included.
    pub n_rows: usize,
    /// The number of columns.
    pub n_tokens: usize,
    /// The rows of each item: row `r` of item `i` is row `i · rows_per_item + r`.
    pub rows_per_item: usize,
    /// The column of each row's first real token.
    pub starts: Vec<usize>,
    /// The number of each row's real tokens; 0 for a dummy row.
    pub lengths: Vec<usize>,
}

impl PaddedRows {
    /// Pads plain rows, one for each item.
    ///
    /// # Errors
    /// [`Error::Empty`] when no row has a token.
    pub fn from_rows(rows: &[&[u32]], pad_id: u32, side: PaddingSide) -> Result<Self> {
        Self::lay(rows, 1, pad_id, side)
    }

    /// Pads the rows of items; an item with fewer rows than the batch's most gets dummy rows, which are all pads with
    /// a mask of `false`, so that rows are always `[n_items, rows_per_item]`.
    ///
    /// # Errors
    /// [`Error::Empty`] when no row has a token.
    pub fn from_items(items: &[&EncodedItem], pad_id: u32, side: PaddingSide) -> Result<Self> {
        let rows_per_item = items.iter().map(|item| item.rows.len()).max().unwrap_or(0);
        let rows: Vec<&[u32]> = items
            .iter()
            .flat_map(|item| (0..rows_per_item).map(|r| item.rows.get(r).map_or(&[][..], |row| row.ids.as_slice())))
            .collect();
        Self::lay(&rows, rows_per_item, pad_id, side)
    }

    fn lay(rows: &[&[u32]], rows_per_item: usize, pad_id: u32, side: PaddingSide) -> Result<Self> {
        let n_tokens = rows.iter().map(|row| row.len()).max().unwrap_or(0);
        if n_tokens == 0 {
            return Err(Error::empty("the batch"));
        }
        let mut ids = vec![pad_id; rows.len() * n_tokens];
        let mut mask = vec![false; ids.len()];
        let mut starts = Vec::with_capacity(rows.len());
        for (r, row) in rows.iter().enumerate() {
            let start = match side {
                PaddingSide::Left => n_tokens - row.len(),
                PaddingSide::Right => 0,
            };
            let place = r * n_tokens + start..r * n_tokens + start + row.len();
            ids[place.clone()].copy_from_slice(row);
            mask[place].fill(true);
            starts.push(start);
        }
        Ok(Self {
            ids,
            mask,
            n_rows: rows.len(),
            n_tokens,
            rows_per_item,
            starts,
            lengths: rows.iter().map(|row| row.len()).collect(),
        })
    }

    /// The kinds of all tokens of the items that were padded, where one is not of the first kind; pads are of the first.
    ///
    /// # Errors
    /// [`Error::Count`] for a row whose tokens have more or fewer kinds than there are.
    pub(crate) fn types(&self, items: &[&EncodedItem]) -> Result<Option<Vec<i64>>> {
        if items.iter().flat_map(|item| &item.rows).all(|row| row.types.is_empty()) {
            return Ok(None);
        }
        let mut types = vec![0; self.ids.len()];
        for (i, item) in items.iter().enumerate() {
            for (r, row) in item.rows.iter().enumerate().filter(|(_, row)| !row.types.is_empty()) {
                if row.types.len() != row.ids.len() {
                    let what = format!("kinds of the tokens of item `{}`", item.id);
                    return Err(Error::Count { what, expected: row.ids.len(), found: row.types.len() });
                }
                let r = i * self.rows_per_item + r;
                let columns = self.shifted(r, &(0..row.ids.len()));
                for (column, kind) in columns.zip(&row.types) {
                    types[r * self.n_tokens + column] = i64::from(*kind);
                }
            }
        }
        Ok(Some(types))
    }

    /// Moves a range of a row's own indices (such as its scored tokens) to columns of the rectangle.
    ///
    /// # Panics
    /// For a row beyond `n_rows`.
    pub fn shifted(&self, row: usize, range: &Range<usize>) -> Range<usize> {
        let start = self.starts[row];
        range.start + start..range.end + start
    }

    /// The column of each row's last real token; `None` for a dummy row.
    pub fn last_positions(&self) -> Vec<Option<usize>> {
        self.starts
            .iter()
            .zip(&self.lengths)
            .map(|(start, length)| length.checked_sub(1).map(|last| start + last))
            .collect()
    }

    /// The number of real tokens.
    pub fn n_real(&self) -> usize {
        self.lengths.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::encoded::EncodedRow;

    fn item(rows: &[&[u32]]) -> EncodedItem {
        EncodedItem {
            id: "q".into(),
            rows: rows
                .iter()
                .map(|ids| EncodedRow { ids: ids.to_vec(), scored: 1..ids.len(), weight: 1.0, types: Vec::new() })
                .collect(),
            label: Some(0),
            n_choices: rows.len(),
        }
    }

    #[test]
    fn the_masked_ids_are_the_rows_on_either_side() {
        let rows: [&[u32]; 3] = [&[1], &[2, 3, 4], &[5, 6]];
        for side in [PaddingSide::Left, PaddingSide::Right] {
            let padded = PaddedRows::from_rows(&rows, 9, side).unwrap();
            assert_eq!((padded.n_rows, padded.n_tokens, padded.rows_per_item), (3, 3, 1));
            for (r, row) in rows.iter().enumerate() {
                let columns = r * 3..r * 3 + 3;
                let kept: Vec<u32> = padded.ids[columns.clone()]
                    .iter()
                    .zip(&padded.mask[columns])
                    .filter_map(|(id, real)| real.then_some(*id))
                    .collect();
                assert_eq!(kept, *row);
                let last = padded.last_positions()[r].unwrap();
                assert_eq!(padded.ids[r * 3 + last], *row.last().unwrap());
                let place = padded.shifted(r, &(0..row.len()));
                assert_eq!(&padded.ids[r * 3..][place], *row);
            }
            assert_eq!(padded.n_real(), 6);
        }
    }

    #[test]
    fn items_with_fewer_rows_get_dummy_rows() {
        let (two, three) = (item(&[&[1, 2], &[3]]), item(&[&[4], &[5], &[6]]));
        let padded = PaddedRows::from_items(&[&two, &three], 0, PaddingSide::Right).unwrap();
        assert_eq!((padded.n_rows, padded.rows_per_item), (6, 3));
        assert_eq!(padded.ids, [1, 2, 3, 0, 0, 0, 4, 0, 5, 0, 6, 0]);
        assert_eq!(padded.lengths, [2, 1, 0, 1, 1, 1]);
        assert_eq!(padded.last_positions()[2], None);
        assert!(padded.mask[4..6].iter().all(|real| !real));
    }

    #[test]
    fn a_batch_without_tokens_is_refused() {
        assert!(PaddedRows::from_rows(&[], 0, PaddingSide::Left).is_err());
        assert!(PaddedRows::from_rows(&[&[], &[]], 0, PaddingSide::Left).is_err());
        assert!(PaddedRows::from_items(&[], 0, PaddingSide::Left).is_err());
    }
}
