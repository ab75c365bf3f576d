//! Weighs every item's Jacobians so that their plain outer products sum to the curvature.

use super::probe::Probe;
use crate::error::{Error, Result, check_finite};
use crate::linalg::semidefinite_cholesky;
use crate::tape::Site;
use ndarray::{Array2, Array3, Axis, concatenate};

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
    let factors =
        curvatures.map(|all| all.outer_iter().map(|l| transposed_factor(l.to_owned())).collect::<Result<Vec<_>>>());
    let factors = factors.transpose()?;
    let layout = |e| Error::numerical("layout of Jacobians", e);
    let sites = pass.sites.iter().map(|probed| {
        let jacobians = probed.jacobians()?;
        check_finite(format_args!("Jacobians at `{}`", probed.site), jacobians.iter().map(|v| v.is_finite()))?;
        let (b, k, d_out, d_in) = jacobians.dim();
        let flat = jacobians.into_shape_with_order((b, k, d_out * d_in)).map_err(layout)?;
        let rows = match &factors {
            None => flat.into_shape_with_order((b * k, d_out * d_in)).map_err(layout)?,
            Some(factors) => {
                let mixed: Vec<Array2<f64>> = factors.iter().zip(flat.outer_iter()).map(|(l, j)| l.dot(&j)).collect();
                let views: Vec<_> = mixed.iter().map(|rows| rows.view()).collect();
                concatenate(Axis(0), &views).map_err(layout)?
            }
        };
        let m = rows.nrows();
        let rows = rows.into_shape_with_order((m, d_out, d_in)).map_err(layout)?;
        Ok(SiteRows { site: probed.site.clone(), output_rows: probed.output_rows.clone(), rows })
    });
    sites.collect()
}

/// `Lᵀ` without its zero rows: softmax leaves C − 1 of C, one label one.
fn transposed_factor(curvature: Array2<f64>) -> Result<Array2<f64>> {
    let factor = semidefinite_cholesky(curvature.view())?;
    let kept: Vec<usize> = (0..factor.ncols()).filter(|&k| factor.column(k).iter().any(|v| *v != 0.0)).collect();
    Ok(factor.select(Axis(1), &kept).reversed_axes())
}
