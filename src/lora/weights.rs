//! Reads and writes a model's adapter as host arrays.

use super::attach::Adaptable;
use super::trained::{TrainedMatrix, change_trained, trained_matrices};
use crate::error::{Error, Result};
use crate::prior::PriorMean;
use crate::tape::Site;
use burn::module::Param;
use burn::optim::GradientsParams;
use burn::tensor::{DType, Device, Tensor, TensorData};
use ndarray::Array2;
use std::collections::BTreeMap;

/// One value for every matrix that trains: `A: [r, d_in]`, `B: [d_out, r]`, heads `[d_out, d_in + 1]` with their bias in the last column.
pub type AdapterWeights = BTreeMap<Site, Array2<f64>>;

/// The adapter's present weights, and those of heads that train with it.
///
/// # Errors
/// If the model has no adapter.
pub fn read_adapter<M: Adaptable>(model: &M) -> Result<AdapterWeights> {
    collect(model, |trained| Some(trained.param.val()))
}

/// The adapter's weights at its start: A as drawn, B = 0 and heads as drawn or loaded, unless [`start_at`] put it elsewhere.
///
/// # Errors
/// If the model has no adapter or its start is unknown (an adapter read from files).
pub fn initial_weights<M: Adaptable>(model: &M) -> Result<AdapterWeights> {
    collect(model, |trained| trained.initial.cloned())
}

/// The centre of a prior, one value for every adapted matrix.
///
/// # Errors
/// If the model has no adapter, or its start is asked for and unknown.
pub fn prior_centre<M: Adaptable>(model: &M, mean: PriorMean) -> Result<AdapterWeights> {
    let zero = || Ok(read_adapter(model)?.into_iter().map(|(site, w)| (site, w * 0.0)).collect());
    match mean {
        PriorMean::Zero => zero(),
        PriorMean::Initial => initial_weights(model),
        PriorMean::InitialIfKnown => match initial_weights(model) {
            Err(Error::Incompatible(_)) => zero(),
            known => known,
        },
    }
}

fn collect<M: Adaptable>(model: &M, pick: impl Fn(&TrainedMatrix) -> Option<Tensor<2>>) -> Result<AdapterWeights> {
    let mut weights = AdapterWeights::new();
    for trained in trained_matrices(model) {
        let tensor = pick(&trained).ok_or_else(|| {
            let site = &trained.site;
            Error::Incompatible(format!(
                "the random start of `{site}` is unknown, so the prior cannot be centred there"
            ))
        })?;
        weights.insert(trained.site, to_array(tensor)?);
    }
    if weights.is_empty() {
        return Err(Error::empty("adapter"));
    }
    Ok(weights)
}

/// The gradients of what trains, by site; zero where the loss does not depend on a matrix.
///
/// # Errors
/// If a copy from the device fails.
pub(crate) fn adapter_gradients<M: Adaptable>(model: &M, gradients: &GradientsParams) -> Result<AdapterWeights> {
    let of = |TrainedMatrix { site, param, .. }: TrainedMatrix| {
        let gradient = match gradients.get::<2>(param.id) {
            Some(gradient) => to_array(gradient)?,
            None => Array2::zeros(param.val().dims()),
        };
        Ok((site, gradient))
    };
    trained_matrices(model).into_iter().map(of).collect()
}

/// The model with its adapter set to `weights`; every matrix that trains must be given.
///
/// # Errors
/// If a site is missing or a shape differs.
pub fn write_adapter<M: Adaptable>(mut model: M, weights: &AdapterWeights) -> Result<M> {
    change_trained(&mut model, |site, param| {
        let value =
            weights.get(&site).ok_or_else(|| Error::Incompatible(format!("weights for `{site}` are missing")))?;
        *param = set_param(param, value, &site)?;
        Ok(())
    })?;
    Ok(model)
}

/// Checks that `found` has every matrix of `expected`, in its shape.
///
/// # Errors
/// Names the first that is missing or of another shape.
pub(crate) fn check_same_shapes(what: &str, found: &AdapterWeights, expected: &AdapterWeights) -> Result<()> {
    for (site, weight) in expected {
        let other = found.get(site).ok_or_else(|| Error::Incompatible(format!("{what} has no `{site}`")))?;
        if other.dim() != weight.dim() {
            return Err(Error::Shape {
                what: format!("`{site}` of {what}"),
                expected: weight.shape().to_vec(),
                found: other.shape().to_vec(),
            });
        }
    }
    Ok(())
}

/// The scale `s` of every adapted module, by its path.
pub fn adapter_scales<M: Adaptable>(model: &M) -> BTreeMap<String, f64> {
    let adapted =
        model.linears().into_iter().filter_map(|linear| Some((linear.path.clone(), linear.adapter.as_ref()?.scale)));
    adapted.collect()
}

/// Checks that two adapters' products are scaled alike.
///
/// # Errors
/// Names the first module that differs, with both scales.
pub(crate) fn check_same_scales(
    what: &str,
    found: &BTreeMap<String, f64>,
    expected: &BTreeMap<String, f64>,
) -> Result<()> {
    for (module, scale) in expected {
        if found.get(module) != Some(scale) {
            let other = found.get(module).map_or("none".into(), f64::to_string);
            return Err(Error::config(format!("scale of `{module}` of {what}"), scale.to_string(), other));
        }
    }
    Ok(())
}

/// The model with its adapter set to `weights`, and these as the start that a prior may be centred at.
///
/// # Errors
/// As [`write_adapter`].
pub fn start_at<M: Adaptable>(model: M, weights: &AdapterWeights) -> Result<M> {
    let mut model = write_adapter(model, weights)?;
    for linear in model.linears_mut() {
        if let Some(adapter) = &mut linear.adapter {
            // without the gradients of what trains
            adapter.initial = Some([adapter.a.val().detach(), adapter.b.val().detach()]);
        }
    }
    for head in model.heads_mut() {
        head.initial = Some(head.weight.val().detach());
    }
    Ok(model)
}

fn set_param(param: &Param<Tensor<2>>, value: &Array2<f64>, site: &Site) -> Result<Param<Tensor<2>>> {
    let old = param.val();
    let found = [value.nrows(), value.ncols()];
    if old.dims() != found {
        return Err(Error::Shape { what: site.to_string(), expected: old.dims().to_vec(), found: found.to_vec() });
    }
    let tensor = from_array(value, (&old.device().without_autodiff(), old.dtype()));
    Ok(Param::initialized(param.id, tensor).set_require_grad(old.is_require_grad()))
}

/// Copies a matrix from the host.
pub(crate) fn from_array(array: &Array2<f64>, (device, dtype): (&Device, DType)) -> Tensor<2> {
    let data = TensorData::new(array.iter().copied().collect::<Vec<f64>>(), [array.nrows(), array.ncols()]);
    Tensor::from_data(data, (device, dtype))
}

/// Copies a matrix to the host in f64.
pub(crate) fn to_array(tensor: Tensor<2>) -> Result<Array2<f64>> {
    let dims = tensor.dims();
    Array2::from_shape_vec(dims, to_vec(tensor)?).map_err(|e| Error::numerical("copy of a tensor to the host", e))
}

/// Copies a tensor to the host in f64, row-major.
pub(crate) fn to_vec<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f64>> {
    tensor
        .into_data()
        .convert::<f64>()
        .try_into_vec::<f64>()
        .map_err(|e| Error::numerical("copy of a tensor to the host", format!("{e:?}")))
}
