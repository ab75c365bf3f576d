//! Reduces one batch's inputs and gradients to what the sums of every structure take.

use super::config::CurvatureConfig;
use super::fisher::{FisherKind, LabelledItem, TokenTreatment};
use super::plan::Source;
use super::probe::{Cotangents, Probe, SiteProbe, probe_within};
use super::site_rows::{SiteRows, site_rows};
use crate::error::{Error, Result, check_finite};
use crate::likelihood::{Likelihood, Target};
use crate::linalg::{matmul, semidefinite_cholesky};
use crate::lora::to_array;
use crate::memory::ActivationBudget;
use crate::models::{Classifier, ClassifierInput, RowMeaning, check_targets, indices_on};
use crate::tape::Site;
use burn::tensor::{Tensor, TensorData};
use ndarray::{Array2, Array3};
use std::collections::BTreeSet;

/// What one batch adds.
pub(super) struct BatchSums {
    /// One key an item (see [`crate::models::Dataset::item_key`]).
    pub(super) item_keys: Vec<u64>,
    pub(super) log_likelihood: Option<f64>,
    /// For Kronecker factors, one list a configuration; empty for other structures.
    pub(super) factors: Vec<Vec<SiteIncrement>>,
    /// For structures that read whole Jacobians; empty where none is summed.
    pub(super) rows: Vec<SiteRows>,
}

/// What one batch adds to the Kronecker factors of a site.
pub(super) struct SiteIncrement {
    pub(super) site: Site,
    pub(super) output_rows: Option<Vec<usize>>,
    pub(super) n_vectors: usize,
    pub(super) activation: Increment,
    pub(super) gradient: Increment,
}

/// An increment of a factor sum: the sum of outer products where that is kept, the rows themselves where a low-rank
/// sum takes them. These stay on the device, for they may be as wide as a vocabulary.
pub(super) enum Increment {
    Outer(Array2<f64>),
    Rows(Tensor<2>),
}

impl Increment {
    /// `what` names the rows. One row an item is multiplied in f64: items that are fewer than the width then leave a null space
    /// that is zero to the rounding of f64, not of the network, and can be told from small eigenvalues.
    fn new(rows: Tensor<2>, is_dense: bool, treatment: TokenTreatment, what: impl std::fmt::Display) -> Result<Self> {
        let checked = |array: Array2<f64>| {
            check_finite(what, array.iter().map(|v| v.is_finite()))?;
            Ok(array)
        };
        Ok(match (is_dense, treatment) {
            (false, _) => Self::Rows(rows),
            (true, TokenTreatment::Expand) => Self::Outer(checked(to_array(rows.clone().transpose().matmul(rows))?)?),
            (true, _) => {
                let rows = checked(to_array(rows)?)?;
                Self::Outer(matmul(rows.t(), rows.view()))
            }
        })
    }
}

/// Runs the pass over one batch, for configurations that share it, over the adapted matrices in `sites`.
pub(super) fn batch_sums<M: Classifier>(
    model: &M,
    input: &M::Input,
    items: &[LabelledItem],
    configs: &[CurvatureConfig],
    sites: &BTreeSet<Site>,
    budget: &ActivationBudget,
) -> Result<BatchSums> {
    let shared = &configs[0];
    let (fisher, likelihood) = (shared.fisher, &*shared.likelihood_or_default());
    let n_classes = model.n_classes();
    let known = items.iter().map(|item| (item.id.as_str(), item.target.as_ref()));
    check_targets(likelihood, known, n_classes, input.class_mask())?;
    let count = fisher.n_columns(likelihood, n_classes);
    let mut choose = |outputs: &Array2<f64>| {
        let mut columns = Array3::zeros((outputs.nrows(), n_classes, count));
        for (b, mut item) in columns.outer_iter_mut().enumerate() {
            item.assign(&fisher.columns(likelihood, outputs.row(b), &items[b])?);
        }
        Ok(columns)
    };
    let keys: Vec<u64> = items.iter().map(|item| item.key).collect();
    let cotangents = match fisher {
        FisherKind::Sampled { n, seed } if likelihood.draws_in_model() => {
            Cotangents::OwnTargets { count: n, seed, keys: &keys }
        }
        _ => Cotangents::Chosen { count, choose: &mut choose },
    };
    // a core is read off its module's A alone
    let speaks_of = |site: &&Site| configs.iter().any(|config| config.plan().coordinates.speaks_of(site));
    let sites: BTreeSet<Site> = sites.iter().filter(speaks_of).cloned().collect();
    let mut pass = probe_within(model, input, cotangents, (Some(&sites), budget))?;
    pass.sites.retain(|probed| sites.contains(&probed.site));
    // where a row is an item, its combinations were weighed by the choice above
    let curvatures = match pass.rows {
        RowMeaning::Item => None,
        RowMeaning::Choice { choices } => Some(output_curvatures(&pass, choices, items, shared)?),
    };
    let factors = |config: &CurvatureConfig| match config.plan().source {
        Source::Factors => increments(&pass, curvatures.as_ref(), config),
        Source::Jacobians => Ok(Vec::new()),
    };
    let reads_jacobians = configs.iter().any(|config| config.plan().source == Source::Jacobians);
    Ok(BatchSums {
        item_keys: keys,
        log_likelihood: log_likelihood(&pass.logits, items, likelihood),
        factors: configs.iter().map(factors).collect::<Result<_>>()?,
        rows: if reads_jacobians { site_rows(&pass, curvatures.as_ref())? } else { Vec::new() },
    })
}

