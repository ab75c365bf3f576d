//! Runs one forward and one backward pass that give, for every item of a batch, the gradients of several combinations
//! of its logits at every site.

use super::site_layout::BatchLayout;
use crate::error::{Error, Result, check_finite};
use crate::lora::{to_array, to_vec, trained_matrices};
use crate::memory::ActivationBudget;
use crate::models::{
    Classifier, ClassifierInput, Dataset, OwnTargets, RowMeaning, TargetDraws, mask_absent, not_by_layers,
};
use crate::tape::{Site, SiteGradient, Tape};
use burn::tensor::{Int, Tensor, TensorData};
use ndarray::{Array2, Array3, Array4};
use std::collections::BTreeSet;

/// Which combinations `Σ_c v_c f_c` of an item's logits are differentiated, where a row is an item.
///
/// Where a row is a choice, a single pass gives the gradient of every class and the choice here is not used.
pub enum Cotangents<'a> {
    /// Every logit: `v_k = e_k`, K = C.
    Classes,
    /// Differences to the first class: `v_k = e_{k+1} − e_0`, K = C − 1.
    Contrasts,
    /// `count` vectors an item, chosen from the items' logits `[n_items, n_classes]` (−∞ for classes that an item does not have) as
    /// `[n_items, n_classes, count]`; zero there.
    Chosen {
        /// Number of vectors K.
        count: usize,
        /// The choice.
        choose: &'a mut dyn FnMut(&Array2<f64>) -> Result<Array3<f64>>,
    },
    /// The log-likelihoods of `count` targets an item that the model draws from its own distribution
    /// ([`Classifier::own_targets`]), each over `√count`: the sum of the squares of their gradients is the sampled Fisher information.
    OwnTargets {
        /// Number of draws K.
        count: usize,
        /// Seed of the draws.
        seed: u64,
        /// What names each item, `[n_items]`.
        keys: &'a [u64],
    },
}

impl Cotangents<'_> {
    /// Number K of combinations, which is how often a batch whose rows are items is repeated.
    pub fn count(&self, n_classes: usize) -> usize {
        match self {
            Self::Classes => n_classes,
            Self::Contrasts => n_classes.saturating_sub(1).max(1),
            Self::Chosen { count, .. } | Self::OwnTargets { count, .. } => *count,
        }
    }
}

/// How often a batch of `data` is repeated to differentiate `count` combinations of an item's logits.
pub(crate) fn repetitions<D: Dataset>(data: &D, count: usize) -> usize {
    if data.rows_are_choices() { 1 } else { count }
}

/// Jacobians that an item of `data` gives where `count` combinations of its logits are differentiated.
pub(crate) fn jacobians_per_item<D: Dataset>(data: &D, n_classes: usize, count: usize) -> usize {
    if data.rows_are_choices() { n_classes } else { count }
}

/// Everything that one pass says about a batch.
#[derive(Debug, Clone)]
pub struct Probe {
    /// Logits `[n_items, n_classes]`; −∞ for classes that an item does not have.
    pub logits: Array2<f64>,
    /// How rows relate to items.
    pub rows: RowMeaning,
    /// One entry for every adapted matrix, in forward order.
    pub sites: Vec<SiteProbe>,
}

/// Inputs and gradients of one site for every item.
#[derive(Debug, Clone)]
pub struct SiteProbe {
    /// Which matrix.
    pub site: Site,
    /// Which rows of the matrix produced the outputs, where not all did (the class rows of an output head).
    pub output_rows: Option<Vec<usize>>,
    /// Real tokens, `[n_items, m, tokens]` with m rows an item; of an output layer those that it reads, row by row.
    pub mask: Array3<bool>,
    /// `[n_items, m, tokens, d_in]`, zero at pads; m = 1 where a row is an item, else the number of choices.
    pub inputs: Tensor<4>,
    /// `[n_items, K, tokens, d_out]`: gradients of the K combinations (of the K = m classes where a row is a choice).
    pub gradients: Tensor<4>,
}

/// Runs the pass. The model needs an adapter; its parameters' own gradients are not computed.
///
/// # Errors
/// If the model has no adapter, a logit is not finite, or targets are to be drawn by a model that has none of its own.
pub fn probe<M: Classifier>(model: &M, input: &M::Input, cotangents: Cotangents) -> Result<Probe> {
    probe_within(model, input, cotangents, (None, &ActivationBudget::unlimited()))
}

