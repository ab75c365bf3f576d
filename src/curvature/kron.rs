//! Sums the Kronecker factors `A` (of inputs) and `G` (of output gradients) of the Fisher information at every site.

use super::batch_sums::{BatchSums, Increment, batch_sums};
use super::fisher::{FisherKind, TokenTreatment};
use crate::batches::for_each_batch;
use crate::data::{BatchLimits, BatchOrder};
use crate::error::{Error, Result};
use crate::likelihood::Likelihood;
use crate::linalg::LowRankSum;
use crate::models::{Classifier, Dataset, batch_for};
use crate::progress::Control;
use crate::tape::Site;
use ndarray::Array2;

/// How the factors are fitted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CurvatureConfig {
    /// Where labels come from.
    pub fisher: FisherKind,
    /// How tokens enter.
    pub treatment: TokenTreatment,
    /// How labels depend on logits.
    pub likelihood: Likelihood,
    /// Widest factor kept dense; a wider one is kept at `low_rank`. The narrower of a site's two factors is always dense.
    pub dense_limit: usize,
    /// Rank of factors wider than `dense_limit`.
    pub low_rank: usize,
    /// Most items and tokens that the network sees at once, the repetitions for several backward passes counted in.
    pub limits: BatchLimits,
}

impl Default for CurvatureConfig {
    /// Exact Fisher, expand, categorical, dense up to 2,048, rank 10 above, batches of 8 items and 2,048 tokens.
    fn default() -> Self {
        Self {
            fisher: FisherKind::Exact,
            treatment: TokenTreatment::Expand,
            likelihood: Likelihood::Categorical,
            dense_limit: 2048,
            low_rank: 10,
            limits: BatchLimits { max_items: 8, max_tokens: 2048 },
        }
    }
}

impl CurvatureConfig {
    /// True if a factor of this width is kept dense beside one of width `other`.
    pub(super) fn is_dense(&self, width: usize, other: usize) -> bool {
        width <= self.dense_limit.max(other)
    }

    /// Checks every bound.
    ///
    /// # Errors
    /// Names the field, its bound and its value.
    pub fn validate(&self) -> Result<()> {
        self.fisher.check()?;
        self.likelihood.check()?;
        if self.low_rank == 0 {
            return Err(Error::config("low_rank", "at least 1", 0));
        }
        Ok(())
    }
}

/// A sum of outer products `Σ x xᵀ` over rows x.
#[derive(Debug, Clone, PartialEq)]
pub enum FactorSum {
    /// The whole matrix `[d, d]`.
    Dense(Array2<f64>),
    /// Its leading part, and the trace of the rest.
    LowRank(LowRankSum),
}

impl FactorSum {
    fn new(width: usize, other: usize, config: &CurvatureConfig) -> Self {
        if config.is_dense(width, other) {
            Self::Dense(Array2::zeros((width, width)))
        } else {
            Self::LowRank(LowRankSum::new(width, config.low_rank.min(width)))
        }
    }

    fn add(&mut self, increment: Increment) -> Result<()> {
        match (self, increment) {
            (Self::Dense(sum), Increment::Outer(new)) => *sum += &new,
            (Self::Dense(sum), Increment::Rows(rows)) => *sum += &rows.t().dot(&rows),
            (Self::LowRank(sum), Increment::Rows(rows)) => sum.add(rows.view())?,
            (Self::LowRank(_), Increment::Outer(new)) => {
                return Err(Error::Incompatible(format!(
                    "a low-rank factor of width {} takes rows, not their sum",
                    new.nrows()
                )));
            }
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
}

/// Kronecker factors of the Fisher information at one site, **summed** over the data.
///
/// `H ≈ G ⊗ A / normalizer` for a weight `[d_out, d_in]` stored row by row; see [`TokenTreatment`] for the sums and
/// [`KroneckerCurvature::normalizer`].
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

/// What a pass over the training data gathers.
#[derive(Debug, Clone, PartialEq)]
pub struct KroneckerCurvature {
    /// One entry a site, in forward order.
    pub factors: Vec<KroneckerFactors>,
    /// How it was fitted.
    pub config: CurvatureConfig,
    /// Number of items seen.
    pub n_data: usize,
    /// Σ log p(y | x, θ*) over the items in nats; `None` if a label is unknown.
    pub log_likelihood: Option<f64>,
}

impl KroneckerCurvature {
    /// What a site's activation sum is divided by: its input vectors for *expand*, items otherwise.
    pub fn normalizer(&self, factors: &KroneckerFactors) -> f64 {
        match self.config.treatment {
            TokenTreatment::Expand => factors.n_vectors as f64,
            TokenTreatment::Reduce | TokenTreatment::Last => self.n_data as f64,
        }
    }
}

/// Fits the Kronecker factors of all adapted matrices on `data`; dropout is off, pads count for nothing.
///
/// # Errors
/// If a setting is out of bounds or makes no sense for the model, a value is not finite, or the caller cancels.
pub fn fit_kronecker<M: Classifier, D: Dataset<Input = M::Input>>(
    model: &M,
    data: &D,
    config: &CurvatureConfig,
    control: &Control,
) -> Result<KroneckerCurvature> {
    config.validate()?;
    let model = model.valid();
    let mut curvature =
        KroneckerCurvature { factors: Vec::new(), config: *config, n_data: 0, log_likelihood: Some(0.0) };
    let columns = config.fisher.n_columns(config.likelihood, model.n_classes());
    let copies = if data.rows_are_choices() { 1 } else { columns };
    let batches = data.plan(config.limits.shared_by(copies), BatchOrder::ByLength)?;
    let work = |indices: &[usize]| {
        let input = batch_for(&model, data, indices)?;
        let ids: Vec<String> = indices.iter().map(|&i| data.item_id(i)).collect();
        let labels: Vec<Option<usize>> = indices.iter().map(|&i| data.label(i)).collect();
        batch_sums(&model, &input, &ids, &labels, config)
    };
    for_each_batch("curvature", &batches, control, work, |_, sums| curvature.add(sums))?;
    Ok(curvature)
}

impl KroneckerCurvature {
    fn add(&mut self, batch: BatchSums) -> Result<()> {
        self.n_data += batch.n_data;
        self.log_likelihood = self.log_likelihood.zip(batch.log_likelihood).map(|(sum, new)| sum + new);
        for (index, site) in batch.sites.into_iter().enumerate() {
            if self.factors.len() == index {
                let (d_in, d_out) = (site.activation.width(), site.gradient.width());
                self.factors.push(KroneckerFactors {
                    site: site.site,
                    output_rows: site.output_rows,
                    n_vectors: 0,
                    activation: FactorSum::new(d_in, d_out, &self.config),
                    gradient: FactorSum::new(d_out, d_in, &self.config),
                });
            }
            let factors = &mut self.factors[index];
            factors.n_vectors += site.n_vectors;
            factors.activation.add(site.activation)?;
            factors.gradient.add(site.gradient)?;
        }
        Ok(())
    }
}
