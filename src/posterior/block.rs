//! Holds the curvature of one block of weights in the basis where it is diagonal, so that every prior is elementwise
//! arithmetic.

use super::evidence::Spectrum;
use crate::curvature::{
    Coordinates, Curvature, DiagonalSum, GramSum, JointSum, KroneckerBasis, KroneckerFactors, Projection, RowBlock,
    SiteSpace,
};
use crate::draws::{Purpose, generator, place};
use crate::error::{Error, Result, check_finite};
use crate::linalg::{eigh, matmul};
use crate::lora::AdapterWeights;
use crate::prior::PriorPrecision;
use crate::tape::Site;
use ndarray::{Array1, Array2, Array3, Array4, ArrayView2, ArrayView4, Axis, s};
use rand_distr::{Distribution, StandardNormal};

/// An eigenvalue below this share of the largest one is rounding.
const NOISE: f64 = 1e-13;

/// The curvature of one block of sites, `H = Q diag(e) Qᵀ`, with orthonormal Q in the sites' coordinates.
///
/// Posterior precision `H + λI`, so that with the projections `P_c = Qᵀφ_c` of Jacobians
/// `Cov_ce = Σ_i P_c,i P_e,i / (λ + e_i) + Σ_j N_j,ce / (λ + e'_j)`, where `N_j` are the inner products of what Q leaves out.
#[derive(Debug, Clone, PartialEq)]
pub struct Block {
    spaces: Vec<SiteSpace>,
    /// How the coordinates of the sites turn into directions; `None` where they are the directions (one site).
    rotation: Option<Rotation>,
    /// Eigenvalues e of the directions held, `[width]`.
    kept: Array1<f64>,
    /// Eigenvalues e' of the directions left out, one a part of [`Projection::gram`]'s rest; empty for complete bases.
    missing: Array1<f64>,
}

/// Turns the joined coordinates of the sites into directions.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Rotation {
    /// Eigenvectors `[n, n]` of the joint matrix.
    Vectors(Array2<f64>),
    /// Right singular vectors `Q = Φᵀ·from_rows` of the rows Φ `[m, n]`, never formed; from_rows `[m, k]`.
    Rows { rows: Vec<RowBlock>, from_rows: Array2<f64> },
}

impl Block {
    /// The blocks of a curvature, one a site or one for all; `with_residual` keeps what a site's basis left out as an
    /// isotropic rest.
    ///
    /// # Errors
    /// If a sum is not finite or a basis is missing.
    pub(super) fn all(curvature: &Curvature, with_residual: bool) -> Result<Vec<Self>> {
        use crate::curvature::CurvatureSums as Sums;
        let mut blocks: Vec<Self> = match &curvature.sums {
            Sums::Kronecker(all) => {
                all.iter().map(|f| Self::kronecker(f, curvature.normalizer(f))).collect::<Result<_>>()?
            }
            Sums::Diagonal(all) => all.iter().map(Self::diagonal).collect(),
            Sums::Joint(all) => all.iter().map(Self::joint).collect::<Result<_>>()?,
        };
        if !with_residual {
            blocks.iter_mut().for_each(|block| block.missing.fill(0.0));
        }
        Ok(blocks)
    }

    fn kronecker(factors: &KroneckerFactors, normalizer: f64) -> Result<Self> {
        let basis = KroneckerBasis::new(factors, normalizer)?;
        let (kept, missing) = basis.eigenvalues();
        let space = SiteSpace {
            site: factors.site.clone(),
            output_rows: factors.output_rows.clone(),
            shape: [factors.gradient.width(), factors.activation.width()],
            coordinates: Coordinates::Kronecker(basis),
        };
        Ok(Self { spaces: vec![space], rotation: None, kept, missing })
    }

    fn diagonal(sum: &DiagonalSum) -> Self {
        let parts = sum.missing.iter().zip(sum.space.missing_parts());
        Self {
            spaces: vec![sum.space.clone()],
            rotation: None,
            kept: sum.kept.clone(),
            missing: parts.map(|(sum, directions)| sum.max(0.0) / directions as f64).collect(),
        }
    }