/// The same, layer by layer where the budget asks for it, to the same bits; at least at `sites`, where only these are wanted.
///
/// # Errors
/// As [`probe`]; if the model has no gradient layer by layer, and the caller insists.
pub(crate) fn probe_within<M: Classifier>(
    model: &M,
    input: &M::Input,
    mut cotangents: Cotangents,
    (sites, budget): (Option<&BTreeSet<Site>>, &ActivationBudget),
) -> Result<Probe> {
    let n_classes = model.n_classes();
    if input.token_owners().is_some() {
        return Err(Error::Incompatible(
            "several items share a row (packing): curvature reads the rows of each apart".into(),
        ));
    }
    let rows = input.row_meaning();
    let copies = match rows {
        RowMeaning::Choice { .. } => 1,
        RowMeaning::Item => cotangents.count(n_classes),
    };
    let (logits, records) = match pulled_back(model, input, (rows, copies), &mut cotangents, budget)? {
        Some(both) => both,
        None => differentiated(model, input, (rows, copies), &mut cotangents, (sites, budget))?,
    };

    let layout = BatchLayout::new(input);
    let is_head = |site: &Site| model.linears().iter().any(|linear| linear.is_head && linear.path == site.module);
    let sites = records
        .into_iter()
        .map(|record| {
            let ([n_in, d_in], [n_out, d_out]) = (record.input.dims(), record.gradient.dims());
            let of_site = layout.of_site(&record.site, n_in, is_head(&record.site))?;
            if n_out != copies * n_in {
                let what = format!("gradients at `{}`", record.site);
                return Err(Error::Count { what, expected: copies * n_in, found: n_out });
            }
            let (n_items, m, seen) = of_site.mask.dim();
            let inputs = of_site.lay_out(record.input, 1).reshape([n_items, m, seen, d_in]);
            let inputs = inputs.clone() * device_mask(&of_site.mask, &inputs);
            let gradients = of_site.lay_out(record.gradient, copies);
            let gradients = match rows {
                RowMeaning::Choice { choices } => gradients.reshape([n_items, choices, seen, d_out]),
                RowMeaning::Item => gradients.reshape([copies, n_items, seen, d_out]).swap_dims(0, 1),
            };
            let output_rows = record.output_rows.map(host_indices).transpose()?;
            Ok(SiteProbe { site: record.site, output_rows, mask: of_site.mask, inputs, gradients })
        })
        .collect::<Result<_>>()?;
    Ok(Probe { logits, rows, sites })
}

/// By the model's own backward pass, where it has one for the batch.
fn pulled_back<M: Classifier>(
    model: &M,
    input: &M::Input,
    (rows, copies): (RowMeaning, usize),
    cotangents: &mut Cotangents,
    budget: &ActivationBudget,
) -> Result<Option<(Array2<f64>, Vec<SiteGradient>)>> {
    if rows != RowMeaning::Item || matches!(cotangents, Cotangents::OwnTargets { .. }) {
        return Ok(None);
    }
    let mut on_host = None;
    let mut combinations = |logits: &Tensor<2>| {
        let host = host_logits(logits.clone(), input.class_mask())?;
        let weights = copy_weights(cotangents, &host, copies)?;
        on_host = Some(host);
        Ok(like(logits, weights))
    };
    let by_layers = budget.goes_by_layers(|| model.activations(input, Some(copies)));
    let pulled = model.pull_back(input, by_layers, &mut combinations)?;
    Ok(on_host.zip(pulled).map(|(logits, pulled)| (logits, pulled.sites)))
}

/// By automatic differentiation, over copies of the batch.
fn differentiated<M: Classifier>(
    model: &M,
    input: &M::Input,
    (rows, copies): (RowMeaning, usize),
    cotangents: &mut Cotangents,
    (sites, budget): (Option<&BTreeSet<Site>>, &ActivationBudget),
) -> Result<(Array2<f64>, Vec<SiteGradient>)> {
    let (n_items, n_classes) = (input.n_items(), model.n_classes());
    let mut tape = sites.map_or_else(Tape::recording, Tape::recording_at);
    let repeated = if copies == 1 { input.clone() } else { input.repeat(copies)? };
    let by_layers = budget.goes_by_layers(|| model.activations(&repeated, None));
    let first =
        |output: &Tensor<2>| host_logits(output.clone().without_autodiff().narrow(0, 0, n_items), input.class_mask());
    let mut on_host = None;
    let whole = if let Cotangents::OwnTargets { count, seed, keys } = cotangents {
        let items = (0..copies as u64).flat_map(|copy| keys.iter().map(move |key| (*key, copy))).collect();
        let draws = TargetDraws { seed: *seed, items };
        let mut objective = |own: OwnTargets| {
            on_host = Some(first(&own.observed)?);
            Ok(own.drawn.sum().mul_scalar((*count as f64).sqrt().recip()))
        };
        if by_layers {
            model.own_targets_by_layers(&repeated, &draws, &mut tape, &mut objective)?.map(|_| None)
        } else {
            model.own_targets(&repeated, &draws, &mut tape)?.map(|own| objective(own).map(Some)).transpose()?
        }
        .filter(|_| rows == RowMeaning::Item)
        .ok_or_else(|| {
            Error::Incompatible("the likelihood has targets drawn inside the model, and this model draws none".into())
        })?
    } else {
        let mut objective = |output: Tensor<2>| {
            let logits = first(&output)?;
            let weights = match rows {
                RowMeaning::Choice { .. } => Array3::ones((1, n_items, n_classes)),
                RowMeaning::Item => copy_weights(cotangents, &logits, copies)?,
            };
            on_host = Some(logits);
            let weights = like(&output, weights);
            Ok((output * weights).sum())
        };
        if by_layers {
            let gradients = model.gradient(&repeated, &mut tape, true, &mut objective)?;
            gradients.map(|_| None).ok_or_else(not_by_layers)?
        } else {
            Some(objective(model.logits(&repeated, &mut tape))?)
        }
    };
    let mut records = match whole {
        Some(objective) => tape.backward(objective)?,
        None => tape.into_sites()?,
    };
    for record in &mut records {
        // all copies have the same
        let n = record.input.dims()[0] / copies;
        record.input = record.input.clone().narrow(0, 0, n);
    }
    Ok((on_host.ok_or_else(|| Error::empty("logits of a pass"))?, records))
}

