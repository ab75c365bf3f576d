//! Holds the inner products of Jacobians, and solves with what the likelihood's curvature makes of them.

use crate::error::Result;
use crate::linalg::{CholeskyFactor, add_lower_gram, mirror_lower};
use ndarray::{Array1, Array2, ArrayView1, ArrayView2, ArrayViewMut1, Axis, s};
use std::borrow::Cow;
use std::ops::Range;

/// The kernel `K = ΦΦᵀ` of M combinations of outputs, whose prior covariance is `K/s`.
#[derive(Debug, Clone)]
pub(super) enum Kernel {
    /// K, `[M, M]`.
    Gram(Array2<f64>),
    /// Φ, `[M, m]`: fewer numbers where m < M.
    Features(Array2<f64>),
}

impl Kernel {
    /// That of features Φ `[M, m]`, in the smaller of its two forms.
    pub(super) fn new(features: Array2<f64>) -> Self {
        let (rows, width) = features.dim();
        if width < rows {
            return Self::Features(features);
        }
        let mut gram = Array2::zeros((rows, rows));
        add_lower_gram(&mut gram, features.view());
        mirror_lower(&mut gram);
        Self::Gram(gram)
    }

    /// Number of unknowns: α `[M]` of `θ = μ + Jᵀα/s`, or the weights `w = θ − μ` `[m]` themselves.
    pub(super) fn n_unknowns(&self) -> usize {
        match self {
            Self::Gram(gram) => gram.nrows(),
            Self::Features(features) => features.ncols(),
        }
    }

    /// The largest prior variance of a combination at scale 1.
    pub(super) fn largest_variance(&self) -> f64 {
        let variances: Vec<f64> = match self {
            Self::Gram(gram) => gram.diag().to_vec(),
            Self::Features(features) => features.outer_iter().map(|row| row.dot(&row)).collect(),
        };
        variances.into_iter().fold(0.0, f64::max)
    }

    /// `J(θ − μ)`: `Kα/s`, or `Φw`.
    pub(super) fn pulled(&self, unknowns: ArrayView1<f64>, scale: f64) -> Array1<f64> {
        match self {
            Self::Gram(gram) => gram.dot(&unknowns) / scale,
            Self::Features(features) => features.dot(&unknowns),
        }
    }

    /// `s (θ − μ)ᵀ(θ' − μ)` of unknowns and others, of which `pulled` is [`Kernel::pulled`].
    pub(super) fn product(
        &self,
        unknowns: &Array1<f64>,
        (others, pulled): (&Array1<f64>, &Array1<f64>),
        scale: f64,
    ) -> f64 {
        match self {
            Self::Gram(_) => unknowns.dot(pulled),
            Self::Features(_) => scale * unknowns.dot(others),
        }
    }

    /// The kernel under the curvature `Λ = RRᵀ` of the items, block-diagonal: `roots` holds `R_n` `[k_n, w_n]`, `ranges` the places of
    /// item n among the combinations.
    pub(super) fn curved<'a>(
        &'a self,
        roots: impl Into<Cow<'a, [Array2<f64>]>>,
        ranges: &'a [Range<usize>],
        scale: f64,
    ) -> Result<Curved<'a>> {
        let roots = roots.into();
        let mut columns = Vec::with_capacity(roots.len());
        let mut next = 0;
        for root in &*roots {
            columns.push(next..next + root.ncols());
            next += root.ncols();
        }
        // the lower triangles
        let matrix = match self {
            Self::Gram(gram) => {
                let mut matrix = Array2::eye(next);
                for item in 0..roots.len() {
                    let part = gram.slice(s![ranges[item].clone(), ..ranges[item].end]);
                    let pulled = roots[item].t().dot(&part) / scale;
                    for (pulled, row) in pulled.outer_iter().zip(columns[item].clone()) {
                        let mut row = matrix.row_mut(row);
                        for other in 0..=item {
                            add_product(&pulled, &ranges[other], &roots[other], &mut row, columns[other].start);
                        }
                    }
                }
                matrix
            }
            Self::Features(features) => {
                let mut matrix = Array2::eye(features.ncols());
                for some in chunks(roots.len()) {
                    let start = columns[some.start].start;
                    let mut part = Array2::zeros((columns[some.end - 1].end - start, features.ncols()));
                    for item in some {
                        let own = roots[item].t().dot(&features.slice(s![ranges[item].clone(), ..])) / scale.sqrt();
                        let rows = columns[item].start - start..columns[item].end - start;
                        part.slice_mut(s![rows, ..]).assign(&own);
                    }
                    add_lower_gram(&mut matrix, part.t());
                }
                matrix
            }
        };
        let factor = CholeskyFactor::new(matrix.view())?;
        Ok(Curved { kernel: self, roots, ranges, scale, columns, factor })
    }
}