    fn joint(sum: &JointSum) -> Result<Self> {
        let spaces = sum.spaces.clone();
        let decompose = |matrix: ArrayView2<f64>| {
            let names: Vec<String> = spaces.iter().map(|space| format!("`{}`", space.site)).collect();
            let name = match names.as_slice() {
                [first, _, .., last] => format!("{first} to {last}"),
                few => few.join(" and "),
            };
            check_finite(format_args!("curvature of {name}"), matrix.iter().map(|v| v.is_finite()))?;
            eigh(matrix)
        };
        match &sum.sum {
            GramSum::Matrix(matrix) => {
                let eigen = decompose(matrix.view())?;
                let kept = eigen.values.mapv(|v| v.max(0.0));
                let rotation = Some(Rotation::Vectors(eigen.vectors));
                Ok(Self { spaces, rotation, kept, missing: Array1::zeros(0) })
            }
            GramSum::Rows(rows) => {
                let eigen = decompose(GramSum::row_gram(rows).view())?;
                let noise = NOISE * eigen.values.last().copied().unwrap_or(0.0);
                let held: Vec<usize> = (0..eigen.values.len()).filter(|&i| eigen.values[i] > noise).collect();
                let kept = eigen.values.select(Axis(0), &held);
                let from_rows = eigen.vectors.select(Axis(1), &held) / kept.mapv(f64::sqrt);
                let rotation = Some(Rotation::Rows { rows: rows.clone(), from_rows });
                Ok(Self { spaces, rotation, kept, missing: Array1::zeros(1) })
            }
        }
    }

    /// Puts a block together again from what [`Block::rotation`] and [`Block::eigenvalues`] gave.
    pub(super) fn from_parts(
        spaces: Vec<SiteSpace>,
        rotation: Option<Rotation>,
        kept: Array1<f64>,
        missing: Array1<f64>,
    ) -> Self {
        Self { spaces, rotation, kept, missing }
    }

    /// Number of directions that each eigenvalue of those left out stands for.
    fn missing_parts(&self) -> Vec<usize> {
        match &self.rotation {
            None => self.spaces.iter().flat_map(SiteSpace::missing_parts).collect(),
            Some(Rotation::Vectors(_)) => Vec::new(),
            Some(Rotation::Rows { .. }) => {
                let width: usize = self.spaces.iter().map(SiteSpace::width).sum();
                vec![width.saturating_sub(self.kept.len())]
            }
        }
    }

    pub(super) fn rotation(&self) -> Option<&Rotation> {
        self.rotation.as_ref()
    }

    /// The sites it speaks of.
    pub fn spaces(&self) -> &[SiteSpace] {
        &self.spaces
    }

    /// Adds this block's eigenvalues.
    pub fn extend(&self, spectrum: &mut Spectrum) {
        spectrum.values.extend(self.kept.iter().map(|e| (*e, 1.0)));
        let missing = self.missing.iter().zip(self.missing_parts());
        spectrum.values.extend(missing.map(|(e, directions)| (*e, directions as f64)));
    }

    /// Eigenvalues of the directions held, and of those left out.
    pub(super) fn eigenvalues(&self) -> (&Array1<f64>, &Array1<f64>) {
        (&self.kept, &self.missing)
    }

