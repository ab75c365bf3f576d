//! Decomposes the Kronecker factors of a site into the eigenbasis in which its curvature is diagonal.

use super::kron::{FactorSum, KroneckerFactors};
use crate::error::{Result, check_finite};
use crate::linalg::{eigh, matmul};
use ndarray::{Array1, Array2, Array3, Array4, ArrayView4, Axis, s};

/// An eigenvalue below this share of a factor's largest one is rounding, and its eigenvector points anywhere in the null space.
const NULL: f64 = 1e-12;

/// Eigenvectors and eigenvalues of one Kronecker factor: those above its null space; of a low-rank one, those kept.
///
/// Any basis of a null space is as good as another, and rounding chooses it: what is measured along its directions, as EKFAC
/// does, would depend on the order of the data. They are left out, and share one value with all that is left out.
#[derive(Debug, Clone, PartialEq)]
pub struct FactorEigen {
    /// `[d, k]`, orthonormal columns.
    pub basis: Array2<f64>,
    /// `[k]`, > 0.
    pub values: Array1<f64>,
    /// τ: the eigenvalue given to each of the d − k directions left out; 0 where these are the null space.
    pub residual: f64,
}

impl FactorEigen {
    fn new(sum: &FactorSum, normalizer: f64, what: std::fmt::Arguments) -> Result<Self> {
        match sum {
            FactorSum::Dense(m) => {
                check_finite(what, m.iter().map(|v| v.is_finite()))?;
                let eigen = eigh(m.view())?;
                let rounding = NULL * eigen.values.last().map_or(0.0, |largest| largest.max(0.0));
                let null = eigen.values.iter().take_while(|v| **v <= rounding).count();
                let basis = eigen.vectors.slice(s![.., null..]).to_owned();
                Ok(Self { basis, values: eigen.values.slice(s![null..]).mapv(|v| v / normalizer), residual: 0.0 })
            }
            FactorSum::LowRank(sum) => {
                let (d, k) = sum.factor.dim();
                let squares = sum.factor.map_axis(Axis(0), |c| c.dot(&c));
                let norms = squares.mapv(|v| if v > 0.0 { v.sqrt() } else { 1.0 });
                let residual = if d > k { sum.discarded_trace / (d - k) as f64 } else { 0.0 };
                Ok(Self { basis: &sum.factor / &norms, values: squares / normalizer, residual: residual / normalizer })
            }
        }
    }

    fn missing(&self) -> usize {
        self.basis.nrows() - self.basis.ncols()
    }

    /// Trace of the factor.
    fn trace(&self) -> f64 {
        self.values.sum() + self.residual * self.missing() as f64
    }
}

/// The eigenbases of a site's two Kronecker factors, `H ≈ G ⊗ A`.
///
/// The *wide* side is the one that may be kept at low rank (d_in of an A site, d_out of a B site). Direction (j, i) is
/// column j of the narrow and column i of the wide basis; K-FAC gives it the curvature `β_i γ_j`.
///
/// The directions left out form parts of one value each: for every column j of the narrow basis those outside the wide one,
/// `τ γ_j` by K-FAC, where it lacks some; and last, where the narrow basis lacks some, those with all wide directions.
#[derive(Debug, Clone, PartialEq)]
pub struct KroneckerBasis {
    /// Factor of the wide side.
    pub wide: FactorEigen,
    /// Factor of the narrow side.
    pub narrow: FactorEigen,
    /// True if the wide side is the input (an A site).
    pub wide_is_input: bool,
}

impl KroneckerBasis {
    /// Decomposes a site's factor sums; `normalizer` divides the activation's.
    ///
    /// # Errors
    /// If a factor is not finite.
    pub fn new(factors: &KroneckerFactors, normalizer: f64) -> Result<Self> {
        let site = &factors.site;
        let activation =
            FactorEigen::new(&factors.activation, normalizer, format_args!("activation factor of `{site}`"))?;
        let gradient = FactorEigen::new(&factors.gradient, 1.0, format_args!("gradient factor of `{site}`"))?;
        let wide_is_input = activation.basis.nrows() >= gradient.basis.nrows();
        let (wide, narrow) = if wide_is_input { (activation, gradient) } else { (gradient, activation) };
        Ok(Self { wide, narrow, wide_is_input })
    }

    /// Directions kept: narrow width × kept wide ones.
    pub(super) fn n_kept(&self) -> usize {
        self.narrow.values.len() * self.wide.values.len()
    }

    /// Number of directions of every part that was left out; empty for a complete basis.
    pub fn missing_parts(&self) -> Vec<usize> {
        let (n, kept) = self.narrow.basis.dim();
        let beside = if self.wide.missing() > 0 { kept } else { 0 };
        let mut parts = vec![self.wide.missing(); beside];
        parts.extend((n > kept).then_some((n - kept) * self.wide.basis.nrows()));
        parts
    }

    /// K-FAC's eigenvalues `β_i γ_j`, narrow-major, and those of the parts left out.
    pub fn eigenvalues(&self) -> (Array1<f64>, Array1<f64>) {
        let gammas = &self.narrow.values;
        let kept = gammas.iter().flat_map(|g| self.wide.values.iter().map(move |beta| beta * g)).collect();
        let width = self.wide.basis.nrows().max(1) as f64;
        let last = self.narrow.residual * self.wide.trace() / width;
        let missing = gammas.iter().map(|g| g * self.wide.residual).filter(|_| self.wide.missing() > 0);
        (kept, missing.chain((self.narrow.missing() > 0).then_some(last)).collect())
    }

