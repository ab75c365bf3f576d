//! Draws from the exact Gaussian posterior by solving one linear system a draw: no matrix is decomposed.

use super::conjugate_gradients::{SolverReport, conjugate_gradients};
use crate::curvature::{Curvature, CurvatureSums, GramSum, JointSum, RowBlock, SiteSpace};
use crate::draws::{Purpose, generator};
use crate::error::{Error, Result};
use crate::lora::{Adaptable, AdapterWeights, read_adapter};
use crate::prior::PriorPrecision;
use ndarray::{Array1, Axis, s};
use rand_distr::{Distribution, StandardNormal};

/// A sampler of `N(θ*, (H + λI)⁻¹)` from the weighted Jacobians Φ of a function-space curvature, `H = ΦᵀΦ`.
///
/// With standard normals η (one a row) and ξ (one a weight), the solution z of
///
/// `(ΦᵀΦ + λI) z = Φᵀη + √λ ξ`
///
/// has exactly that covariance. It is found by conjugate gradients, each step two products with Φ, so that time and memory
/// grow with the rows and not with their square.
///
/// Papandreou & Yuille (2010); Antorán et al. (2023), arXiv 2210.04994.
#[derive(Debug)]
pub struct SampleThenOptimize<'a> {
    spaces: &'a [SiteSpace],
    rows: &'a [RowBlock],
    map: AdapterWeights,
    precision: PriorPrecision,
    /// Norm of the residual, relative to the right side, at which a solution is accepted.
    pub tolerance: f64,
    /// Most steps of conjugate gradients.
    pub max_steps: usize,
}

impl<'a> SampleThenOptimize<'a> {
    /// Draws around the model's present adapter, with relative residual 1e-8 in at most 1,000 steps.
    ///
    /// # Errors
    /// If the curvature is not in function space, or the model has no adapter or another.
    pub fn new<M: Adaptable>(model: &M, curvature: &'a Curvature, precision: PriorPrecision) -> Result<Self> {
        let CurvatureSums::Joint(blocks) = &curvature.sums else { return Err(wrong(curvature)) };
        let [JointSum { spaces, sum: GramSum::Rows(rows) }] = blocks.as_slice() else { return Err(wrong(curvature)) };
        let map = read_adapter(model)?;
        curvature.check_fitted_at(&map)?;
        Ok(Self { spaces, rows, map, precision, tolerance: 1e-8, max_steps: 1000 })
    }

    /// Draw number `index`, a function of (seed, index) alone, and how well its system was solved.
    ///
    /// # Errors
    /// If conjugate gradients do not reach the tolerance.
    pub fn draw(&self, seed: u64, index: u64) -> Result<(AdapterWeights, SolverReport)> {
        let mut rng = generator(seed, Purpose::SampleThenOptimize, 0, index);
        let mut normals = |n: usize| -> Array1<f64> { (0..n).map(|_| StandardNormal.sample(&mut rng)).collect() };
        let n_weights = self.spaces.iter().map(SiteSpace::width).sum();
        let n_rows = self.rows.iter().map(RowBlock::n_rows).sum();
        let xi = normals(n_weights) * self.precision.value().sqrt();
        let right = self.transposed(&normals(n_rows)) + xi;
        let (deviation, report) = self.solve(&right)?;
        let mut weights = self.map.clone();
        let mut start = 0;
        for space in self.spaces {
            let end = start + space.width();
            space.apply(&deviation.slice(s![start..end]).to_owned(), &mut weights);
            start = end;
        }
        Ok((weights, report))
    }

    /// `(ΦᵀΦ + λI)⁻¹ right` by conjugate gradients.
    fn solve(&self, right: &Array1<f64>) -> Result<(Array1<f64>, SolverReport)> {
        let product = |v: &Array1<f64>| Ok(self.transposed(&self.times(v)) + v * self.precision.value());
        conjugate_gradients("sampling", right, product, self.tolerance, self.max_steps)
    }

    /// `Φ v`
    fn times(&self, v: &Array1<f64>) -> Array1<f64> {
        GramSum::times_rows(self.rows, v.view().insert_axis(Axis(0))).row(0).to_owned()
    }

    /// `Φᵀ u`
    fn transposed(&self, u: &Array1<f64>) -> Array1<f64> {
        let width = self.spaces.iter().map(SiteSpace::width).sum();
        GramSum::combine_rows(self.rows, u.view().insert_axis(Axis(0)), width).row(0).to_owned()
    }
}

fn wrong(curvature: &Curvature) -> Error {
    Error::Incompatible(format!(
        "sample-then-optimise needs the rows of all weights, as of a function-space curvature, not a {} one",
        curvature.config.structure
    ))
}
