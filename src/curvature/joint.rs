//! Sums the curvature of all coordinates of a block together, correlations included.

use super::coordinates::SiteSpace;
use super::gram::GramSum;
use super::site_rows::SiteRows;
use crate::error::{Error, Result};
use ndarray::{Array2, Axis, s};

/// `H = Σ_n Σ_ce Λ_n[c,e] φ^c (φ^e)ᵀ` over the coordinates φ of several sites at once, **summed** over the data and exact.
#[derive(Debug, Clone, PartialEq)]
pub struct JointSum {
    /// The sites, whose coordinates follow one another.
    pub spaces: Vec<SiteSpace>,
    /// The sum, as a matrix or as the weighted Jacobians themselves.
    pub sum: GramSum,
}

impl JointSum {
    /// Starts at zero, as rows or as a matrix.
    pub(super) fn new(spaces: Vec<SiteSpace>, as_rows: bool) -> Self {
        let width = spaces.iter().map(SiteSpace::width).sum();
        let sum = if as_rows { GramSum::Rows(Vec::new()) } else { GramSum::Matrix(Array2::zeros((width, width))) };
        Self { spaces, sum }
    }

    /// Adds weighted Jacobians of the block's sites, found among `rows` by name.
    pub(super) fn add(&mut self, rows: &[SiteRows], in_f64: bool) -> Result<()> {
        let n_rows = rows.first().map_or(0, |r| r.rows.len_of(Axis(0)));
        let width = self.spaces.iter().map(SiteSpace::width).sum();
        let mut features = Array2::zeros((n_rows, width));
        let mut start = 0;
        for space in &self.spaces {
            let found = rows.iter().find(|r| r.site == space.site).ok_or_else(|| {
                Error::Incompatible(format!("a batch lacks site `{}`: every batch must pass every site", space.site))
            })?;
            let projection = space.project(found.rows.view().insert_axis(Axis(1)))?;
            let columns = s![.., start..start + space.width()];
            features.slice_mut(columns).assign(&projection.coefficients.index_axis(Axis(1), 0));
            start += space.width();
        }
        self.sum.add(features, in_f64)
    }

    pub(super) fn merge(&mut self, other: Self) -> Result<()> {
        if self.spaces != other.spaces {
            return Err(Error::Incompatible("the two sums are over different sites or coordinates".into()));
        }
        self.sum.merge(other.sum);
        Ok(())
    }

    /// Turns rows into the matrix once they are no fewer than the coordinates.
    pub(super) fn shrink(&mut self) {
        let width: usize = self.spaces.iter().map(SiteSpace::width).sum();
        if self.sum.n_rows() >= width {
            self.sum = GramSum::Matrix(self.sum.to_matrix(width));
        }
    }
}