    /// `P_c = Q_narrowᵀ J_c Q_wide` (J_c wide side last), `[n_items, K, narrow · kept]`, and the inner products of what that
    /// leaves out, `[n_items, parts, K, K]`, where something is: `⟨(Q_nᵀJ_c)_j, (Q_nᵀJ_e)_j⟩ − Σ_i P_c,ji P_e,ji` for a narrow
    /// direction j, and `⟨J_c, J_e⟩ − ⟨Q_nᵀJ_c, Q_nᵀJ_e⟩`.
    pub(super) fn project(&self, jacobians: ArrayView4<f64>) -> (Array3<f64>, Option<Array4<f64>>) {
        let (b, k, _, _) = jacobians.dim();
        let oriented = if self.wide_is_input { jacobians } else { jacobians.permuted_axes([0, 1, 3, 2]) };
        let (n, w) = (oriented.len_of(Axis(2)), oriented.len_of(Axis(3)));
        let mut flat = Array2::zeros((b * k * n, w));
        for (mut row, lane) in flat.outer_iter_mut().zip(oriented.lanes(Axis(3))) {
            row.assign(&lane);
        }
        let (kept, kn) = (self.wide.values.len(), self.narrow.values.len());
        let on_wide = matmul(flat.view(), self.wide.basis.view());
        let mut coefficients = Array3::zeros((b, k, kn * kept));
        for (index, mut out) in coefficients.lanes_mut(Axis(2)).into_iter().enumerate() {
            let block = on_wide.slice(s![index * n..(index + 1) * n, ..]);
            let p = self.narrow.basis.t().dot(&block);
            out.iter_mut().zip(&p).for_each(|(o, v)| *o = *v);
        }
        let n_parts = self.missing_parts().len();
        if n_parts == 0 {
            return (coefficients, None);
        }
        let mut outside = Array4::zeros((b, n_parts, k, k));
        for item in 0..b {
            let whole: Vec<_> = (0..k)
                .map(|c| {
                    let start = (item * k + c) * n;
                    flat.slice(s![start..start + n, ..])
                })
                .collect();
            let rows: Vec<Array2<f64>> = whole.iter().map(|whole| self.narrow.basis.t().dot(whole)).collect();
            for (c, e) in (0..k).flat_map(|c| (0..k).map(move |e| (c, e))) {
                let of_narrow = |j: usize| rows[c].row(j).dot(&rows[e].row(j));
                if self.wide.missing() > 0 {
                    for j in 0..kn {
                        let span = j * kept..(j + 1) * kept;
                        let inside =
                            coefficients.slice(s![item, c, span.clone()]).dot(&coefficients.slice(s![item, e, span]));
                        outside[[item, j, c, e]] = of_narrow(j) - inside;
                    }
                }
                if self.narrow.missing() > 0 {
                    let all: f64 = whole[c].iter().zip(&whole[e]).map(|(x, y)| x * y).sum();
                    outside[[item, n_parts - 1, c, e]] = all - (0..kn).map(of_narrow).sum::<f64>();
                }
            }
        }
        (coefficients, Some(outside))
    }

    /// Scales standard normals `Z` `[d_out, d_in]` by one factor a direction: `kept` for those kept (narrow-major),
    /// `missing` for the parts left out (empty for a complete basis).
    pub(super) fn scale_directions(&self, z: &Array2<f64>, kept: &Array1<f64>, missing: &Array1<f64>) -> Array2<f64> {
        let oriented = if self.wide_is_input { z.t() } else { z.view() };
        let rotated = oriented.dot(&self.narrow.basis);
        let coefficients = self.wide.basis.t().dot(&rotated);
        let (n_wide, n_narrow) = (self.wide.values.len(), self.narrow.values.len());
        let beside = |j: usize| if self.wide.missing() > 0 { missing[j] } else { 0.0 };
        let rest = Array1::from_shape_fn(n_narrow, beside);
        let shift = Array2::from_shape_fn(coefficients.dim(), |(i, j)| kept[j * n_wide + i] - rest[j]);
        let scaled = &rotated * &rest + self.wide.basis.dot(&(coefficients * shift));
        let mut out = scaled.dot(&self.narrow.basis.t());
        if let Some(last) = missing.last().filter(|_| self.narrow.missing() > 0) {
            out.scaled_add(*last, &(&oriented - &rotated.dot(&self.narrow.basis.t())));
        }
        if self.wide_is_input { out.reversed_axes() } else { out }
    }

    /// The weight `[d_out, d_in]` whose coordinates `[narrow · kept]` are given: `Q_narrow P Q_wideᵀ`.
    pub(super) fn lift(&self, coordinates: &Array1<f64>) -> Array2<f64> {
        let n_wide = self.wide.values.len();
        let p = Array2::from_shape_fn((self.narrow.values.len(), n_wide), |(j, i)| coordinates[j * n_wide + i]);
        let out = self.narrow.basis.dot(&p).dot(&self.wide.basis.t());
        if self.wide_is_input { out } else { out.reversed_axes() }
    }

    /// Bytes held.
    pub(super) fn bytes(&self) -> usize {
        8 * [&self.wide, &self.narrow].iter().map(|f| f.basis.len() + f.values.len()).sum::<usize>()
    }
}
