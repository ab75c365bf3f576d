//! Weighs every item's Jacobians so that their plain outer products sum to the curvature.

use super::probe::Probe;
use crate::error::{Error, Result};
use crate::linalg::semidefinite_cholesky;
use crate::tape::Site;
use ndarray::Array3;

/// Weighted Jacobians of one site: `H = Σ_m j_m j_mᵀ` over the rows of all batches.
#[derive(Debug, Clone)]
pub(super) struct SiteRows {
    pub(super) site: Site,
    pub(super) output_rows: Option<Vec<usize>>,
    /// `[m, d_out, d_in]`
    pub(super) rows: Array3<f64>,
}

/// `j_k = Σ_c L[c,k] J^c` with `L Lᵀ = Λ`, of every item at every site.
///
/// `curvatures` are the items' Λ where rows are choices; where a row is an item, the pass has weighed it already.
pub(super) fn site_rows(pass: &Probe, curvatures: Option<&Array3<f64>>) -> Result<Vec<SiteRows>> {
    let factors = curvatures.map(|all| all.outer_iter().map(semidefinite_cholesky).collect::<Result<Vec<_>>>());
    let factors = factors.transpose()?;
    let sites = pass.sites.iter().map(|probed| {
        let jacobians = probed.jacobians()?;
        let (b, k, d_out, d_in) = jacobians.dim();
        let layout = |e| Error::numerical("layout of Jacobians", e);
        let mut rows = jacobians.into_shape_with_order((b, k, d_out * d_in)).map_err(layout)?;
        for (i, mut item) in rows.outer_iter_mut().enumerate() {
            if let Some(factors) = &factors {
                let mixed = factors[i].t().dot(&item);
                item.assign(&mixed);
            }
        }
        let rows = rows.into_shape_with_order((b * k, d_out, d_in)).map_err(layout)?;
        Ok(SiteRows { site: probed.site.clone(), output_rows: probed.output_rows.clone(), rows })
    });
    sites.collect()
}
