//! Decomposes the Kronecker factors of a site into the eigenbasis in which its curvature is diagonal.

use super::kron::{FactorSum, KroneckerFactors};
use crate::error::{Error, Result};
use crate::linalg::{eigh, matmul};
use ndarray::{Array1, Array2, Array3, Array4, ArrayView4, Axis, s};

/// Eigenvectors and eigenvalues of one Kronecker factor; of a low-rank one, those kept.
#[derive(Debug, Clone, PartialEq)]
pub struct FactorEigen {
    /// `[d, k]`, orthonormal columns.
    pub basis: Array2<f64>,
    /// `[k]`, ≥ 0.
    pub values: Array1<f64>,
    /// τ: the eigenvalue given to each of the d − k directions left out; 0 for a complete basis.
    pub residual: f64,
}

impl FactorEigen {
    fn new(sum: &FactorSum, normalizer: f64) -> Result<Self> {
        match sum {
            FactorSum::Dense(m) => {
                let eigen = eigh(m.view())?;
                Ok(Self { basis: eigen.vectors, values: eigen.values.mapv(|v| v.max(0.0) / normalizer), residual: 0.0 })
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
}

/// The eigenbases of a site's two Kronecker factors, `H ≈ G ⊗ A`.
///
/// The *wide* side is the one that may be kept at low rank (d_in of an A site, d_out of a B site). Direction (j, i) is
/// column j of the narrow and column i of the wide basis; K-FAC gives it the curvature `β_i γ_j`, and `τ γ_j` to the
/// directions left out.
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
    /// If a factor is not finite, or the narrower one of low rank.
    pub fn new(factors: &KroneckerFactors, normalizer: f64) -> Result<Self> {
        let activation = FactorEigen::new(&factors.activation, normalizer)?;
        let gradient = FactorEigen::new(&factors.gradient, 1.0)?;
        let wide_is_input = activation.basis.nrows() >= gradient.basis.nrows();
        let (wide, narrow) = if wide_is_input { (activation, gradient) } else { (gradient, activation) };
        if narrow.missing() > 0 {
            return Err(Error::Incompatible(format!(
                "the narrower factor of `{}` must be dense, but only {} of its {} directions are there",
                factors.site,
                narrow.basis.ncols(),
                narrow.basis.nrows()
            )));
        }
        Ok(Self { wide, narrow, wide_is_input })
    }

    /// Directions kept: narrow width × kept wide ones.
    pub(super) fn n_kept(&self) -> usize {
        self.narrow.values.len() * self.wide.values.len()
    }

    /// Directions of the wide side that were left out, for each narrow one.
    pub fn n_missing(&self) -> usize {
        self.wide.missing()
    }

    /// K-FAC's eigenvalues `β_i γ_j`, narrow-major, and `τ γ_j` of the directions left out.
    pub fn eigenvalues(&self) -> (Array1<f64>, Array1<f64>) {
        let gammas = &self.narrow.values;
        let kept = gammas.iter().flat_map(|g| self.wide.values.iter().map(move |beta| beta * g)).collect();
        (kept, gammas * self.wide.residual)
    }

    /// `P_c = Q_narrowᵀ J_c Q_wide` (J_c wide side last), `[n_items, K, narrow · kept]`, and what the kept directions
    /// leave out, `⟨(J_c Q_n)_j, (J_e Q_n)_j⟩ − Σ_i P_c,ji P_e,ji`, `[n_items, narrow, K, K]`, where some are.
    pub(super) fn project(&self, jacobians: ArrayView4<f64>) -> (Array3<f64>, Option<Array4<f64>>) {
        let (b, k, _, _) = jacobians.dim();
        let oriented = if self.wide_is_input { jacobians } else { jacobians.permuted_axes([0, 1, 3, 2]) };
        let (n, w) = (oriented.len_of(Axis(2)), oriented.len_of(Axis(3)));
        let flat = oriented.as_standard_layout().into_owned().into_shape_with_order((b * k * n, w));
        let Ok(flat) = flat else { unreachable!("a standard layout reshapes") };
        let (kept, kn) = (self.wide.values.len(), self.narrow.values.len());
        let on_wide = matmul(flat.view(), self.wide.basis.view());
        let mut coefficients = Array3::zeros((b, k, kn * kept));
        for (index, mut out) in coefficients.lanes_mut(Axis(2)).into_iter().enumerate() {
            let block = on_wide.slice(s![index * n..(index + 1) * n, ..]);
            let p = self.narrow.basis.t().dot(&block);
            out.iter_mut().zip(&p).for_each(|(o, v)| *o = *v);
        }
        let outside = (self.wide.missing() > 0).then(|| {
            let mut outside = Array4::zeros((b, kn, k, k));
            for item in 0..b {
                let rows: Vec<Array2<f64>> = (0..k)
                    .map(|c| {
                        let start = (item * k + c) * n;
                        self.narrow.basis.t().dot(&flat.slice(s![start..start + n, ..]))
                    })
                    .collect();
                for c in 0..k {
                    for e in 0..k {
                        for j in 0..kn {
                            let span = j * kept..(j + 1) * kept;
                            let inside = coefficients
                                .slice(s![item, c, span.clone()])
                                .dot(&coefficients.slice(s![item, e, span]));
                            outside[[item, j, c, e]] = rows[c].row(j).dot(&rows[e].row(j)) - inside;
                        }
                    }
                }
            }
            outside
        });
        (coefficients, outside)
    }

    /// Scales standard normals `Z` `[d_out, d_in]` by one factor a direction: `kept` for those kept (narrow-major),
    /// `missing` for the rest of each narrow one (empty for a complete basis).
    pub(super) fn scale_directions(&self, z: &Array2<f64>, kept: &Array1<f64>, missing: &Array1<f64>) -> Array2<f64> {
        let oriented = if self.wide_is_input { z.t() } else { z.view() };
        let rotated = oriented.dot(&self.narrow.basis);
        let coefficients = self.wide.basis.t().dot(&rotated);
        let n_wide = self.wide.values.len();
        let rest = Array1::from_shape_fn(self.narrow.values.len(), |j| missing.get(j).copied().unwrap_or(0.0));
        let shift = Array2::from_shape_fn(coefficients.dim(), |(i, j)| kept[j * n_wide + i] - rest[j]);
        let scaled = &rotated * &rest + self.wide.basis.dot(&(coefficients * shift));
        let out = scaled.dot(&self.narrow.basis.t());
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
