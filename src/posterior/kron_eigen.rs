//! Holds the Kronecker curvature of one site in its eigenbasis, where every prior is elementwise arithmetic.

use super::evidence::Spectrum;
use crate::curvature::{FactorSum, KroneckerCurvature, KroneckerFactors};
use crate::error::{Error, Result};
use crate::linalg::{eigh, matmul};
use crate::prior::PriorPrecision;
use crate::tape::Site;
use ndarray::{Array1, Array2, Array3, Array4, ArrayView3, ArrayView4, Axis, s};

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
    fn new(sum: &FactorSum, normalizer: f64, with_residual: bool) -> Result<Self> {
        match sum {
            FactorSum::Dense(m) => {
                let eigen = eigh(m.view())?;
                Ok(Self { basis: eigen.vectors, values: eigen.values.mapv(|v| v.max(0.0) / normalizer), residual: 0.0 })
            }
            FactorSum::LowRank(sum) => {
                let (d, k) = sum.factor.dim();
                let squares = sum.factor.map_axis(Axis(0), |c| c.dot(&c));
                let norms = squares.mapv(|v| if v > 0.0 { v.sqrt() } else { 1.0 });
                let residual = if with_residual && d > k { sum.discarded_trace / (d - k) as f64 } else { 0.0 };
                Ok(Self { basis: &sum.factor / &norms, values: squares / normalizer, residual: residual / normalizer })
            }
        }
    }

    fn missing(&self) -> usize {
        self.basis.nrows() - self.basis.ncols()
    }
}

/// The curvature of one site, `H ≈ G ⊗ A`, in the eigenbases of its two factors.
///
/// The *wide* side is the one that may be kept at low rank (d_in of an A site, d_out of a B site); eigenvalues are
/// `e_ij = β_i γ_j` with β of the wide and γ of the narrow factor, and `τ γ_j` in the directions left out.
#[derive(Debug, Clone, PartialEq)]
pub struct KroneckerEigen {
    /// Which matrix.
    pub site: Site,
    /// The rows of the matrix it speaks of, where not all.
    pub output_rows: Option<Vec<usize>>,
    /// Factor of the wide side.
    pub wide: FactorEigen,
    /// Factor of the narrow side.
    pub narrow: FactorEigen,
    /// True if the wide side is the input (an A site).
    pub wide_is_input: bool,
}

/// What a batch of site Jacobians leaves behind that does not depend on the prior.
#[derive(Debug, Clone, PartialEq)]
pub struct SiteProjection {
    /// `P_c = Q_wideᵀ J_cᵀ Q_narrow` flattened, `[n_items, K, k_narrow · k_wide]`.
    coefficients: Array3<f64>,
    /// `N_j,ce = ⟨(J_c Q_n)_j, (J_e Q_n)_j⟩ − Σ_i P_c,ij P_e,ij`, what the kept directions leave out:
    /// `[n_items, k_narrow, K, K]`; `None` for a complete basis.
    outside: Option<Array4<f64>>,
}

impl KroneckerEigen {
    /// Decomposes a site's factor sums; `with_residual` keeps the trace that low rank discarded as an isotropic rest.
    ///
    /// # Errors
    /// If a factor is not finite, or the narrower one of low rank.
    pub fn new(curvature: &KroneckerCurvature, factors: &KroneckerFactors, with_residual: bool) -> Result<Self> {
        let activation = FactorEigen::new(&factors.activation, curvature.normalizer(factors), with_residual)?;
        let gradient = FactorEigen::new(&factors.gradient, 1.0, with_residual)?;
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
        Ok(Self { site: factors.site.clone(), output_rows: factors.output_rows.clone(), wide, narrow, wide_is_input })
    }

    /// Shape of the weight (of its `output_rows`) that it speaks of.
    fn shape(&self) -> [usize; 2] {
        let (wide, narrow) = (self.wide.basis.nrows(), self.narrow.basis.nrows());
        if self.wide_is_input { [narrow, wide] } else { [wide, narrow] }
    }

    /// Checks that Jacobians of `site`, `[…, d_out, d_in]`, are this site's.
    pub(super) fn check_is(&self, site: &Site, found: [usize; 2]) -> Result<()> {
        if *site != self.site {
            return Err(Error::Incompatible(format!(
                "the posterior is about `{}`, the batch about `{site}`",
                self.site
            )));
        }
        let expected = self.shape();
        if found != expected {
            return Err(Error::Shape {
                what: format!("Jacobian at `{site}`"),
                expected: expected.to_vec(),
                found: found.to_vec(),
            });
        }
        Ok(())
    }

