//! Describes the coordinates in which a structure holds the curvature of a site.

use super::{
    core_space::CoreSpace, core_space::matrix_of, kron_basis::KroneckerBasis, plan::CoordinateKind,
    sketch::RandomProjection, sketch::Sketch,
};
use crate::error::{Error, Result};
use crate::lora::AdapterWeights;
use crate::tape::Site;
use ndarray::{Array1, Array2, Array3, Array4, ArrayView2, ArrayView4, Axis, s};

/// Linear coordinates of one site's weight space (of a module's core): orthonormal, so that an isotropic prior on the
/// weights is one on the coordinates.
#[derive(Debug, Clone, PartialEq)]
pub enum Coordinates {
    /// The weight's own entries, row by row.
    Weights,
    /// The eigenbases of its two Kronecker factors.
    Kronecker(KroneckerBasis),
    /// Random sums of the weight's entries: orthonormal on average only.
    Sketch(Sketch),
    /// The core between the adapter's own column and row spaces; the site is the module's A.
    Core(CoreSpace),
}

impl Coordinates {
    /// Which kind they are of.
    pub fn kind(&self) -> CoordinateKind {
        match self {
            Self::Weights => CoordinateKind::Weights,
            Self::Kronecker(_) => CoordinateKind::Kronecker,
            Self::Sketch(_) => CoordinateKind::Sketch,
            Self::Core(_) => CoordinateKind::Core,
        }
    }
}

/// The part of the weights that one site's coordinates speak of.
#[derive(Debug, Clone, PartialEq)]
pub struct SiteSpace {
    /// Which matrix.
    pub site: Site,
    /// The rows of the matrix that the model uses, where not all.
    pub output_rows: Option<Vec<usize>>,
    /// `[d_out, d_in]` of these rows: the shape of the site's Jacobians.
    pub shape: [usize; 2],
    /// The coordinates.
    pub coordinates: Coordinates,
}

/// Jacobians in the coordinates of a site or of a block of sites: what a batch leaves behind that does not depend on the
/// prior.
#[derive(Debug, Clone, PartialEq)]
pub struct Projection {
    /// `[n_items, K, width]`
    pub(crate) coefficients: Array3<f64>,
    /// Inner products of what the coordinates leave out, `[n_items, parts, K, K]` (see [`KroneckerBasis::missing_parts`]);
    /// `None` for complete coordinates.
    pub(crate) outside: Option<Array4<f64>>,
}

impl Projection {
    /// The prior's Gram matrix `⟨J_c, J_e⟩` of each item, `[n_items, K, K]` (what λ → ∞ leaves, times λ).
    pub fn gram(&self) -> Array3<f64> {
        let (b, k, _) = self.coefficients.dim();
        let mut gram = Array3::zeros((b, k, k));
        for (i, mut out) in gram.outer_iter_mut().enumerate() {
            let p = self.coefficients.index_axis(Axis(0), i);
            out.assign(&p.dot(&p.t()));
            if let Some(outside) = &self.outside {
                out += &outside.index_axis(Axis(0), i).sum_axis(Axis(0));
            }
        }
        gram
    }
}

impl SiteSpace {
    /// The same weights in their share of random sums; `n_total` weights share the projection.
    pub(crate) fn sketched(&self, projection: RandomProjection, n_total: usize) -> Self {
        let n = self.shape[0] * self.shape[1];
        let sketch = Sketch::new(projection.share(n, n_total), projection.seed, &self.site, n);
        Self { coordinates: Coordinates::Sketch(sketch), ..self.clone() }
    }

    /// Number of coordinates.
    pub fn width(&self) -> usize {
        match &self.coordinates {
            Coordinates::Weights => self.shape[0] * self.shape[1],
            Coordinates::Kronecker(basis) => basis.n_kept(),
            Coordinates::Sketch(sketch) => sketch.width,
            Coordinates::Core(core) => core.n_unknowns(),
        }
    }

    /// Number of directions of every part that the coordinates leave out; empty for complete ones.
    pub(crate) fn missing_parts(&self) -> Vec<usize> {
        match &self.coordinates {
            Coordinates::Kronecker(basis) => basis.missing_parts(),
            _ => Vec::new(),
        }
    }

    /// Bytes that the coordinates hold.
    pub(crate) fn bytes(&self) -> usize {
        match &self.coordinates {
            Coordinates::Weights => 0,
            Coordinates::Kronecker(basis) => basis.bytes(),
            Coordinates::Sketch(sketch) => sketch.bytes(),
            Coordinates::Core(core) => core.bytes(),
        }
    }