    /// Projects the Jacobians `[n_items, K, d_out, d_in]` that `find` gives for each of the block's sites.
    ///
    /// # Errors
    /// If one is missing or has another shape.
    pub fn project<'a>(&self, find: impl Fn(&Site) -> Result<ArrayView4<'a, f64>>) -> Result<Projection> {
        let parts = self.spaces.iter().map(|space| space.project(find(&space.site)?));
        let mut parts = parts.collect::<Result<Vec<_>>>()?;
        let Some(rotation) = &self.rotation else {
            return Ok(parts.swap_remove(0));
        };
        let views: Vec<_> = parts.iter().map(|part| part.coefficients.view()).collect();
        let layout = |e| Error::numerical("layout of projections", e);
        let joined = ndarray::concatenate(Axis(2), &views).map_err(layout)?;
        let (b, k, n) = joined.dim();
        let flat = joined.as_standard_layout().into_owned().into_shape_with_order((b * k, n)).map_err(layout)?;
        let rotated = match rotation {
            Rotation::Rows { rows, from_rows } => {
                matmul(GramSum::times_rows(rows, flat.view()).view(), from_rows.view())
            }
            Rotation::Vectors(vectors) => matmul(flat.view(), vectors.view()),
        };
        let coefficients = rotated.into_shape_with_order((b, k, self.kept.len())).map_err(layout)?;
        let outside = (!self.missing.is_empty()).then(|| {
            let mut outside = Array4::zeros((b, 1, k, k));
            for i in 0..b {
                let (all, held) = (flat.slice(s![i * k..(i + 1) * k, ..]), coefficients.index_axis(Axis(0), i));
                outside.slice_mut(s![i, 0, .., ..]).assign(&(all.dot(&all.t()) - held.dot(&held.t())));
            }
            outside
        });
        Ok(Projection { coefficients, outside })
    }

    /// Adds this block's part of the posterior covariance of the K combinations, `[n_items, K, K]`.
    pub fn add_covariance(&self, projection: &Projection, precision: PriorPrecision, covariance: &mut Array3<f64>) {
        let lambda = precision.value();
        let weights = self.kept.mapv(|e| 1.0 / (lambda + e));
        for (b, mut out) in covariance.outer_iter_mut().enumerate() {
            let p = projection.coefficients.index_axis(Axis(0), b);
            out += &(&p * &weights).dot(&p.t());
            if let Some(outside) = &projection.outside {
                for (j, e) in self.missing.iter().enumerate() {
                    out.scaled_add(1.0 / (lambda + e), &outside.slice(s![b, j, .., ..]));
                }
            }
        }
    }

    /// Moves `weights` by a draw of the posterior's deviation times √temperature: its normals depend on (seed, site, index) alone.
    pub(super) fn add_draw(
        &self,
        precision: PriorPrecision,
        temperature: f64,
        (seed, index): (u64, u64),
        weights: &mut AdapterWeights,
    ) {
        let normals = |space: &SiteSpace| -> Vec<f64> {
            let mut rng = generator(seed, Purpose::PosteriorDraw, place(&space.site), index);
            (0..space.latent_shape().iter().product()).map(|_| StandardNormal.sample(&mut rng)).collect()
        };
        let z: Array1<f64> = self.spaces.iter().flat_map(normals).collect();
        let lambda = precision.value();
        // the symmetric root: another basis of equal eigenvalues, or another sign of a vector, draws the same
        self.add_function(|e| (temperature / (lambda + e)).sqrt(), z, weights);
    }

    /// Moves `weights` by `f(H) z`, f being taken of the eigenvalues; z has the sites' latent entries, site after site.
    pub(super) fn add_function(&self, f: impl Fn(f64) -> f64, z: Array1<f64>, weights: &mut AdapterWeights) {
        let (kept, missing) = (self.kept.mapv(&f), self.missing.mapv(&f));
        let Some(rotation) = &self.rotation else {
            let [rows, columns] = self.spaces[0].latent_shape();
            let z = Array2::from_shape_fn((rows, columns), |(i, j)| z[i * columns + j]);
            self.spaces[0].apply_scaled(&z, &kept, &missing, weights);
            return;
        };
        let deviation = match rotation {
            Rotation::Vectors(vectors) => vectors.dot(&(vectors.t().dot(&z) * kept)),
            // σ'z + Q((σ − σ')∘Qᵀz), with Q = Φᵀ·from_rows
            Rotation::Rows { rows, from_rows } => {
                let rest = missing.first().copied().unwrap_or(0.0);
                let on_rows = GramSum::times_rows(rows, z.view().insert_axis(Axis(0)));
                let inside = on_rows.dot(from_rows) * (kept - rest);
                let back = GramSum::combine_rows(rows, inside.dot(&from_rows.t()).view(), z.len());
                z * rest + back.row(0)
            }
        };
        let mut start = 0;
        for space in &self.spaces {
            space.apply(&deviation.slice(s![start..start + space.width()]).to_owned(), weights);
            start += space.width();
        }
    }

    /// True if each weight is a direction of its own.
    pub(super) fn is_diagonal(&self) -> bool {
        self.rotation.is_none() && self.spaces.iter().all(|space| space.coordinates == Coordinates::Weights)
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        let rotation = match &self.rotation {
            None => self.spaces.iter().map(SiteSpace::bytes).sum(),
            Some(Rotation::Vectors(vectors)) => 8 * vectors.len(),
            Some(Rotation::Rows { rows, from_rows }) => 8 * from_rows.len() + GramSum::Rows(rows.clone()).bytes(),
        };
        8 * (self.kept.len() + self.missing.len()) + rotation
    }
}
