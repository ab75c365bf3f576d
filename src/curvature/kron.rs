//! Sums the Kronecker factors `A` (of inputs) and `G` (of output gradients) of the Fisher information at every site.

use super::batch_sums::{Increment, SiteIncrement};
use crate::error::{Error, Result, check_finite};
use crate::linalg::LowRankSum;
use crate::lora::to_array;
use crate::tape::Site;
use burn::tensor::Tensor;
use ndarray::{Array2, ArrayView2};

/// A sum of outer products `Σ x xᵀ` over rows x.
#[derive(Debug, Clone, PartialEq)]
pub enum FactorSum {
    /// The whole matrix `[d, d]`.
    Dense(Array2<f64>),
    /// Its leading part, and the trace of the rest.
    LowRank(LowRankSum),
}

impl FactorSum {
    /// `what` names the rows.
    fn start(increment: Increment, low_rank: usize, what: impl std::fmt::Display) -> Result<Self> {
        match increment {
            Increment::Outer(sum) => Ok(Self::Dense(sum)),
            Increment::Rows(rows) => {
                let width = rows.dims()[1];
                let mut sum = LowRankSum::new(width, low_rank.min(width));
                add_rows(&mut sum, &rows, what)?;
                Ok(Self::LowRank(sum))
            }
        }
    }

    fn add(&mut self, increment: Increment, what: impl std::fmt::Display) -> Result<()> {
        match (self, increment) {
            (Self::Dense(sum), Increment::Outer(new)) => *sum += &new,
            (Self::LowRank(sum), Increment::Rows(rows)) => add_rows(sum, &rows, what)?,
            _ => return Err(different_forms()),
        }
        Ok(())
    }

    fn add_on_host(&mut self, rows: ArrayView2<f64>) -> Result<()> {
        match self {
            Self::LowRank(sum) => sum.add(rows),
            Self::Dense(_) => Err(different_forms()),
        }
    }

    fn merge(&mut self, other: Self) -> Result<()> {
        match (self, other) {
            (Self::Dense(sum), Self::Dense(other)) if sum.dim() == other.dim() => *sum += &other,
            (Self::LowRank(sum), Self::LowRank(other)) if sum.factor.nrows() == other.factor.nrows() => {
                sum.add(other.factor.t())?;
                sum.discarded_trace += other.discarded_trace;
            }
            _ => return Err(different_forms()),
        }
        Ok(())
    }

    /// Width d of the matrix.
    pub fn width(&self) -> usize {
        match self {
            Self::Dense(m) => m.nrows(),
            Self::LowRank(l) => l.factor.nrows(),
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Dense(m) => 8 * m.len(),
            Self::LowRank(l) => 8 * l.factor.len(),
        }
    }
}

/// Adds rows `[n, d]`, of which some at a time are copied to the host.
fn add_rows(sum: &mut LowRankSum, rows: &Tensor<2>, what: impl std::fmt::Display) -> Result<()> {
    let [n, _] = rows.dims();
    for start in (0..n).step_by(LowRankSum::CHUNK) {
        let some = rows.clone().narrow(0, start, LowRankSum::CHUNK.min(n - start));
        sum.add(on_host(some, &what)?.view())?;
    }
    Ok(())
}

fn on_host(rows: Tensor<2>, what: impl std::fmt::Display) -> Result<Array2<f64>> {
    let rows = to_array(rows)?;
    check_finite(what, rows.iter().map(|v| v.is_finite()))?;
    Ok(rows)
}

fn different_forms() -> Error {
    Error::Incompatible(
        "one sum is dense and the other of low rank, or their widths differ: they cannot be joined".into(),
    )
}

/// What some rows made of a sum.
struct AddedRows {
    rows: Array2<f64>,
    before: FactorSum,
    after: FactorSum,
}

/// Kronecker factors of the Fisher information at one site, **summed** over the data.
///
/// `H ≈ G ⊗ A / normalizer` for a weight `[d_out, d_in]` stored row by row; see [`super::TokenTreatment`] for the sums and
/// [`super::Curvature::normalizer`].
///
/// # Shapes
/// - activation: `[d_in, d_in]`
/// - gradient: `[d_out, d_out]`
///
/// Martens & Grosse (2015), arXiv 1503.05671; Eschenhagen et al. (2023), arXiv 2311.00636, eq. 24.
#[derive(Debug, Clone, PartialEq)]
pub struct KroneckerFactors {
    /// Which matrix.
    pub site: Site,
    /// The rows of the matrix that the gradient factor speaks of, where not all.
    pub output_rows: Option<Vec<usize>>,
    /// Number of real input vectors seen: tokens, or rows at the output head.
    pub n_vectors: usize,
    /// Sum over inputs.
    pub activation: FactorSum,
    /// Sum over output gradients.
    pub gradient: FactorSum,
}

impl KroneckerFactors {
    pub(super) fn start(increment: SiteIncrement, low_rank: usize) -> Result<Self> {
        let site = increment.site;
        Ok(Self {
            output_rows: increment.output_rows,
            n_vectors: increment.n_vectors,
            activation: FactorSum::start(increment.activation, low_rank, format_args!("inputs at `{site}`"))?,
            gradient: FactorSum::start(increment.gradient, low_rank, format_args!("gradients at `{site}`"))?,
            site,
        })
    }

    /// Adds what one batch adds to every site. Matrices that read the same input (query, key and value; gate and up) have the same sum of
    /// inputs, of which a truncation is computed once.
    pub(super) fn add_all(sums: &mut [Self], increments: Vec<SiteIncrement>) -> Result<()> {
        let mut last: Option<AddedRows> = None;
        for (sum, new) in sums.iter_mut().zip(increments) {
            sum.check_is(&new.site, &new.output_rows)?;
            sum.n_vectors += new.n_vectors;
            let inputs = format!("inputs at `{}`", sum.site);
            sum.gradient.add(new.gradient, format_args!("gradients at `{}`", sum.site))?;
            let Increment::Rows(rows) = new.activation else {
                sum.activation.add(new.activation, inputs)?;
                continue;
            };
            let rows = on_host(rows, inputs)?;
            match &last {
                Some(last) if last.rows == rows && last.before == sum.activation => {
                    sum.activation = last.after.clone();
                }
                _ => {
                    let before = sum.activation.clone();
                    sum.activation.add_on_host(rows.view())?;
                    last = Some(AddedRows { rows, before, after: sum.activation.clone() });
                }
            }
        }
        Ok(())
    }

    pub(super) fn merge(&mut self, other: Self) -> Result<()> {
        self.check_is(&other.site, &other.output_rows)?;
        self.n_vectors += other.n_vectors;
        self.activation.merge(other.activation)?;
        self.gradient.merge(other.gradient)
    }

    fn check_is(&self, site: &Site, output_rows: &Option<Vec<usize>>) -> Result<()> {
        if (&self.site, &self.output_rows) != (site, output_rows) {
            return Err(Error::Incompatible(format!("the sums at `{}` and `{site}` cannot be joined", self.site)));
        }
        Ok(())
    }

    pub(super) fn bytes(&self) -> usize {
        self.activation.bytes() + self.gradient.bytes()
    }
}
