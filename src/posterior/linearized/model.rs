//! The network linearised around the trained adapter, as a model of its own over its training items.

use super::config::LinearizedConfig;
use super::items::LinearizedItems;
use super::kernel::Kernel;
use super::rows::JacobianRows;
use crate::belief::{LogitBelief, LogitGauge};
use crate::error::{Error, Result, check_finite};
use crate::likelihood::{SharedLikelihood, Target};
use crate::models::{Classifier, Dataset, known_targets};
use crate::posterior::jacobians::Combinations;
use crate::posterior::laplace::Laplace;
use crate::prior::PriorPrecisions;
use crate::progress::Control;
use ndarray::{Array1, Array2, Array3, ArrayView1, Axis, s};
use std::ops::Range;

/// `f(x; θ) = f(x; θ*) + J(x)(θ − θ*)` on N training items, with the prior `N(μ, (sλ)⁻¹I)`: a Gaussian process with the mean
/// `f* − J(θ* − μ)` and the kernel `K/s`, `K = Σ_g J_g J_gᵀ/λ_g` over the prior's groups, whose posterior is found exactly at its
/// mode ([`LinearizedModel::mode`]).
///
/// The precisions λ_g are those of the posterior that it was made from; the scale s multiplies all of them.
///
/// Where the outputs matter up to a common shift, the combinations are the C − 1 differences to the first; otherwise, and for choices
/// that are continuations, all outputs.
#[derive(Debug, Clone)]
pub struct LinearizedModel {
    /// `f*`, `[N, C]`; −∞ for outputs that an item does not have.
    pub(super) outputs: Array2<f64>,
    /// The combinations of each item.
    pub(super) ranges: Vec<Range<usize>>,
    pub(super) combinations: Combinations,
    /// `J(θ* − μ)`, one a combination.
    pub(super) drift: Array1<f64>,
    pub(super) kernel: Kernel,
    pub(super) targets: Vec<Target>,
    pub(super) likelihood: SharedLikelihood,
    pub(super) precisions: PriorPrecisions,
    /// Width of the random projection that the features went through; `None` where they are exact.
    pub(super) projected: Option<usize>,
    /// The items that it is about, where not all.
    drawn: Option<Vec<usize>>,
}

/// Prior variances of a combination of outputs, in nats², between which the scale of a prior is sought: beyond, the prior is flat, or its
/// centre, for every purpose.
const VARIANCES: (f64, f64) = (1e-10, 1e8);

impl LinearizedModel {
    /// The model of items, one target each, with features `J/√λ`, `[N·k, P]`, item after item: any linear model with any likelihood.
    ///
    /// # Errors
    /// If counts do not fit each other, differences are taken of outputs whose common shift matters, or a value is not finite.
    pub fn new(
        items: LinearizedItems,
        targets: Vec<Target>,
        features: Array2<f64>,
        likelihood: SharedLikelihood,
        precisions: PriorPrecisions,
    ) -> Result<Self> {
        let (expected, found) = (items.drift.len(), features.nrows());
        if expected != found {
            return Err(Error::Count { what: "rows of Jacobians".into(), expected, found });
        }
        check_finite("Jacobians of the training items", features.iter().map(|v| v.is_finite()))?;
        Self::with_kernel((items, targets), Kernel::new(features), likelihood, precisions)
    }

    fn with_kernel(
        (items, targets): (LinearizedItems, Vec<Target>),
        kernel: Kernel,
        likelihood: SharedLikelihood,
        precisions: PriorPrecisions,
    ) -> Result<Self> {
        let LinearizedItems { outputs, are_contrasts, rows_per_item: k, drift } = items;
        let gauge = if likelihood.is_shift_invariant() { LogitGauge::Centred } else { LogitGauge::Raw };
        if are_contrasts && gauge == LogitGauge::Raw {
            return Err(Error::Incompatible(format!(
                "differences of outputs do not say what a {likelihood} likelihood needs: it depends on every output"
            )));
        }
        let n = outputs.nrows();
        if n == 0 {
            return Err(Error::empty("set of training items"));
        }
        for (what, expected, found) in
            [("targets of the training items", n, targets.len()), ("entries of J(θ* − μ)", n * k, drift.len())]
        {
            if expected != found {
                return Err(Error::Count { what: what.into(), expected, found });
            }
        }
        check_finite("J(θ* − μ) of the training items", drift.iter().map(|v| v.is_finite()))?;
        for (item, (outputs, target)) in outputs.outer_iter().zip(&targets).enumerate() {
            let present: Vec<bool> = outputs.iter().map(|v| v.is_finite()).collect();
            likelihood.check_target(&item.to_string(), target, &present)?;
        }
        Ok(Self {
            outputs,
            ranges: (0..n).map(|item| item * k..(item + 1) * k).collect(),
            combinations: Combinations { gauge, are_contrasts },
            drift,
            kernel,
            targets,
            likelihood,
            precisions,
            projected: None,
            drawn: None,
        })
    }