/// `A = I + RᵀKR/s`, factored; of features `H = I + XᵀX` with `X = RᵀΦ/√s`, which has the same determinant.
pub(super) struct Curved<'a> {
    pub(super) kernel: &'a Kernel,
    /// `R_n`
    roots: Cow<'a, [Array2<f64>]>,
    ranges: &'a [Range<usize>],
    pub(super) scale: f64,
    /// The columns of R that belong to each item.
    columns: Vec<Range<usize>>,
    /// Of A, or of H.
    pub(super) factor: CholeskyFactor,
}

/// What the posterior says about the combinations of one item.
pub(super) struct ItemCovariance {
    /// `S_n`, the posterior covariance. `[k, k]`
    pub(super) covariance: Array2<f64>,
    /// `S_n R_n` `[k, w]`
    pub(super) rooted: Array2<f64>,
    /// `I − R_nᵀ S_n R_n`, which is the item's block of `A⁻¹`: no digits are lost where its leverage is nearly one. `[w, w]`
    pub(super) slack: Array2<f64>,
}

impl ItemCovariance {
    /// `(I − Λ_n S_n)⁻¹ g = g + R_n (I − R_nᵀ S_n R_n)⁻¹ R_nᵀ S_n g`: what `H⁻¹ J_nᵀ` must be applied to for `H₋ₙ⁻¹ J_nᵀ g`.
    pub(super) fn without(&self, root: &Array2<f64>, score: ArrayView1<f64>) -> Result<Array1<f64>> {
        let inner = CholeskyFactor::new(self.slack.view())?.solve_vector(self.rooted.t().dot(&score).view());
        Ok(&score + &root.dot(&inner))
    }
}

impl<'a> Curved<'a> {
    /// `H⁻¹∇` of the log joint under a prior's `scale`, in the unknowns: where this is the curvature at the point itself, under that prior, a
    /// whole Newton step; near it, one that converges as fast as the two are alike. `(I − RA⁻¹RᵀK/s)(g − α)` times the ratio of scales, or
    /// `(I + XᵀX)⁻¹(Φᵀg − scale·w)/s`, g the score.
    pub(super) fn step(&self, score: &Array1<f64>, unknowns: &Array1<f64>, scale: f64) -> Array1<f64> {
        match self.kernel {
            Kernel::Gram(gram) => {
                let rest = score - unknowns;
                let pulled = gram.dot(&rest) / self.scale;
                let inner = self.factor.solve(self.pull(pulled.view().insert_axis(Axis(1))).view());
                (rest - self.push(inner.view()).column(0)) * (scale / self.scale)
            }
            Kernel::Features(features) => {
                let slope = features.t().dot(score) - unknowns * scale;
                self.factor.solve_vector(slope.view()) / self.scale
            }
        }
    }

    /// `ln det A`
    pub(super) fn log_det(&self) -> f64 {
        self.factor.log_det()
    }

