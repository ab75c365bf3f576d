//! Puts an adapter's files onto a model, completely or not at all.

use super::WEIGHTS_FILE;
use super::config_file::{in_config, read_config};
use super::find::{Found, Names};
use super::rounding::excess;
use super::tensors::{Holder, Part, Stored, keeps_tie};
use crate::error::{Error, Result};
use crate::lora::attach::{adapter_dtype, check_any_target, new_adapter};
use crate::lora::linear::{at_least_f32, laid_out};
use crate::lora::{Adaptable, BasePart, LoraConfig, LoraLinear, PartWeight, Replaced};
use crate::tensor_file::TensorFile;
use burn::module::Param;
use burn::tensor::Tensor;
use std::path::Path;

/// The head for classes or rewards that an adapter's files bring: its path, and its number of outputs.
///
/// # Errors
/// If the file of the adapter's tensors is missing or malformed.
pub fn saved_head(dir: impl AsRef<Path>) -> Result<Option<(String, usize)>> {
    let dir = dir.as_ref();
    let names = Names::of(&TensorFile::open(dir.join(WEIGHTS_FILE))?, dir)?;
    Ok(names.sequence_head().map(|(path, n)| (path.to_string(), n)))
}

/// Reads PEFT's configuration and attaches the saved A and B to `model`.
///
/// Names may lack PEFT's prefix `base_model.model.` or carry the adapter's name (`lora_A.default.weight`); values may be f64,
/// f32, f16 or bf16 and are held in f32 (in f64 on an f64 base). An adapter of transformers' `AutoModel`, whose paths begin inside
/// `model`, is put there ([`LoraConfig::root`]).
///
/// **Biases and modules trained whole** (`bias`, `modules_to_save`: linears, embeddings, norms) take the place of the model's own,
/// in its element type. They are weights of the network but not of the adapter: no posterior covers them, no training moves them,
/// and [`save_peft`] writes them again. A head that is tied to the embedding is untied where one of the two is trained whole, as in
/// PEFT: the other keeps the base's weight, unless the configuration says `ensure_weight_tying`.
///
/// **Embeddings and heads that PEFT saved by itself**, because they were resized or on request, are dropped where they are the
/// model's own up to the rounding of either, and take its place otherwise, with as many rows as they have; a tied head stays tied.
/// Where the head is adapted, PEFT saves a copy of its frozen weight: it must be the model's own and is left.
///
/// **Several adapters on one base**: load each onto a clone of the base, whose tensors clones share.
///
/// [`save_peft`]: crate::lora::save_peft
///
/// # Errors
/// If a file is missing or malformed, the adapter uses a feature that is not supported (named), no module is targeted, the
/// model has an adapter already, the adapter was trained on another head, or tensors are missing, unexpected or of another
/// shape (listed with their shapes).
pub fn load_peft<M: Adaptable>(model: M, dir: impl AsRef<Path>) -> Result<(M, LoraConfig)> {
    let dir = dir.as_ref();
    let mut config = read_config(dir)?;
    check_bare(&model)?;
    let mut file = TensorFile::open(dir.join(WEIGHTS_FILE))?;
    let names = Names::of(&file, dir)?;
    config.root = names.root(&model);
    let found = check_any_target(&model, &config).and_then(|()| names.find(&model, &config));
    let Found { tensors, frozen } = found.map_err(|error| in_config(dir, error))?;

    let mut model = model.no_grad();
    let linears = model.linears();
    for (linear, name) in &frozen {
        check_frozen(&mut file, name, linears[*linear])?;
    }
    let (of_parts, of_linears): (Vec<_>, Vec<_>) =
        tensors.into_iter().partition(|(tensor, _)| matches!(tensor.holder, Holder::Part(_)));
    let keeps_tie = keeps_tie(&model, &config);
    let table = replace_parts(&mut model, &mut file, &of_parts)?;
    config.save_embedding_layers = table.is_some() && of_parts.iter().any(|(tensor, _)| tensor.unlisted);
    let mut linears = model.linears_mut();
    for head in linears.iter_mut().filter(|linear| linear.is_tied) {
        match &table {
            Some(table) if keeps_tie => head.weight = frozen_param(table.clone().transpose()),
            _ if keeps_tie => {}
            // the base's weight is the head's own from here on
            _ => (head.weight, head.is_tied) = (frozen_param(laid_out(head.weight.val())), false),
        }
    }
    let mut a_matrix = None;
    let (of_heads, of_linears): (Vec<_>, Vec<_>) =
        of_linears.into_iter().partition(|(tensor, _)| matches!(tensor.holder, Holder::Head(_)));
    for (tensor, name) in of_linears {
        let Holder::Linear(index) = tensor.holder else { continue };
        let linear = &mut *linears[index];
        let (device, dtype) = (linear.weight.val().device(), linear.weight.val().dtype());
        match (tensor.part, tensor.shape.as_slice()) {
            (Part::A, &[rank, d_in]) => {
                a_matrix = Some(file.read(&name, [rank, d_in], adapter_dtype(linear), &device)?)
            }
            (Part::B, &[d_out, rank]) => {
                let b = file.read(&name, [d_out, rank], adapter_dtype(linear), &device)?;
                let adapter = a_matrix.take().map(|a| new_adapter(a, b, &config, &linear.path, None));
                linear.adapter = adapter.transpose()?;
            }
            (Part::Bias, &[d_out]) => {
                linear.bias = Some(frozen_param(file.read(&name, [d_out], dtype, &device)?));
                linear.replaced.bias = true;
            }
            (_, shape) => {
                let weight = file.read(&name, [shape[0], shape[1]], at_least_f32(dtype), &device)?;
                replace_weight(linear, weight, &tensor, &name, table.is_some())?;
                config.save_embedding_layers |= tensor.unlisted && linear.replaced.weight;
            }
        }
    }
    replace_heads(&mut model, &mut file, &of_heads)?;
    Ok((model, config))
}

