//! Runs the network on a batch and keeps the logits and their Jacobians on the host.

use crate::belief::{LogitGauge, centre_covariance, contrasts_to_classes, pad_classes};
use crate::curvature::{Cotangents, jacobians_per_item, probe_within, repetitions};
use crate::error::Result;
use crate::memory::ActivationBudget;
use crate::models::{Classifier, Dataset, RowMeaning, batch_for};
use crate::tape::Site;
use ndarray::{Array1, Array2, Array3, Array4, ArrayView1, ArrayView2, Axis};
use std::collections::{BTreeMap, BTreeSet};

/// The combinations of logits whose Jacobians give a covariance in a gauge.
fn cotangents(gauge: LogitGauge) -> Cotangents<'static> {
    match gauge {
        LogitGauge::Centred => Cotangents::Contrasts,
        LogitGauge::Raw => Cotangents::Classes,
    }
}

/// How often a batch of `data` is repeated for its several Jacobians in a gauge.
pub(crate) fn repetitions_in<D: Dataset>(gauge: LogitGauge, data: &D, n_classes: usize) -> usize {
    repetitions(data, cotangents(gauge).count(n_classes))
}

/// How many combinations of its outputs an item of `data` is differentiated by in a gauge.
pub(super) fn combinations_in<D: Dataset>(gauge: LogitGauge, data: &D, n_classes: usize) -> usize {
    jacobians_per_item(data, n_classes, cotangents(gauge).count(n_classes))
}

/// One batch's logits and the Jacobians of K combinations of them; no posterior has entered yet.
#[derive(Debug, Clone)]
pub struct LogitJacobians {
    /// `[n_items, n_classes]`; −∞ for classes that an item does not have.
    pub logits: Array2<f64>,
    /// `[n_items, K, d_out, d_in]` of every matrix asked for.
    pub sites: BTreeMap<Site, Array4<f64>>,
    gauge: LogitGauge,
    are_contrasts: bool,
}

impl LogitJacobians {
    /// One forward and one backward pass over the items at `indices`, for the Jacobians of `sites`; layer by layer where the budget asks for it.
    ///
    /// # Errors
    /// If a logit is not finite or the model has no adapter.
    pub fn new<M: Classifier, D: Dataset<Input = M::Input>>(
        model: &M,
        data: &D,
        indices: &[usize],
        gauge: LogitGauge,
        (sites, budget): (&BTreeSet<Site>, &ActivationBudget),
    ) -> Result<Self> {
        let input = batch_for(model, data, indices)?;
        let pass = probe_within(model, &input, cotangents(gauge), (Some(sites), budget))?;
        let wanted = pass.sites.iter().filter(|probed| sites.contains(&probed.site));
        let sites = wanted.map(|probed| Ok((probed.site.clone(), probed.jacobians()?)));
        Ok(Self {
            sites: sites.collect::<Result<_>>()?,
            logits: pass.logits,
            gauge,
            are_contrasts: pass.rows == RowMeaning::Item && gauge == LogitGauge::Centred,
        })
    }

    /// What the combinations are.
    pub(super) fn combinations(&self) -> Combinations {
        Combinations { gauge: self.gauge, are_contrasts: self.are_contrasts }
    }

    /// Covariance of the class logits `[n_items, C, C]` in the batch's gauge, from that of the K combinations.
    pub fn to_classes(&self, of_combinations: Array3<f64>) -> Array3<f64> {
        self.combinations().covariance_of_classes(self.logits.view(), of_combinations)
    }
}

/// How the combinations of outputs that were differentiated relate to the outputs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Combinations {
    /// In which the covariance of outputs is right.
    pub(super) gauge: LogitGauge,
    /// True if combination k is `f_{k+1} − f_0`, false if it is `f_k`.
    pub(super) are_contrasts: bool,
}

impl Combinations {
    /// Covariance of the outputs `[n, C, C]` in the gauge, from that of the combinations `[n, K, K]`; `outputs` `[n, C]` are −∞ where an
    /// item has none.
    pub(super) fn covariance_of_classes(self, outputs: ArrayView2<f64>, of_combinations: Array3<f64>) -> Array3<f64> {
        let (n, n_classes) = outputs.dim();
        if n_classes == 1 && self.gauge == LogitGauge::Centred {
            // a single logit has no contrast
            return Array3::zeros((n, 1, 1));
        }
        let mut covariance = if self.are_contrasts {
            contrasts_to_classes(of_combinations.view())
        } else {
            pad_classes(of_combinations, n_classes)
        };
        if self.gauge == LogitGauge::Centred {
            for (outputs, mut item) in outputs.outer_iter().zip(covariance.axis_iter_mut(Axis(0))) {
                let centred = centre_covariance(outputs, item.view());
                item.assign(&centred);
            }
        }
        covariance
    }

    /// The change of C outputs, up to a common shift, where the combinations change by `change` `[K]`.
    pub(super) fn push(self, change: ArrayView1<f64>, n_outputs: usize) -> Array1<f64> {
        let first = usize::from(self.are_contrasts);
        Array1::from_shape_fn(n_outputs, |c| c.checked_sub(first).and_then(|k| change.get(k)).copied().unwrap_or(0.0))
    }

    /// The transpose: derivatives `[C, w]` by outputs as those by the K combinations, `[K, w]`.
    pub(super) fn pull(self, of_outputs: ArrayView2<f64>, n_combinations: usize) -> Array2<f64> {
        let first = usize::from(self.are_contrasts);
        let shape = (n_combinations, of_outputs.ncols());
        Array2::from_shape_fn(shape, |(k, w)| of_outputs.get([k + first, w]).copied().unwrap_or(0.0))
    }
}
