//! Lays what a linear saw out by items, rows and tokens.

use crate::error::{Error, Result};
use crate::models::{ClassifierInput, indices_on};
use crate::tape::Site;
use burn::tensor::{IndexingUpdateOp, Tensor};
use ndarray::{Array3, s};

/// The places of a batch's tokens, and which of them the model reads.
pub(super) struct BatchLayout<'a> {
    /// Real tokens, `[n_items, m, tokens]`.
    mask: Array3<bool>,
    /// See [`ClassifierInput::read_tokens`].
    read: Option<&'a [usize]>,
}

/// Where the vectors that a site saw lie in `[n_items, m, tokens]`.
pub(super) struct SiteLayout {
    /// True where there is one of a real token.
    pub(super) mask: Array3<bool>,
    /// The place of each; `None` where every place has one, in their order.
    places: Option<Vec<usize>>,
}

impl<'a> BatchLayout<'a> {
    pub(super) fn new<I: ClassifierInput>(input: &'a I) -> Self {
        let tokens = input.token_mask();
        let (n_items, m) = (input.n_items(), tokens.nrows() / input.n_items());
        let mask = Array3::from_shape_fn((n_items, m, tokens.ncols()), |(b, r, t)| tokens[[b * m + r, t]]);
        Self { mask, read: input.read_tokens() }
    }

    /// That of a site which saw `n` vectors; `is_head` says that it is one of an output layer.
    ///
    /// # Errors
    /// If they are neither all tokens, nor those that are read, nor one a row.
    pub(super) fn of_site(&self, site: &Site, n: usize, is_head: bool) -> Result<SiteLayout> {
        let (items, m, tokens) = self.mask.dim();
        let rows = items * m;
        if let Some(read) = self.read.filter(|read| read.len() == n && (is_head || n != rows * tokens)) {
            return Ok(self.of_read(read));
        }
        if n == rows * tokens {
            return Ok(SiteLayout { mask: self.mask.clone(), places: None });
        }
        if n == rows && self.read.is_none() {
            // a row without a token is that of a choice that its item lacks
            let any = |(b, r, _)| self.mask.slice(s![b, r, ..]).iter().any(|real| *real);
            return Ok(SiteLayout { mask: Array3::from_shape_fn((items, m, 1), any), places: None });
        }
        let reads = self.read.map_or_else(String::new, |read| format!(", of which the model reads {}", read.len()));
        Err(Error::Incompatible(format!("site `{site}` saw {n} vectors for {rows} rows of {tokens} tokens{reads}")))
    }

    /// The tokens of each row that are read, one behind the other.
    fn of_read(&self, read: &[usize]) -> SiteLayout {
        let (items, m, tokens) = self.mask.dim();
        let mut counts = vec![0usize; items * m];
        let of_row = |place: &usize| {
            let row = place / tokens;
            counts[row] += 1;
            (row, counts[row] - 1)
        };
        let found: Vec<(usize, usize)> = read.iter().map(of_row).collect();
        let most = counts.iter().copied().max().unwrap_or(0);
        let places: Vec<usize> = found.into_iter().map(|(row, index)| row * most + index).collect();
        let in_order = places.len() == counts.len() * most && places.is_sorted();
        let mask = Array3::from_shape_fn((items, m, most), |(b, r, t)| t < counts[b * m + r]);
        SiteLayout { mask, places: (!in_order).then_some(places) }
    }
}

impl SiteLayout {
    /// Puts the vectors of `copies` of the batch, `[copies · n, d]`, in their places, `[copies · n_items · m · tokens, d]`; zeros elsewhere.
    pub(super) fn lay_out(&self, vectors: Tensor<2>, copies: usize) -> Tensor<2> {
        let Some(places) = &self.places else { return vectors };
        let (n, width) = (self.mask.len(), vectors.dims()[1]);
        let all = (0..copies).flat_map(|copy| places.iter().map(move |place| (copy * n + place) as i64)).collect();
        let device = vectors.device();
        let zeros = Tensor::zeros([copies * n, width], (&device, vectors.dtype()));
        zeros.select_assign(0, indices_on(&device, all), vectors, IndexingUpdateOp::Add)
    }
}