/// Puts heads that were trained with an adapter in the place of the model's own, whose start is then unknown.
fn replace_heads<M: Adaptable>(model: &mut M, file: &mut TensorFile, tensors: &[(Stored, String)]) -> Result<()> {
    for (index, head) in model.heads_mut().into_iter().enumerate() {
        let of = |wanted| tensors.iter().find(|(t, _)| t.holder == Holder::Head(index) && t.part == wanted);
        let (device, dtype) = (head.weight.val().device(), head.weight.val().dtype());
        let (d_out, d_in) = (head.d_out(), head.d_in());
        let Some((_, name)) = of(Part::Weight) else { continue };
        let weight = file.read(name, [d_out, d_in], dtype, &device)?;
        let bias = of(Part::Bias).map(|(_, name)| file.read(name, [d_out], dtype, &device)).transpose()?;
        head.replace(weight, bias)?;
    }
    Ok(())
}

/// An adapter may replace parts of the base, so that what was below the one before is gone.
fn check_bare<M: Adaptable>(model: &M) -> Result<()> {
    let occupied = |l: &&LoraLinear| l.adapter.is_some() || l.replaced != Replaced::default();
    let linear = model.linears().into_iter().find(occupied).map(|linear| linear.path.clone());
    match linear.or_else(|| model.parts().into_iter().find(|part| part.replaced).map(|part| part.path)) {
        None => Ok(()),
        Some(path) => Err(Error::Incompatible(format!(
            "module `{path}` already has an adapter: load every adapter onto a clone of the base"
        ))),
    }
}

fn frozen_param<const D: usize>(tensor: Tensor<D>) -> Param<Tensor<D>> {
    Param::from_tensor(tensor).set_require_grad(false)
}

/// Puts embeddings and norms in the place of the model's own; returns the new table, if there is one.
fn replace_parts<M: Adaptable>(
    model: &mut M,
    file: &mut TensorFile,
    tensors: &[(Stored, String)],
) -> Result<Option<Tensor<2>>> {
    let (own_parts, mut new_table) = (model.parts(), None);
    for (tensor, name) in tensors {
        let Holder::Part(index) = tensor.holder else { continue };
        let BasePart { path, weight: own, .. } = &own_parts[index];
        let weight = match (own, tensor.shape.as_slice()) {
            (PartWeight::Table(own), &[rows, width]) => {
                let table = file.read(name, [rows, width], at_least_f32(own.dtype()), &own.device())?;
                if tensor.unlisted && own.dims() == table.dims() && excess(table.clone(), own.clone())? <= 0.0 {
                    continue;
                }
                let table = table.cast(own.dtype());
                new_table = Some(table.clone());
                PartWeight::Table(table)
            }
            (PartWeight::Vector(own), &[width]) => {
                PartWeight::Vector(file.read(name, [width], own.dtype(), &own.device())?)
            }
            (own, shape) => {
                return Err(Error::Shape { what: name.clone(), expected: own.shape(), found: shape.to_vec() });
            }
        };
        if !model.set_part(BasePart { path: path.clone(), weight, replaced: true }) {
            let reason = format!("the model lists `{path}` among its parts and does not take `{name}` in its place");
            return Err(Error::Incompatible(reason));
        }
    }
    Ok(new_table)
}

/// Puts a weight that was trained whole, `[d_out, d_in]`, in the place of a linear's own.
fn replace_weight(
    linear: &mut LoraLinear,
    weight: Tensor<2>,
    tensor: &Stored,
    name: &str,
    has_table: bool,
) -> Result<()> {
    let (own, dtype) = (linear.weight.val().transpose(), linear.weight.val().dtype());
    if linear.is_tied {
        let excess = excess(weight, own)?;
        if excess > 0.0 {
            return Err(Error::Incompatible(format!(
                "`{name}` differs by {excess:e} more than rounding explains from the embedding that it is tied to"
            )));
        }
        linear.replaced.weight = has_table;
        return Ok(());
    }
    if tensor.unlisted && own.dims() == weight.dims() && excess(weight.clone(), own)? <= 0.0 {
        return Ok(());
    }
    linear.weight = frozen_param(laid_out(weight.cast(dtype).transpose()));
    linear.replaced.weight = true;
    Ok(())
}

/// Compares a saved copy of a frozen weight with the model's, up to the rounding of either.
fn check_frozen(file: &mut TensorFile, name: &str, linear: &LoraLinear) -> Result<()> {
    let own = linear.weight.val().transpose();
    let copy = file.read(name, own.dims(), at_least_f32(own.dtype()), &own.device())?;
    let excess = excess(copy, own)?;
    if excess <= 0.0 {
        return Ok(());
    }
    Err(Error::Incompatible(format!(
        "`{name}` differs from this model's weight by {excess:e} more than rounding explains: the adapter was trained on another \
         base"
    )))
}
