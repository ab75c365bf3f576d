//! Brings an adapter into the one gauge that its product determines.

use super::attach::Adaptable;
use super::weights::{AdapterWeights, read_adapter, write_adapter};
use crate::error::Result;
use crate::linalg::{eigh, matmul};
use crate::tape::LoraMatrix;
use ndarray::{Array1, Array2, Axis};

/// The same function with every product balanced by its singular values: `B·A = U S Vᵀ`, `B = U√S`, `A = √S Vᵀ`.
///
/// The likelihood does not see the gauge `B → BS`, `A → S⁻¹A`, but an isotropic prior and noise on A and B do. A canonical
/// adapter has `‖A‖ = ‖B‖` in every module and needs no convention but the signs of singular vectors, which no isotropic
/// prior sees. The start of A is no longer known afterwards: a prior is then centred at zero.
///
/// # Errors
/// If the model has no adapter or a weight is not finite.
pub fn canonicalize<M: Adaptable>(model: M) -> Result<M> {
    let weights = read_adapter(&model)?;
    // heads have no gauge
    let mut canonical: AdapterWeights = weights
        .iter()
        .filter(|(site, _)| site.matrix == LoraMatrix::Whole)
        .map(|(s, w)| (s.clone(), w.clone()))
        .collect();
    for (site, a) in weights.iter().filter(|(site, _)| site.matrix == LoraMatrix::A) {
        let mut of_b = site.clone();
        of_b.matrix = LoraMatrix::B;
        let Some(b) = weights.get(&of_b) else { continue };
        let (new_b, new_a) = balance(b, a)?;
        canonical.insert(site.clone(), new_a);
        canonical.insert(of_b, new_b);
    }
    let mut model = write_adapter(model, &canonical)?;
    for linear in model.linears_mut() {
        if let Some(adapter) = &mut linear.adapter {
            adapter.initial = None;
        }
    }
    model.heads_mut().into_iter().for_each(|head| head.initial = None);
    Ok(model)
}

/// `B = U√S`, `A = √S Vᵀ` of one product, from the r×r Gram matrices of both factors: with `AAᵀ = P diag(a²) Pᵀ` and
/// `(BP diag a)ᵀ(BP diag a) = Q diag(s²) Qᵀ`, `U√S = BP diag(a) Q s^(−½)` and `√S Vᵀ = s^(½) Qᵀ diag(a)⁻¹ Pᵀ A`.
fn balance(b: &Array2<f64>, a: &Array2<f64>) -> Result<(Array2<f64>, Array2<f64>)> {
    let rows = eigh(matmul(a.view(), a.t()).view())?;
    let a_values = rows.values.mapv(|v| v.max(0.0).sqrt());
    let scaled = matmul(b.view(), (&rows.vectors * &a_values).view());
    let columns = eigh(matmul(scaled.t(), scaled.view()).view())?;
    let s = columns.values.mapv(|v| v.max(0.0).sqrt());
    let root = s.mapv(f64::sqrt);
    let inverse = |values: &Array1<f64>| values.mapv(|v| if v > 0.0 { 1.0 / v } else { 0.0 });
    let new_b = matmul(scaled.view(), (&columns.vectors * &inverse(&root)).view());
    let unscaled = (&rows.vectors * &inverse(&a_values)).t().dot(a);
    let new_a = columns.vectors.t().dot(&unscaled) * &root.insert_axis(Axis(1));
    Ok((new_b, new_a))
}
