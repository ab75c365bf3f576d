//! Computes the evidence of a task under the posterior of an earlier one.

use super::posterior_prior::PosteriorPrior;
use super::precision::{flat, shaped};
use crate::curvature::{CoordinateKind, Curvature, CurvatureSums, DiagonalSum, GramSum, JointSum, SiteSpace};
use crate::error::{Error, Result};
use crate::linalg::{CholeskyFactor, eigh};
use crate::lora::{Adaptable, AdapterWeights, read_adapter};
use crate::train::AdapterPrior;
use ndarray::{Array2, s};

/// Most rows of a curvature under a prior that couples weights: a matrix of their square, 134 MB.
const MAX_ROWS: usize = 4096;

impl PosteriorPrior {
    /// `log Z₂ = Σ log p(y | x, θ₂) − ½ (θ₂ − μ)ᵀP(θ₂ − μ) − ½ log det(I + P⁻¹H₂)` in nats over the items of the next task: its Laplace
    /// evidence with this posterior as prior, at the adapter θ₂ that `model` carries.
    ///
    /// Exact to rounding in H₂ and P, H₂ being over the weights themselves. Where both are diagonal it is a sum over weights, for any
    /// number of tasks. Else `log det(I + Φ P⁻¹ Φᵀ)` of the rows of `H₂ = ΦᵀΦ`, those of a function-space curvature or the
    /// eigenvectors of a matrix, with P of one task and any structure that a prior may have.
    ///
    /// # Errors
    /// If the curvature was fitted elsewhere or without labels, is not over the weights themselves (Kronecker, EKFAC, cores, sketches)
    /// or has more than 4,096 rows; or P is that of several tasks and not diagonal.
    pub fn log_marginal_likelihood<M: Adaptable>(&self, model: &M, curvature: &Curvature) -> Result<f64> {
        let weights = read_adapter(model)?;
        curvature.check_fitted_at(&weights)?;
        let fit = curvature
            .log_likelihood
            .ok_or_else(|| Error::Incompatible("the evidence needs the labels of the training data".into()))?;
        Ok(fit - self.penalty(&weights)? - 0.5 * self.log_det_ratio(curvature)?)
    }

    /// `log det(I + P⁻¹H)`
    fn log_det_ratio(&self, curvature: &Curvature) -> Result<f64> {
        match (self.diagonal()?, &curvature.sums) {
            (_, CurvatureSums::Kronecker(_)) => Err(not_of_weights(curvature)),
            (Some(precision), CurvatureSums::Diagonal(sums)) => {
                let of_site = |sum: &DiagonalSum| {
                    check_weights(curvature, &sum.space)?;
                    let whole = precision.get(&sum.space.site);
                    let whole =
                        whole.ok_or_else(|| Error::Incompatible(format!("the prior lacks `{}`", sum.space.site)))?;
                    let used = sum.space.used_rows(whole);
                    Ok(sum.kept.iter().zip(&used).map(|(h, p)| (h.max(0.0) / p).ln_1p()).sum::<f64>())
                };
                sums.iter().map(of_site).sum()
            }
            _ => {
                let rows = self.rows(curvature)?;
                let mut gram = Array2::eye(rows.nrows());
                for (row, mut column) in rows.outer_iter().zip(gram.columns_mut()) {
                    let image = self.covariance_product(&shaped(&row.to_owned(), self.centre()))?;
                    column += &rows.dot(&flat(&image));
                }
                Ok(CholeskyFactor::new(gram.view())?.log_det())
            }
        }
    }

    /// Rows φ over all weights with `H = Σ φφᵀ`, `[rows, weights]`.
    fn rows(&self, curvature: &Curvature) -> Result<Array2<f64>> {
        let zero: AdapterWeights = self.centre().iter().map(|(site, w)| (site.clone(), w * 0.0)).collect();
        let width: usize = zero.values().map(Array2::len).sum();
        let (mut all, mut n_rows): (Vec<f64>, usize) = (Vec::new(), 0);
        let mut add = |spaces: &[SiteSpace], rows: Array2<f64>| -> Result<()> {
            n_rows += rows.nrows();
            if n_rows > MAX_ROWS {
                return Err(Error::Incompatible(format!(
                    "the evidence under a prior that couples weights takes at most {MAX_ROWS} rows of curvature, and here are at least \
                     {n_rows}: where both are diagonal, it needs none"
                )));
            }
            for space in spaces {
                check_weights(curvature, space)?;
            }
            for row in rows.outer_iter() {
                let (mut placed, mut start) = (zero.clone(), 0);
                for space in spaces {
                    space.apply(&row.slice(s![start..start + space.width()]).to_owned(), &mut placed);
                    start += space.width();
                }
                all.extend(flat(&placed));
            }
            Ok(())
        };
        match &curvature.sums {
            CurvatureSums::Kronecker(_) => return Err(not_of_weights(curvature)),
            CurvatureSums::Diagonal(sums) => {
                for DiagonalSum { space, kept, .. } in sums {
                    let spaces = std::slice::from_ref(space);
                    add(spaces, Array2::from_diag(&kept.mapv(|h| h.max(0.0).sqrt())))?;
                }
            }
            CurvatureSums::Joint(sums) => {
                for JointSum { spaces, sum } in sums {
                    match sum {
                        GramSum::Rows(blocks) => {
                            for block in blocks {
                                add(spaces, block.to_f64())?;
                            }
                        }
                        GramSum::Matrix(matrix) => {
                            let eigen = eigh(matrix.view())?;
                            let roots = eigen.values.mapv(|e| e.max(0.0).sqrt());
                            add(spaces, (&eigen.vectors * &roots).reversed_axes())?;
                        }
                    }
                }
            }
        }
        Array2::from_shape_vec((n_rows, width), all).map_err(|e| Error::numerical("layout of rows", e))
    }
}

fn check_weights(curvature: &Curvature, space: &SiteSpace) -> Result<()> {
    if space.coordinates.kind() == CoordinateKind::Weights { Ok(()) } else { Err(not_of_weights(curvature)) }
}

fn not_of_weights(curvature: &Curvature) -> Error {
    Error::Incompatible(format!(
        "no evidence of a {} curvature under the posterior of another task: their sum has no determinant in closed form. A diagonal or a \
         function-space curvature of the same task has one",
        curvature.config.structure
    ))
}