    /// Checks that the model's `weight` at this site is the one the curvature was fitted for.
    pub(super) fn check_fits(&self, weight: Option<&Array2<f64>>) -> Result<()> {
        let Some(weight) = weight else {
            return Err(Error::Incompatible(format!("the curvature is about `{}`, which the model lacks", self.site)));
        };
        let [rows, columns] = self.shape();
        let fits = match &self.output_rows {
            None => weight.nrows() == rows,
            Some(selected) => selected.len() == rows && selected.iter().all(|&row| row < weight.nrows()),
        };
        if !fits || weight.ncols() != columns {
            return Err(Error::Shape {
                what: format!("curvature at `{}`", self.site),
                expected: weight.shape().to_vec(),
                found: vec![rows, columns],
            });
        }
        Ok(())
    }

    /// Adds this site's eigenvalues.
    pub fn extend(&self, spectrum: &mut Spectrum) {
        for gamma in &self.narrow.values {
            spectrum.values.extend(self.wide.values.iter().map(|beta| (beta * gamma, 1.0)));
            if self.wide.missing() > 0 {
                spectrum.values.push((self.wide.residual * gamma, self.wide.missing() as f64));
            }
        }
    }

    /// Projects Jacobians `[n_items, K, d_out, d_in]` on the eigenbases.
    pub fn project(&self, jacobians: ArrayView4<f64>) -> SiteProjection {
        let (b, k, _, _) = jacobians.dim();
        // [b, k, narrow, wide]
        let oriented = if self.wide_is_input { jacobians } else { jacobians.permuted_axes([0, 1, 3, 2]) };
        let (n, w) = (oriented.len_of(Axis(2)), oriented.len_of(Axis(3)));
        let flat = oriented.as_standard_layout().into_owned().into_shape_with_order((b * k * n, w));
        let Ok(flat) = flat else { unreachable!("a standard layout reshapes") };
        let kept = self.wide.values.len();
        let kn = self.narrow.values.len();
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
        SiteProjection { coefficients, outside }
    }

    /// Adds this site's part of the posterior covariance of the K combinations, `[n_items, K, K]`:
    /// `Σ_ij P_c,ij P_e,ij / (λ + e_ij)` plus the directions left out.
    pub fn add_covariance(&self, projection: &SiteProjection, precision: PriorPrecision, covariance: &mut Array3<f64>) {
        let lambda = precision.value();
        let gammas = &self.narrow.values;
        let weights: Array1<f64> =
            gammas.iter().flat_map(|g| self.wide.values.iter().map(move |beta| 1.0 / (lambda + beta * g))).collect();
        for (b, mut out) in covariance.outer_iter_mut().enumerate() {
            let p = projection.coefficients.index_axis(Axis(0), b);
            out += &(&p * &weights).dot(&p.t());
            if let Some(outside) = &projection.outside {
                for (j, gamma) in gammas.iter().enumerate() {
                    let variance = 1.0 / (lambda + self.wide.residual * gamma);
                    out.scaled_add(variance, &outside.slice(s![b, j, .., ..]));
                }
            }
        }
    }

    /// Shapes a draw `Z` of independent standard normals `[d_out, d_in]` into a draw of the deviation from the mode:
    /// `σ[Z + Q_w((t − 1) ∘ (Q_wᵀ Z Q_n)) Q_nᵀ]`, `t_ij = (1 + σ² e_ij)^(−½)`, wide side first.
    pub fn shape_draw(&self, z: &Array2<f64>, precision: PriorPrecision) -> Array2<f64> {
        let sigma2 = precision.variance();
        let oriented = if self.wide_is_input { z.t() } else { z.view() };
        let (beta, gamma) = (&self.wide.values, &self.narrow.values);
        let rotated = oriented.dot(&self.narrow.basis);
        let kept = self.wide.basis.t().dot(&rotated);
        // outside the kept directions every column j shrinks by the residual's factor
        let rest = gamma.mapv(|g| (1.0 + sigma2 * self.wide.residual * g).sqrt().recip());
        let shrink =
            Array2::from_shape_fn(kept.dim(), |(i, j)| (1.0 + sigma2 * beta[i] * gamma[j]).sqrt().recip() - rest[j]);
        let shaped = &rotated * &rest + self.wide.basis.dot(&(kept * shrink));
        let draw = shaped.dot(&self.narrow.basis.t()) * sigma2.sqrt();
        if self.wide_is_input { draw.reversed_axes() } else { draw }
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        8 * [&self.wide, &self.narrow].iter().map(|f| f.basis.len() + f.values.len()).sum::<usize>()
    }
}

impl SiteProjection {
    /// The prior's Gram matrix `⟨J_c, J_e⟩` of each item, `[n_items, K, K]` (what λ → ∞ leaves, times λ).
    pub fn gram(&self) -> Array3<f64> {
        let (b, k, _) = self.coefficients.dim();
        let mut gram = Array3::zeros((b, k, k));
        for (i, mut out) in gram.outer_iter_mut().enumerate() {
            let p: ArrayView3<f64> = self.coefficients.view();
            let p = p.index_axis(Axis(0), i);
            out.assign(&p.dot(&p.t()));
            if let Some(outside) = &self.outside {
                out += &outside.index_axis(Axis(0), i).sum_axis(Axis(0));
            }
        }
        gram
    }
}
