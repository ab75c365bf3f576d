//! Sums the Kronecker factors `A` (of inputs) and `G` (of output gradients) of the Fisher information at every site.

use super::fisher::{FisherKind, TokenTreatment};
use super::probe::{Cotangents, Probe, SiteProbe, probe};
use crate::belief::{log_softmax, softmax};
use crate::data::{BatchLimits, BatchOrder};
use crate::error::{Error, Result};
use crate::likelihood::Likelihood;
use crate::linalg::{LowRankSum, semidefinite_cholesky};
use crate::lora::to_array;
use crate::models::{Classifier, Dataset, RowMeaning};
use crate::progress::Control;
use crate::tape::Site;
use burn::tensor::{Int, Tensor, TensorData};
use ndarray::{Array2, Array3, Axis};

/// How the factors are fitted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CurvatureConfig {
    /// Where labels come from.
    pub fisher: FisherKind,
    /// How tokens enter.
    pub treatment: TokenTreatment,
    /// How labels depend on logits.
    pub likelihood: Likelihood,
    /// Widest factor kept dense; a wider one is kept at `low_rank`.
    pub dense_limit: usize,
    /// Rank of factors wider than `dense_limit`.
    pub low_rank: usize,
    /// Size of a batch.
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
    fn new(width: usize, config: &CurvatureConfig) -> Self {
        if width <= config.dense_limit {
            Self::Dense(Array2::zeros((width, width)))
        } else {
            Self::LowRank(LowRankSum::new(width, config.low_rank.min(width)))
        }
    }

    /// Adds the outer products of the rows `[n, d]`.
    fn add(&mut self, rows: Tensor<2>) -> Result<()> {
        match self {
            Self::Dense(sum) => *sum += &to_array(rows.clone().transpose().matmul(rows))?,
            Self::LowRank(sum) => sum.add(to_array(rows)?.view())?,
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
    let mut curvature = KroneckerCurvature {
        factors: Vec::new(),
        config: *config,
        n_data: 0,
        log_likelihood: Some(0.0),
    };
    let batches = data.plan(config.limits, BatchOrder::ByLength)?;
    let mut bar = control.bar("curvature", data.n_items());
    for indices in batches {
        let ids: Vec<String> = indices.iter().map(|&i| data.item_id(i)).collect();
        let labels: Vec<Option<usize>> = indices.iter().map(|&i| data.label(i)).collect();
        let input = data.batch(&indices, &model.device(), model.dtype())?;
        curvature.add(&model, &input, &ids, &labels)?;
        bar.advance(indices.len(), String::new)?;
    }
    Ok(curvature)
}

impl KroneckerCurvature {
    fn add<M: Classifier>(
        &mut self,
        model: &M,
        input: &M::Input,
        ids: &[String],
        labels: &[Option<usize>],
    ) -> Result<()> {
        let CurvatureConfig { fisher, likelihood, .. } = self.config;
        let n_classes = model.n_classes();
        let mut choose = |p: &Array2<f64>| {
            let mut columns = Array3::zeros((p.nrows(), n_classes, fisher.n_columns(likelihood, n_classes)));
            for (b, mut item) in columns.outer_iter_mut().enumerate() {
                item.assign(&fisher.columns(likelihood, p.row(b), labels[b], &ids[b])?);
            }
            Ok(columns)
        };
        let count = fisher.n_columns(likelihood, n_classes);
        let pass = probe(model, input, Cotangents::Chosen { count, choose: &mut choose })?;
        let mixing = match pass.rows {
            RowMeaning::Item => None,
            RowMeaning::Choice { choices } => Some(self.mixing(&pass, choices, ids, labels)?),
        };
        self.n_data += ids.len();
        self.add_log_likelihood(&pass.logits, labels);
        for (index, site) in pass.sites.iter().enumerate() {
            let (inputs, gradients) = self.rows(site, mixing.as_ref())?;
            if self.factors.len() == index {
                self.factors.push(KroneckerFactors {
                    site: site.site.clone(),
                    output_rows: site.output_rows.clone(),
                    n_vectors: 0,
                    activation: FactorSum::new(inputs.dims()[1], &self.config),
                    gradient: FactorSum::new(gradients.dims()[1], &self.config),
                });
            }
            let factors = &mut self.factors[index];
            factors.n_vectors += site.mask.iter().filter(|real| **real).count();
            factors.activation.add(inputs)?;
            factors.gradient.add(gradients)?;
        }
        Ok(())
    }

    fn add_log_likelihood(&mut self, logits: &Array2<f64>, labels: &[Option<usize>]) {
        let log_p = log_softmax(logits.view());
        for (row, label) in log_p.axis_iter(Axis(0)).zip(labels) {
            self.log_likelihood = match (self.log_likelihood, label) {
                (Some(sum), Some(y)) => Some(sum + row[*y]),
                _ => None,
            };
        }
    }

    /// Factors `L` with `L Lᵀ = Λ` (exact or from labels) of items whose rows are choices: `[n_items, choices, choices]`.
    fn mixing(&self, pass: &Probe, choices: usize, ids: &[String], labels: &[Option<usize>]) -> Result<Array3<f64>> {
        let p = softmax(pass.logits.view());
        let mut mixing = Array3::zeros((p.nrows(), choices, choices));
        for (b, mut item) in mixing.outer_iter_mut().enumerate() {
            let curvature =
                self.config.fisher.output_curvature(self.config.likelihood, p.row(b), labels[b], &ids[b])?;
            let present = curvature.slice(ndarray::s![..choices, ..choices]);
            item.assign(&match self.config.treatment {
                // products across the rows of different choices mean nothing token by token
                TokenTreatment::Expand => Array2::from_diag(&present.diag().mapv(|v| v.max(0.0).sqrt())),
                TokenTreatment::Reduce => semidefinite_cholesky(present)?,
                TokenTreatment::Last => {
                    return Err(Error::Incompatible(
                        "token treatment `last` has no meaning for continuation scoring: the last token of a row has no gradient".into(),
                    ));
                }
            });
        }
        Ok(mixing)
    }

    /// The rows whose outer products are summed: inputs `[n, d_in]` and gradients `[n', d_out]`.
    fn rows(&self, site: &SiteProbe, mixing: Option<&Array3<f64>>) -> Result<(Tensor<2>, Tensor<2>)> {
        let [b, m, t, d_in] = site.inputs.dims();
        let [_, k, _, d_out] = site.gradients.dims();
        let (inputs, gradients) = (site.inputs.clone(), site.gradients.clone());
        // Σ_c L[c,k] g^c: the gradients whose plain outer products sum to G
        let mix = |g: Tensor<3>, width: usize| match mixing {
            None => g,
            Some(l) => {
                let data = TensorData::new(l.iter().copied().collect::<Vec<f64>>(), [b, k, k]);
                let l = Tensor::<3>::from_data(data, (&g.device(), g.dtype()));
                l.swap_dims(1, 2).matmul(g).reshape([b, k, width])
            }
        };
        Ok(match self.config.treatment {
            TokenTreatment::Expand => {
                let mixed = mix(gradients.reshape([b, k, t * d_out]), t * d_out);
                (inputs.reshape([b * m * t, d_in]), mixed.reshape([b * k * t, d_out]))
            }
            TokenTreatment::Reduce => {
                let lengths: Vec<f64> = site
                    .mask
                    .outer_iter()
                    .map(|item| 1.0 / item.iter().filter(|v| **v).count().max(1) as f64)
                    .collect();
                let scale = TensorData::new(lengths, [b, 1]);
                let scale = Tensor::<2>::from_data(scale, (&inputs.device(), inputs.dtype()));
                let mean = inputs.reshape([b, m * t, d_in]).sum_dim(1).reshape([b, d_in]) * scale;
                let sums = mix(gradients.sum_dim(2).reshape([b, k, d_out]), d_out);
                (mean, sums.reshape([b * k, d_out]))
            }
            TokenTreatment::Last => {
                let last: Vec<usize> = site
                    .mask
                    .outer_iter()
                    .map(|item| item.iter().enumerate().filter(|(_, real)| **real).map(|(i, _)| i).last().unwrap_or(0))
                    .collect();
                let pick = |tensor: Tensor<4>, copies: usize, width: usize| {
                    let places: Vec<i64> = (0..b)
                        .flat_map(|i| (0..copies).map(move |c| (i, c)))
                        .map(|(i, c)| ((i * copies + c) * t + last[i]) as i64)
                        .collect();
                    let n = places.len();
                    let index = Tensor::<1, Int>::from_data(TensorData::new(places, [n]), &tensor.device());
                    tensor.reshape([b * copies * t, width]).select(0, index)
                };
                (pick(inputs, 1, d_in), pick(gradients, k, d_out))
            }
        })
    }
}