    /// Brings Jacobians `[n_items, K, d_out, d_in]` of the site into its coordinates.
    ///
    /// # Errors
    /// If they have another shape.
    pub fn project(&self, jacobians: ArrayView4<f64>) -> Result<Projection> {
        let (b, k, d_out, d_in) = jacobians.dim();
        if [d_out, d_in] != self.shape {
            return Err(Error::Shape {
                what: format!("Jacobian at `{}`", self.site),
                expected: self.shape.to_vec(),
                found: vec![d_out, d_in],
            });
        }
        let width = self.width();
        Ok(match &self.coordinates {
            Coordinates::Weights => {
                let flat = jacobians.as_standard_layout().into_owned().into_shape_with_order((b, k, width));
                let coefficients = flat.map_err(|e| Error::numerical("layout of Jacobians", e))?;
                Projection { coefficients, outside: None }
            }
            Coordinates::Kronecker(basis) => {
                let (coefficients, outside) = basis.project(jacobians);
                Projection { coefficients, outside }
            }
            Coordinates::Sketch(sketch) => one_by_one(jacobians, width, |jacobian| sketch.project(jacobian)),
            Coordinates::Core(core) => {
                one_by_one(jacobians, width, |jacobian| core.project(jacobian).into_iter().collect())
            }
        })
    }

    /// Shape of a deviation in these coordinates before it is scaled: that of the weight, or of the core.
    pub(crate) fn latent_shape(&self) -> [usize; 2] {
        match &self.coordinates {
            Coordinates::Core(core) => [core.trained.nrows(), core.trained.ncols()],
            Coordinates::Sketch(sketch) => [1, sketch.width],
            _ => self.shape,
        }
    }

    /// Moves the weights by independent standard normals `z` (of [`SiteSpace::latent_shape`]) times one scale a
    /// coordinate, `missing` for what the coordinates leave out.
    pub(crate) fn apply_scaled(
        &self,
        z: &Array2<f64>,
        kept: &Array1<f64>,
        missing: &Array1<f64>,
        weights: &mut AdapterWeights,
    ) {
        match &self.coordinates {
            Coordinates::Kronecker(basis) => self.add(&basis.scale_directions(z, kept, missing), weights),
            _ => {
                let scaled: Array1<f64> = z.iter().zip(kept).map(|(z, scale)| z * scale).collect();
                self.apply(&scaled, weights);
            }
        }
    }

    /// Moves the weights by a deviation given in these coordinates.
    pub(crate) fn apply(&self, deviation: &Array1<f64>, weights: &mut AdapterWeights) {
        let matrix = |[rows, columns]: [usize; 2], entries: &Array1<f64>| {
            Array2::from_shape_fn((rows, columns), |(i, j)| entries[i * columns + j])
        };
        match &self.coordinates {
            Coordinates::Weights => self.add(&matrix(self.shape, deviation), weights),
            Coordinates::Sketch(sketch) => self.add(&matrix(self.shape, &sketch.lift(deviation)), weights),
            Coordinates::Kronecker(basis) => self.add(&basis.lift(deviation), weights),
            Coordinates::Core(core) => core.write(&matrix(self.latent_shape(), deviation), weights),
        }
    }

    /// How far the trained weights are from those of `centre`, as a weight of the site's shape; of a core, as the Jacobian of
    /// A whose coordinates are the core's displacement.
    ///
    /// # Errors
    /// If a matrix of the site's module is missing.
    pub(crate) fn displacement(&self, map: &AdapterWeights, centre: &AdapterWeights) -> Result<Array2<f64>> {
        match &self.coordinates {
            Coordinates::Core(core) => core.as_jacobian(&core.displacement(centre)?, map),
            _ => Ok(self.used_rows(&(matrix_of(map, &self.site)? - matrix_of(centre, &self.site)?))),
        }
    }

    /// `‖θ* − μ‖²` of what the site's weights or its core are from those of `centre`.
    ///
    /// # Errors
    /// As [`SiteSpace::displacement`].
    pub(crate) fn scatter(&self, map: &AdapterWeights, centre: &AdapterWeights) -> Result<f64> {
        let displacement = match &self.coordinates {
            Coordinates::Core(core) => core.displacement(centre)?,
            _ => self.displacement(map, centre)?,
        };
        Ok(displacement.iter().map(|v| v * v).sum())
    }

    /// The rows of a matrix of the site's whole shape that the model uses.
    pub(crate) fn used_rows(&self, whole: &Array2<f64>) -> Array2<f64> {
        match &self.output_rows {
            Some(rows) => whole.select(Axis(0), rows),
            None => whole.clone(),
        }
    }

    /// Adds `deviation` `[d_out, d_in]` to the rows of the site's weight that the model uses.
    pub(crate) fn add(&self, deviation: &Array2<f64>, weights: &mut AdapterWeights) {
        let Some(weight) = weights.get_mut(&self.site) else { return };
        match &self.output_rows {
            None => *weight += deviation,
            Some(rows) => {
                for (&row, deviation) in rows.iter().zip(deviation.outer_iter()) {
                    let mut target = weight.row_mut(row);
                    target += &deviation;
                }
            }
        }
    }
}

/// Projects every Jacobian by itself.
fn one_by_one(
    jacobians: ArrayView4<f64>,
    width: usize,
    project: impl Fn(ArrayView2<f64>) -> Array1<f64>,
) -> Projection {
    let (b, k, _, _) = jacobians.dim();
    let mut coefficients = Array3::zeros((b, k, width));
    for i in 0..b {
        for c in 0..k {
            coefficients.slice_mut(s![i, c, ..]).assign(&project(jacobians.slice(s![i, c, .., ..])));
        }
    }
    Projection { coefficients, outside: None }
}