fn increments(pass: &Probe, curvatures: Option<&Array3<f64>>, config: &CurvatureConfig) -> Result<Vec<SiteIncrement>> {
    let mixing = curvatures.map(|curvatures| mixing(curvatures, config.treatment)).transpose()?;
    let Some(first) = pass.sites.first() else { return Ok(Vec::new()) };
    let mixing = mixing.map(|l| {
        let shape = [l.len_of(ndarray::Axis(0)), l.len_of(ndarray::Axis(1)), l.len_of(ndarray::Axis(2))];
        let data = TensorData::new(l.into_iter().collect::<Vec<f64>>(), shape);
        Tensor::<3>::from_data(data, (&first.gradients.device(), first.gradients.dtype())).swap_dims(1, 2)
    });
    let sites = pass.sites.iter().map(|site| {
        let (inputs, gradients) = factor_rows(site, mixing.as_ref(), config.treatment);
        let (d_in, d_out) = (inputs.dims()[1], gradients.dims()[1]);
        let name = &site.site;
        let increment =
            |rows, is_dense, what| Increment::new(rows, is_dense, config.treatment, format_args!("{what} at `{name}`"));
        Ok(SiteIncrement {
            site: site.site.clone(),
            output_rows: site.output_rows.clone(),
            n_vectors: site.mask.iter().filter(|real| **real).count(),
            activation: increment(inputs, config.is_dense(d_in, d_out), "inputs")?,
            gradient: increment(gradients, config.is_dense(d_out, d_in), "gradients")?,
        })
    });
    sites.collect()
}

/// `Σ log p(y | x)` in nats; `None` if a target is unknown.
fn log_likelihood(outputs: &Array2<f64>, items: &[LabelledItem], likelihood: &dyn Likelihood) -> Option<f64> {
    let of = |target: &Target, b: usize| likelihood.log_density(outputs.row(b), target);
    items.iter().enumerate().map(|(b, item)| item.target.as_ref().map(|target| of(target, b))).sum()
}

/// `Λ` (exact or from targets) of items whose rows are choices: `[n_items, choices, choices]`.
fn output_curvatures(
    pass: &Probe,
    choices: usize,
    items: &[LabelledItem],
    config: &CurvatureConfig,
) -> Result<Array3<f64>> {
    let outputs = &pass.logits;
    let likelihood = config.likelihood_or_default();
    let mut curvatures = Array3::zeros((outputs.nrows(), choices, choices));
    for (b, mut item) in curvatures.outer_iter_mut().enumerate() {
        let curvature = config.fisher.output_curvature(&*likelihood, outputs.row(b), &items[b])?;
        item.assign(&curvature.slice(ndarray::s![..choices, ..choices]));
    }
    Ok(curvatures)
}

/// Factors `L` by which the rows of choices are mixed before their outer products are summed: `L Lᵀ = Λ`, or its diagonal.
fn mixing(curvatures: &Array3<f64>, treatment: TokenTreatment) -> Result<Array3<f64>> {
    let mut mixing = Array3::zeros(curvatures.dim());
    for (curvature, mut item) in curvatures.outer_iter().zip(mixing.outer_iter_mut()) {
        item.assign(&match treatment {
            // products across the rows of different choices mean nothing token by token
            TokenTreatment::Expand => Array2::from_diag(&curvature.diag().mapv(|v| v.max(0.0).sqrt())),
            TokenTreatment::Reduce => semidefinite_cholesky(curvature)?,
            TokenTreatment::Last => {
                return Err(Error::Incompatible(
                    "token treatment `last` has no meaning for continuation scoring: the last token of a row has no gradient".into(),
                ));
            }
        });
    }
    Ok(mixing)
}

/// The rows whose outer products are summed: inputs `[n, d_in]` and gradients `[n', d_out]`; `mixing` is `Lᵀ`.
fn factor_rows(site: &SiteProbe, mixing: Option<&Tensor<3>>, treatment: TokenTreatment) -> (Tensor<2>, Tensor<2>) {
    let [b, m, t, d_in] = site.inputs.dims();
    let [_, k, _, d_out] = site.gradients.dims();
    let (inputs, gradients) = (site.inputs.clone(), site.gradients.clone());
    // Σ_c L[c,k] g^c: the gradients whose plain outer products sum to G
    let mix = |g: Tensor<3>, width: usize| match mixing {
        None => g,
        Some(l) => l.clone().matmul(g).reshape([b, k, width]),
    };
    match treatment {
        TokenTreatment::Expand => {
            let mixed = mix(gradients.reshape([b, k, t * d_out]), t * d_out);
            (inputs.reshape([b * m * t, d_in]), mixed.reshape([b * k * t, d_out]))
        }
        TokenTreatment::Reduce => {
            let lengths: Vec<f64> =
                site.mask.outer_iter().map(|item| 1.0 / item.iter().filter(|v| **v).count().max(1) as f64).collect();
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
                let index = indices_on(&tensor.device(), places);
                tensor.reshape([b * copies * t, width]).select(0, index)
            };
            (pick(inputs, 1, d_in), pick(gradients, k, d_out))
        }
    }
}