/// `[copies, n_items, n_classes]` as `[copies · n_items, n_classes]` beside a tensor, outside of its graph.
fn like(tensor: &Tensor<2>, weights: Array3<f64>) -> Tensor<2> {
    let (copies, n_items, n_classes) = weights.dim();
    let data = TensorData::new(weights.iter().copied().collect::<Vec<f64>>(), [copies * n_items, n_classes]);
    Tensor::from_data(data, (&tensor.device().without_autodiff(), tensor.dtype()))
}

/// Every adapted matrix, in the order of [`Probe::sites`].
pub(super) fn adapted_sites<M: Classifier>(model: &M) -> Vec<Site> {
    trained_matrices(model).into_iter().map(|trained| trained.site).collect()
}

/// One weight a logit for every copy of the batch: `[copies, n_items, n_classes]`.
fn copy_weights(cotangents: &mut Cotangents, logits: &Array2<f64>, copies: usize) -> Result<Array3<f64>> {
    let (n_items, n_classes) = logits.dim();
    let shape = (copies, n_items, n_classes);
    Ok(match cotangents {
        Cotangents::Classes => Array3::from_shape_fn(shape, |(k, _, c)| f64::from(u8::from(c == k))),
        Cotangents::Contrasts => Array3::from_shape_fn(shape, |(k, _, c)| match c {
            0 => -1.0,
            c => f64::from(u8::from(c == k + 1)),
        }),
        Cotangents::Chosen { choose, .. } => {
            let chosen = choose(logits)?;
            Array3::from_shape_fn(shape, |(k, b, c)| chosen[[b, c, k]])
        }
        // their weights are in the model, which is asked before
        Cotangents::OwnTargets { .. } => return Err(Error::empty("weights of targets drawn inside the model")),
    })
}

fn device_mask(mask: &Array3<bool>, like: &Tensor<4>) -> Tensor<4> {
    let (b, m, t) = mask.dim();
    let values: Vec<f32> = mask.iter().map(|&v| f32::from(u8::from(v))).collect();
    Tensor::from_data(TensorData::new(values, [b, m, t, 1]), (&like.device(), like.dtype()))
}

fn host_indices(indices: Tensor<1, Int>) -> Result<Vec<usize>> {
    let values = indices.try_into_vec_as::<i64>();
    let values = values.map_err(|e| Error::numerical("copy of indices to the host", format!("{e:?}")))?;
    Ok(values.into_iter().map(|v| v as usize).collect())
}

/// Copies logits to the host, −∞ where an item lacks a class.
///
/// # Errors
/// If a logit of a class that the item has is not finite.
pub(crate) fn host_logits(logits: Tensor<2>, mask: Option<&Array2<bool>>) -> Result<Array2<f64>> {
    let logits = to_array(logits)?;
    let present = |(i, c): (usize, usize)| mask.is_none_or(|m| m[[i, c]]);
    check_finite("class logits", logits.indexed_iter().map(|(at, v)| !present(at) || v.is_finite()))?;
    Ok(mask_absent(logits, mask))
}

impl SiteProbe {
    /// Site Jacobians `J = Σ_t g_t x_tᵀ` of every item and combination, on the host: `[n_items, K, d_out, d_in]`.
    ///
    /// # Errors
    /// If the copy from the device fails.
    pub fn jacobians(&self) -> Result<Array4<f64>> {
        let [b, k, t, d_out] = self.gradients.dims();
        let [_, m, _, d_in] = self.inputs.dims();
        // rows that share their inputs are stacked into one product an item
        let shared = k / m;
        let left = self.gradients.clone().reshape([b * m, shared, t, d_out]).swap_dims(2, 3);
        let left = left.reshape([b * m, shared * d_out, t]);
        let right = self.inputs.clone().reshape([b * m, t, d_in]);
        let values = to_vec(left.matmul(right))?;
        Array4::from_shape_vec((b, k, d_out, d_in), values).map_err(|e| Error::numerical("copy of Jacobians", e))
    }
}
