//! Names the rows that a linear sees, so that what is drawn for a token depends neither on its batch nor on its padding.

use crate::draws::within;
use crate::hash::fnv1a_words;
use ndarray::{Array2, ArrayView1};

/// Names the rows that a linear sees, so that the noise of a token depends neither on its batch nor on its padding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowKeys {
    /// A key for each of the batch's `rows · tokens`: of the item, its choice and the token's place among the real ones.
    tokens: Vec<u64>,
    /// Those of the real tokens.
    real: Vec<u64>,
    /// Those of the tokens that an output layer reads, where a row may have several ([`RowKeys::with_read`]).
    read: Option<Vec<u64>>,
    /// A key for each row of tokens, that of its first real token: a row of one token is that token.
    rows: Vec<u64>,
}

impl RowKeys {
    /// The keys of a batch.
    ///
    /// # Shapes
    /// - items: a key for each item, mask: `[rows, tokens]` with the same number of consecutive rows for each, true at real tokens
    pub fn new(items: Vec<u64>, mask: &Array2<bool>) -> Self {
        let rows_per_item = (mask.nrows() / items.len().max(1)).max(1);
        let (mut tokens, mut reals) = (Vec::with_capacity(mask.len()), Vec::with_capacity(mask.len()));
        let mut rows = Vec::with_capacity(mask.nrows());
        for (row, real) in mask.outer_iter().enumerate() {
            let (item, choice) = (items.get(row / rows_per_item).copied().unwrap_or(0), (row % rows_per_item) as u64);
            rows.push(fnv1a_words([item, choice, 1]));
            let mut place = 0;
            for real in real {
                place += u64::from(*real);
                let key = fnv1a_words([item, choice, place]);
                tokens.push(key);
                reals.extend(real.then_some(key));
            }
        }
        Self { tokens, real: reals, read: None, rows }
    }

    /// The keys of a batch whose rows hold several items: those that the tokens have in rows of their own.
    ///
    /// # Shapes
    /// - items: a key for each item, owners: `[rows, tokens]`, the item of each token and its place in it, `None` at pads
    pub fn packed(items: Vec<u64>, owners: &Array2<Option<(usize, usize)>>) -> Self {
        let key =
            |(item, place): (usize, usize)| fnv1a_words([items.get(item).copied().unwrap_or(0), 0, place as u64 + 1]);
        let tokens: Vec<u64> = owners.iter().map(|owner| owner.map_or(0, key)).collect();
        let real = owners.iter().filter_map(|owner| owner.map(key)).collect();
        let first =
            |row: ArrayView1<Option<(usize, usize)>>| row.iter().flatten().next().map_or(0, |owner| key(*owner));
        Self { tokens, real, read: None, rows: owners.outer_iter().map(first).collect() }
    }

    /// The same for a model whose output layer reads the tokens at these places of `[rows · tokens]`, in their order
    /// ([`read_tokens`](crate::models::ClassifierInput::read_tokens)): each has the key of its token.
    pub fn with_read(self, places: Option<&[usize]>) -> Self {
        let key = |place: &usize| self.tokens.get(*place).copied().unwrap_or(0);
        Self { read: places.map(|places| places.iter().map(key).collect()), ..self }
    }

    /// Keys of a linear's `n` rows: of the tokens, of the real ones, of those that an output layer reads, or of the rows of tokens (what pools
    /// them sees such), whichever are as many. Of others only the number is known: their keys are those of the batch, and with them their
    /// noise.
    pub fn of_rows(&self, n: usize) -> Vec<u64> {
        if n == self.tokens.len() {
            self.tokens.clone()
        } else if n == self.real.len() {
            self.real.clone()
        } else if let Some(read) = self.read.as_ref().filter(|read| read.len() == n) {
            read.clone()
        } else if n == self.rows.len() {
            self.rows.clone()
        } else {
            let batch = fnv1a_words(self.rows.iter().copied());
            (0..n as u64).map(|row| within(batch, row)).collect()
        }
    }
}
