//! Lays several rows into one: what they begin with once, where that is wanted, then what each of them goes on with.

use super::encoded::EncodedItem;

/// The rows of an item as a tree: a trunk that all rows begin with, and a branch for the rest of each.
///
/// A token sees the trunk before it and what stands before it in its own branch, at the positions that they have in the row: a causal
/// network gives every token what it would give it in a row of its own, and goes through the trunk once.
///
/// ```
/// use bayes_lora::data::{EncodedItem, EncodedRow, SharedPrompt};
///
/// let row = |ids: &[u32]| EncodedRow { ids: ids.to_vec(), scored: 2..ids.len(), weight: 1.0, types: vec![] };
/// let item = EncodedItem { id: "q".into(), rows: vec![row(&[5, 6, 7]), row(&[5, 6, 8, 9])], label: None, n_choices: 2 };
/// let tree = SharedPrompt::new(&item);
/// assert_eq!(tree.ids, [5, 6, 7, 8, 9]);
/// assert_eq!(tree.positions, [0, 1, 2, 2, 3]);
/// assert_eq!((tree.column(1, 1), tree.column(1, 3)), (1, 4));
/// assert!(tree.sees(3, 1) && !tree.sees(3, 2));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedPrompt {
    /// The tokens, trunk first.
    pub ids: Vec<u32>,
    /// The place of each in the rows that it stands for.
    pub positions: Vec<usize>,
    /// The branch of each; `None` for the trunk.
    branches: Vec<Option<usize>>,
    trunk: usize,
    /// Where each branch begins.
    starts: Vec<usize>,
}

impl SharedPrompt {
    /// The tree of an item's rows.
    pub fn new(item: &EncodedItem) -> Self {
        let rows = rows_of(item);
        let common = |a: &[u32], b: &[u32]| a.iter().zip(b).take_while(|(a, b)| a == b).count();
        let first = rows.first().copied().unwrap_or_default();
        let trunk = rows.iter().map(|row| common(first, row)).min().unwrap_or(0);
        Self::with_trunk(&rows, trunk)
    }

    /// The rows behind each other, with nothing in common: what is packed into one row without knowing of the others.
    pub fn without_trunk(item: &EncodedItem) -> Self {
        Self::with_trunk(&rows_of(item), 0)
    }

    fn with_trunk(rows: &[&[u32]], trunk: usize) -> Self {
        let first = rows.first().copied().unwrap_or_default();
        let mut tree = Self {
            ids: first[..trunk].to_vec(),
            positions: (0..trunk).collect(),
            branches: vec![None; trunk],
            trunk,
            starts: Vec::with_capacity(rows.len()),
        };
        for (branch, row) in rows.iter().enumerate() {
            tree.starts.push(tree.ids.len());
            tree.ids.extend(&row[trunk..]);
            tree.positions.extend(trunk..row.len());
            tree.branches.resize(tree.ids.len(), Some(branch));
        }
        tree
    }

    /// Where token `place` of row `row` stands.
    ///
    /// # Panics
    /// For a row that the item does not have.
    pub fn column(&self, row: usize, place: usize) -> usize {
        if place < self.trunk { place } else { self.starts[row] + place - self.trunk }
    }

    /// The column of the token before that at `column` in its row; `None` for the first of a row.
    ///
    /// # Panics
    /// For columns beyond the last.
    pub fn before(&self, column: usize) -> Option<usize> {
        match self.branches[column] {
            Some(branch) if self.starts[branch] == column => self.trunk.checked_sub(1),
            _ => column.checked_sub(1),
        }
    }

    /// Whether the token at column `from` sees that at `to`.
    ///
    /// # Panics
    /// For columns beyond the last.
    pub fn sees(&self, from: usize, to: usize) -> bool {
        to <= from && self.branches[to].is_none_or(|branch| self.branches[from] == Some(branch))
    }
}

fn rows_of(item: &EncodedItem) -> Vec<&[u32]> {
    item.rows.iter().map(|row| row.ids.as_slice()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::encoded::EncodedRow;

    fn item(rows: &[&[u32]]) -> EncodedItem {
        let rows: Vec<_> = rows
            .iter()
            .map(|ids| EncodedRow { ids: ids.to_vec(), scored: 1..ids.len(), weight: 1.0, types: Vec::new() })
            .collect();
        EncodedItem { id: "q".into(), n_choices: rows.len(), rows, label: None }
    }

    fn tree(rows: &[&[u32]]) -> SharedPrompt {
        SharedPrompt::new(&item(rows))
    }

    #[test]
    fn every_token_sees_its_row_up_to_itself_and_nothing_else() {
        let cases: [&[&[u32]]; 5] = [
            &[&[1, 2, 3, 4], &[1, 2, 5], &[1, 2, 3, 6]], // two branches that begin alike
            &[&[1, 2], &[1, 2, 3]],                      // one row is the other's start
            &[&[1, 2, 3], &[1, 2, 3]],                   // the same row twice
            &[&[1, 2], &[3, 4, 5]],                      // nothing in common
            &[&[7, 8]],
        ];
        for rows in cases {
            for tree in [tree(rows), SharedPrompt::without_trunk(&item(rows))] {
                for (r, row) in rows.iter().enumerate() {
                    for t in 0..row.len() {
                        let from = tree.column(r, t);
                        assert_eq!((tree.ids[from], tree.positions[from]), (row[t], t));
                        let seen: Vec<u32> =
                            (0..tree.ids.len()).filter(|to| tree.sees(from, *to)).map(|to| tree.ids[to]).collect();
                        assert_eq!(seen, row[..=t], "{rows:?}");
                        assert_eq!(tree.before(from), t.checked_sub(1).map(|before| tree.column(r, before)));
                    }
                }
            }
        }
        assert_eq!(tree(&[&[1, 2, 3], &[1, 2, 3]]).ids.len(), 3);
        assert_eq!(SharedPrompt::without_trunk(&item(&[&[1, 2, 3], &[1, 2, 3]])).ids, [1, 2, 3, 1, 2, 3]);
        assert!(tree(&[]).ids.is_empty());
    }
}
