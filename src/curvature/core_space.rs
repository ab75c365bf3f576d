//! Restricts an adapted module to the small core between its own column and row spaces.

use crate::error::{Error, Result};
use crate::linalg::{eigh, matmul};
use crate::lora::AdapterWeights;
use crate::tape::{LoraMatrix, Site};
use ndarray::{Array2, ArrayView2, Axis, s};

/// A singular value below this share of the largest one counts as zero; squares of singular values come from a Gram matrix
/// in f64, which resolves them to 1e-16 of the largest square.
const RANK_TOLERANCE: f64 = 1e-6;

/// The core `R` of one module: `B·A = U R Vᵀ` with orthonormal `U` and `V` that span B's columns and A's rows.
///
/// A change of gauge, `B → BS`, `A → S⁻¹A`, rotates neither space and leaves `R` as it is up to the choice of the two
/// orthonormal bases: everything that is computed from a core is gauge-invariant. The Jacobian of a logit is
///
/// `J_R = s·Uᵀ(Σ_t g_t x_tᵀ)V = S_B⁻¹ V_Bᵀ J_A V`,
///
/// from the Jacobian `J_A = Σ_t (s·Bᵀg_t) x_tᵀ` of the A site alone, with `B = U S_B V_Bᵀ`.
///
/// # Shapes
/// - column_basis U: `[d_out, ρ_B]`, row_basis V: `[d_in, ρ_A]`
/// - from_a `S_B⁻¹ V_Bᵀ`: `[ρ_B, r]`
/// - trained R: `[ρ_B, ρ_A]`
///
/// The space is that of LoRA-XS (2405.17604) and B-LoRA-XS (2502.12122), here around any trained adapter.
#[derive(Debug, Clone, PartialEq)]
pub struct CoreSpace {
    /// Path of the module.
    pub module: String,
    /// U
    pub column_basis: Array2<f64>,
    /// V
    pub row_basis: Array2<f64>,
    /// `S_B⁻¹ V_Bᵀ`
    pub from_a: Array2<f64>,
    /// The core of the trained adapter.
    pub trained: Array2<f64>,
}

impl CoreSpace {
    /// Finds the core of `module` in the weights of an adapter.
    ///
    /// # Errors
    /// If the module is not adapted, or its A or B is zero (an adapter at its start has no core).
    pub fn new(weights: &AdapterWeights, module: &str) -> Result<Self> {
        let [a, b] = [LoraMatrix::A, LoraMatrix::B].map(|matrix| Site { module: module.into(), matrix });
        let (a, b) = (matrix_of(weights, &a)?, matrix_of(weights, &b)?);
        let (b_right, b_values) = right_singular(b.view())?;
        let (a_left, a_values) = right_singular(a.t())?;
        for (name, values) in [("A", &a_values), ("B", &b_values)] {
            if values.is_empty() {
                return Err(Error::Incompatible(format!(
                    "`{module}` has no core: its {name} is zero (train the adapter first)"
                )));
            }
        }
        let column_basis = matmul(b.view(), (&b_right / &b_values).view());
        let row_basis = matmul(a.t(), (&a_left / &a_values).view());
        let from_a = (&b_right / &b_values).reversed_axes();
        let right = a.dot(&row_basis);
        let trained = column_basis.t().dot(b).dot(&right);
        Ok(Self { module: module.into(), column_basis, row_basis, from_a, trained })
    }

    /// Number of unknowns, ρ_B·ρ_A.
    pub fn n_unknowns(&self) -> usize {
        self.trained.len()
    }

    /// Bytes held.
    pub(super) fn bytes(&self) -> usize {
        8 * (self.column_basis.len() + self.row_basis.len() + self.from_a.len() + self.trained.len())
    }

    /// `J_R = S_B⁻¹ V_Bᵀ J_A V` of one Jacobian of the A site, `[r, d_in]` to `[ρ_B, ρ_A]`.
    pub fn project(&self, jacobian: ArrayView2<f64>) -> Array2<f64> {
        self.from_a.dot(&jacobian.dot(&self.row_basis))
    }

    /// How far the trained core is from that of an adapter (A₀, B₀) at the centre of a prior: `R − R₀`, `R₀ = UᵀB₀A₀V`.
    ///
    /// Among all products `U R Vᵀ` that a core can reach, that of R₀ is nearest to B₀A₀:
    /// `‖U R Vᵀ − B₀A₀‖² = ‖R − UᵀB₀A₀V‖² + ‖B₀A₀‖² − ‖UᵀB₀A₀V‖²`, as U and V are orthonormal, so that `N(R₀, λ⁻¹I)` on the
    /// core is `exp(−½λ‖BA − B₀A₀‖²)` on the product within reach. An adapter that starts at B₀ = 0 has R₀ = 0.
    ///
    /// # Errors
    /// If `centre` lacks the module.
    pub fn displacement(&self, centre: &AdapterWeights) -> Result<Array2<f64>> {
        let (a, b) = (matrix_of(centre, &self.site(LoraMatrix::A))?, matrix_of(centre, &self.site(LoraMatrix::B))?);
        Ok(&self.trained - &self.column_basis.t().dot(b).dot(&a.dot(&self.row_basis)))
    }

    /// The Jacobian of A whose projection ([`CoreSpace::project`]) is `core`: `Bᵀ U core Vᵀ`.
    pub(super) fn as_jacobian(&self, core: &Array2<f64>, weights: &AdapterWeights) -> Result<Array2<f64>> {
        let b = matrix_of(weights, &self.site(LoraMatrix::B))?;
        Ok(b.t().dot(&self.column_basis).dot(core).dot(&self.row_basis.t()))
    }

    fn site(&self, matrix: LoraMatrix) -> Site {
        Site { module: self.module.clone(), matrix }
    }

    /// Writes the adapter with core `R + δ`: `B = U (R + δ)`, `A = Vᵀ`, with empty directions up to the rank.
    pub(crate) fn write(&self, deviation: &Array2<f64>, weights: &mut AdapterWeights) {
        let core = &self.trained + deviation;
        if let Some(b) = weights.get_mut(&self.site(LoraMatrix::B)) {
            b.fill(0.0);
            b.slice_mut(s![.., ..core.ncols()]).assign(&self.column_basis.dot(&core));
        }
        if let Some(a) = weights.get_mut(&self.site(LoraMatrix::A)) {
            a.fill(0.0);
            a.slice_mut(s![..core.ncols(), ..]).assign(&self.row_basis.t());
        }
    }
}

/// Right singular vectors `[n, ρ]` of a tall matrix and its singular values `[ρ]` above rounding, largest last.
fn right_singular(tall: ArrayView2<f64>) -> Result<(Array2<f64>, ndarray::Array1<f64>)> {
    let eigen = eigh(matmul(tall.t(), tall).view())?;
    let values = eigen.values.mapv(|v| v.max(0.0).sqrt());
    let largest = values.iter().fold(0.0f64, |m, v| m.max(*v));
    let kept: Vec<usize> = (0..values.len()).filter(|&i| values[i] > RANK_TOLERANCE * largest).collect();
    Ok((eigen.vectors.select(Axis(1), &kept), values.select(Axis(0), &kept)))
}

/// The matrix of a site.
///
/// # Errors
/// If it is missing.
pub(super) fn matrix_of<'a>(weights: &'a AdapterWeights, site: &Site) -> Result<&'a Array2<f64>> {
    weights.get(site).ok_or_else(|| Error::Incompatible(format!("weights for `{site}` are missing")))
}
