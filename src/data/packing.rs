//! Puts several texts into one row.

use super::batch::{ItemSize, Room};

/// Rows that fill up text by text: each text goes into the first row that has room for it, and begins a new one where none has.
///
/// ```
/// use bayes_lora::data::PackedRows;
///
/// let mut rows = PackedRows::new(10);
/// for length in [6, 5, 4, 3, 12] {
///     rows.push(length);
/// }
/// assert_eq!(rows.texts(), [vec![0, 2], vec![1, 3], vec![4]]);
/// assert_eq!(rows.starts(), [(0, 0), (1, 0), (0, 6), (1, 5), (2, 0)]);
/// assert_eq!(rows.n_places(), 3 * 12); // the last is longer than a row should be, and has one of its own
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackedRows {
    row_tokens: usize,
    texts: Vec<Vec<usize>>,
    lengths: Vec<usize>,
    starts: Vec<(usize, usize)>,
}

impl PackedRows {
    /// No row yet, each of which holds at most `row_tokens`; a text that is longer has a row of its own.
    pub fn new(row_tokens: usize) -> Self {
        Self { row_tokens, texts: Vec::new(), lengths: Vec::new(), starts: Vec::new() }
    }

    /// Adds a text of so many tokens.
    pub fn push(&mut self, length: usize) {
        let row = self.row_for(length);
        if row == self.texts.len() {
            self.texts.push(Vec::new());
            self.lengths.push(0);
        }
        self.texts[row].push(self.starts.len());
        self.starts.push((row, self.lengths[row]));
        self.lengths[row] += length;
    }

    fn row_for(&self, length: usize) -> usize {
        let has_room = |taken: &usize| taken + length <= self.row_tokens;
        self.lengths.iter().position(has_room).unwrap_or(self.lengths.len())
    }

    /// The texts of each row, by the order in which they came.
    pub fn texts(&self) -> &[Vec<usize>] {
        &self.texts
    }

    /// The row of each text, and the column at which it begins.
    pub fn starts(&self) -> &[(usize, usize)] {
        &self.starts
    }

    /// Rows × the longest of them: tokens and pads.
    pub fn n_places(&self) -> usize {
        self.lengths.len() * self.lengths.iter().max().copied().unwrap_or(0)
    }
}

impl Room for PackedRows {
    fn with(&self, size: &ItemSize) -> usize {
        let (row, longest) = (self.row_for(size.longest), self.lengths.iter().max().copied().unwrap_or(0));
        let grown = self.lengths.get(row).copied().unwrap_or(0) + size.longest;
        self.lengths.len().max(row + 1).saturating_mul(longest.max(grown))
    }

    fn add(&mut self, size: &ItemSize) {
        self.push(size.longest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_text_has_a_place_of_its_own_in_a_row_that_is_long_enough(
            lengths in prop::collection::vec(1usize..40, 0..60),
            row_tokens in 1usize..60,
        ) {
            let mut rows = PackedRows::new(row_tokens);
            for &length in &lengths {
                let expected = rows.with(&ItemSize { n_rows: 1, longest: length, key: 0 });
                rows.push(length);
                prop_assert_eq!(rows.n_places(), expected);
            }
            let mut all: Vec<usize> = rows.texts().concat();
            all.sort_unstable();
            prop_assert_eq!(all, (0..lengths.len()).collect::<Vec<_>>());
            for (row, texts) in rows.texts().iter().enumerate() {
                let mut end = 0;
                for &text in texts {
                    prop_assert_eq!(rows.starts()[text], (row, end));
                    end += lengths[text];
                }
                prop_assert!(end <= row_tokens || texts.len() == 1);
            }
            // of two rows that are not full the second was begun because its first text did not fit into the first
            let total: usize = lengths.iter().sum();
            prop_assert!(rows.texts().len() < 2 || 2 * total > (rows.texts().len() - 1) * row_tokens);
        }
    }
}