    /// Root, combinations and columns of R of every item.
    fn items_of(&self) -> impl Iterator<Item = ((&Array2<f64>, &Range<usize>), &Range<usize>)> {
        self.roots.iter().zip(self.ranges).zip(&self.columns)
    }

    /// `Rᵀ v` item by item, `[M, q]` to `[w, q]`.
    pub(super) fn pull(&self, v: ArrayView2<f64>) -> Array2<f64> {
        let mut pulled = Array2::zeros((self.columns.last().map_or(0, |last| last.end), v.ncols()));
        for ((root, range), columns) in self.items_of() {
            pulled.slice_mut(s![columns.clone(), ..]).assign(&root.t().dot(&v.slice(s![range.clone(), ..])));
        }
        pulled
    }

    /// `R v` item by item, `[w, q]` to `[M, q]`.
    pub(super) fn push(&self, v: ArrayView2<f64>) -> Array2<f64> {
        let mut pushed = Array2::zeros((self.ranges.last().map_or(0, |last| last.end), v.ncols()));
        for ((root, range), columns) in self.items_of() {
            pushed.slice_mut(s![range.clone(), ..]).assign(&root.dot(&v.slice(s![columns.clone(), ..])));
        }
        pushed
    }

    /// The posterior covariance of every item's combinations.
    pub(super) fn items(&self) -> Vec<ItemCovariance> {
        match self.kernel {
            Kernel::Gram(gram) => {
                let product = self.pull(gram.view()) / self.scale;
                let reduced = self.factor.half_solve(product.view());
                let inverse = self.factor.half_solve(Array2::eye(product.nrows()).view());
                let item = |((_, range), columns): ((&Array2<f64>, &Range<usize>), &Range<usize>)| {
                    let v = reduced.slice(s![.., range.clone()]);
                    // L⁻¹ is lower triangular: its first rows of these columns are zero
                    let z = inverse.slice(s![columns.start.., columns.clone()]);
                    let prior = gram.slice(s![range.clone(), range.clone()]).mapv(|k| k / self.scale);
                    ItemCovariance {
                        covariance: prior - v.t().dot(&v),
                        rooted: v.slice(s![columns.start.., ..]).t().dot(&z),
                        slack: z.t().dot(&z),
                    }
                };
                self.items_of().map(item).collect()
            }
            Kernel::Features(features) => {
                let mut items = Vec::with_capacity(self.roots.len());
                for some in chunks(self.roots.len()) {
                    let rows = self.ranges[some.start].start..self.ranges[some.end - 1].end;
                    let part = features.slice(s![rows.clone(), ..]);
                    let reduced = self.factor.half_solve(part.t()) / self.scale.sqrt();
                    for item in some {
                        let (root, own) = (&self.roots[item], &self.ranges[item]);
                        let w = reduced.slice(s![.., own.start - rows.start..own.end - rows.start]);
                        let covariance = w.t().dot(&w);
                        let rooted = covariance.dot(root);
                        let slack = Array2::eye(root.ncols()) - root.t().dot(&rooted);
                        items.push(ItemCovariance { slack, rooted, covariance });
                    }
                }
                items
            }
        }
    }
}

/// Adds `v[range] · root` to a row, from a column on.
fn add_product(
    v: &ArrayView1<f64>,
    range: &Range<usize>,
    root: &Array2<f64>,
    row: &mut ArrayViewMut1<f64>,
    start: usize,
) {
    for (place, weights) in range.clone().zip(root.outer_iter()) {
        for (column, weight) in weights.iter().enumerate() {
            row[start + column] += v[place] * weight;
        }
    }
}

/// Items whose features are worked on at a time, so that what is made of them takes a small part of what they take.
const CHUNK_ITEMS: usize = 512;

fn chunks(n_items: usize) -> impl Iterator<Item = Range<usize>> {
    (0..n_items).step_by(CHUNK_ITEMS).map(move |start| start..n_items.min(start + CHUNK_ITEMS))
}