    /// Linearises the network over the weights (or cores) and groups of a posterior, on the labelled items that it was trained on, or on
    /// some of them ([`super::Beyond`]).
    ///
    /// # Errors
    /// As [`JacobianRows::of`]; if a target is missing or is none for its item.
    pub fn of<M: Classifier, D: Dataset<Input = M::Input>>(
        model: &M,
        laplace: &Laplace,
        data: &D,
        config: &LinearizedConfig,
        control: &Control,
    ) -> Result<Self> {
        // before the pass: a label that is missing is better known now
        let targets = known_targets(data, &**laplace.likelihood(), model.n_classes())?;
        let rows = JacobianRows::of(model, laplace, data, config, control)?;
        let targets = match rows.drawn() {
            None => targets,
            Some(drawn) => drawn.iter().map(|&item| targets[item].clone()).collect(),
        };
        Self::from_rows(&rows, targets, laplace)
    }

    /// The same from Jacobians that are known, and one target for each of their items.
    ///
    /// # Errors
    /// As [`LinearizedModel::new`].
    pub fn from_rows(rows: &JacobianRows, targets: Vec<Target>, laplace: &Laplace) -> Result<Self> {
        let kernel =
            if rows.width() < rows.n_rows() { Kernel::Features(rows.to_matrix()) } else { Kernel::Gram(rows.gram()) };
        let (likelihood, precisions) = (laplace.likelihood().clone(), laplace.prior_precisions().clone());
        let projected = rows.is_projected().then(|| rows.width());
        let drawn = rows.drawn().map(<[usize]>::to_vec);
        Ok(Self {
            projected,
            drawn,
            ..Self::with_kernel((rows.items.clone(), targets), kernel, likelihood, precisions)?
        })
    }

    /// Number of training items.
    pub fn n_items(&self) -> usize {
        self.ranges.len()
    }

    /// Number of combinations of outputs over all items: N(C − 1) where outputs matter up to a shift.
    pub fn n_rows(&self) -> usize {
        self.drift.len()
    }

    /// What was observed of the items.
    pub fn targets(&self) -> &[Target] {
        &self.targets
    }

    /// How targets depend on outputs.
    pub fn likelihood(&self) -> &SharedLikelihood {
        &self.likelihood
    }

    /// The prior precisions at scale 1.
    pub fn precisions(&self) -> &PriorPrecisions {
        &self.precisions
    }

    /// Width of the random projection that its Jacobians went through; `None` where they are exact.
    pub fn projected(&self) -> Option<usize> {
        self.projected
    }

    /// The items that it is about, ascending, where a random subset stands for all; `None` where all are in it.
    pub fn drawn(&self) -> Option<&[usize]> {
        self.drawn.as_deref()
    }

    /// `Σ log p(y | x, θ*)` of the network itself in nats.
    pub fn network_log_likelihood(&self) -> f64 {
        self.log_likelihood_at(&Array1::zeros(self.n_rows()))
    }

    /// Between which log s a prior is sought, and where the largest prior variance is 1.
    ///
    /// # Errors
    /// If no Jacobian is different from zero.
    pub(super) fn log_scales(&self) -> Result<(f64, f64, f64)> {
        let largest = self.kernel.largest_variance();
        if largest > 0.0 && largest.is_finite() {
            let (small, large) = VARIANCES;
            return Ok(((largest / large).ln(), largest.ln(), (largest / small).ln()));
        }
        Err(Error::numerical("prior of the linearised model", format!("the largest square of a Jacobian is {largest}")))
    }

    /// The outputs of an item where the combinations change by `change`.
    pub(super) fn outputs_of(&self, item: usize, change: &Array1<f64>) -> Array1<f64> {
        self.changed(item, change.slice(s![self.ranges[item].clone()]))
    }

    fn changed(&self, item: usize, own: ArrayView1<f64>) -> Array1<f64> {
        &self.outputs.row(item) + &self.combinations.push(own, self.outputs.ncols())
    }

    pub(super) fn log_likelihood_at(&self, change: &Array1<f64>) -> f64 {
        let one = |item| self.likelihood.log_density(self.outputs_of(item, change).view(), &self.targets[item]);
        (0..self.n_items()).map(one).sum()
    }

    /// A Gaussian belief about the items: the outputs where the combinations change by `change`, and the covariances of these.
    pub(super) fn belief(&self, change: &Array1<f64>, covariances: &[Array2<f64>]) -> LogitBelief {
        let mut mean = Array2::zeros(self.outputs.dim());
        for (item, mut row) in mean.outer_iter_mut().enumerate() {
            row.assign(&self.outputs_of(item, change));
        }
        gaussian_belief(mean, covariances, self.combinations)
    }
}

/// The Gaussian belief with a mean and the covariances of each item's combinations.
pub(super) fn gaussian_belief(
    mean: Array2<f64>,
    covariances: &[Array2<f64>],
    combinations: Combinations,
) -> LogitBelief {
    let (n, c) = mean.dim();
    let mut covariance = Array3::zeros((n, c, c));
    for (item, own) in covariances.iter().enumerate() {
        let outputs = mean.slice(s![item..item + 1, ..]);
        let of_classes = combinations.covariance_of_classes(outputs, own.clone().insert_axis(Axis(0)));
        covariance.slice_mut(s![item..item + 1, .., ..]).assign(&of_classes);
    }
    LogitBelief::Gaussian { mean, covariance, gauge: combinations.gauge }
}
