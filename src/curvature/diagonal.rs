//! Sums the curvature of each coordinate by itself: the diagonal of H in the weights' entries or, as EKFAC does, in the
//! Kronecker eigenbasis.

use super::coordinates::SiteSpace;
use super::site_rows::SiteRows;
use crate::error::{Error, Result};
use ndarray::{Array1, Axis};

/// `h_i = Σ_n Σ_ce Λ_n[c,e] φ_i^c φ_i^e`, the diagonal of H in one site's coordinates φ, **summed** over the data.
///
/// In the weights' entries this is diagonal Laplace. In the eigenbasis of the Kronecker factors it is EKFAC: the products
/// `β_i γ_j` are replaced by the true second moments, which is the best diagonal in that basis (in Frobenius norm), and
/// whose trace is that of the exact matrix.
///
/// George et al. (2018), arXiv 1806.03884.
#[derive(Debug, Clone, PartialEq)]
pub struct DiagonalSum {
    /// The coordinates.
    pub space: SiteSpace,
    /// `[width]`, one a coordinate.
    pub kept: Array1<f64>,
    /// `[parts]`: of every part that the coordinates leave out, summed over its directions; empty for complete ones.
    pub missing: Array1<f64>,
}

impl DiagonalSum {
    pub(super) fn new(space: SiteSpace) -> Self {
        Self { kept: Array1::zeros(space.width()), missing: Array1::zeros(space.missing_parts().len()), space }
    }

    /// Adds weighted Jacobians.
    pub(super) fn add(&mut self, rows: &SiteRows) -> Result<()> {
        if rows.site != self.space.site {
            return Err(Error::Incompatible(format!(
                "the sums at `{}` and `{}` cannot be joined",
                self.space.site, rows.site
            )));
        }
        let projection = self.space.project(rows.rows.view().insert_axis(Axis(1)))?;
        self.kept += &projection.coefficients.mapv(|v| v * v).sum_axis(Axis(0)).sum_axis(Axis(0));
        if let Some(outside) = &projection.outside {
            self.missing += &outside.sum_axis(Axis(0)).map_axis(Axis(1), |m| m.sum()).sum_axis(Axis(1));
        }
        Ok(())
    }

    pub(super) fn merge(&mut self, other: Self) -> Result<()> {
        if self.space != other.space {
            return Err(Error::Incompatible(format!(
                "the two sums at `{}` are in different coordinates",
                self.space.site
            )));
        }
        self.kept += &other.kept;
        self.missing += &other.missing;
        Ok(())
    }

    pub(super) fn bytes(&self) -> usize {
        8 * (self.kept.len() + self.missing.len()) + self.space.bytes()
    }
}
