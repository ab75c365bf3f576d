//! Puts an adapter's files onto a model, completely or not at all.

use super::WEIGHTS_FILE;
use super::config_file::read_config;
use super::tensors::{Key, Part, Stored, parse, stored_tensors};
use crate::error::{Error, Result};
use crate::lora::attach::{adapter_dtype, check_any_target, new_adapter};
use crate::lora::linear::at_least_f32;
use crate::lora::weights::to_vec;
use crate::lora::{Adaptable, LoraConfig, LoraLinear, Replaced};
use crate::tensor_file::TensorFile;
use burn::module::Param;
use burn::tensor::Tensor;
use std::collections::BTreeMap;
use std::path::Path;

/// How many tensors of a kind an error lists; the rest are counted.
const MAX_LISTED: usize = 16;
/// Relative rounding of bf16, the coarsest element type that a frozen weight may have been saved in, twice over.
const COPY_RELATIVE: f64 = 1.0 / 256.0;
/// Absolute rounding of f16 where it is denormal.
const COPY_ABSOLUTE: f64 = 1.0 / 16_777_216.0;

/// Reads PEFT's configuration and attaches the saved A and B to `model`.
///
/// Names may lack PEFT's prefix `base_model.model.` or carry the adapter's name (`lora_A.default.weight`); values may be f64,
/// f32, f16 or bf16 and are held in f32 (in f64 on an f64 base).
///
/// **Biases and modules trained whole** (`bias`, `modules_to_save`) take the place of the model's own, in its element type.
/// They are weights of the network but not of the adapter: no posterior covers them, no training moves them, and [`save_peft`]
/// writes them again. A head that is tied to the embedding is untied by a weight of its own, as in PEFT. Where the head is
/// adapted, PEFT also saves a copy of its frozen weight: it is compared with the model's and left.
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
    let config = read_config(dir)?;
    check_bare(&model)?;
    check_any_target(&model, &config)?;
    let mut file = TensorFile::open(dir.join(WEIGHTS_FILE))?;
    let found = find(&file, stored_tensors(&model, &config)?, dir)?;
    let mut model = model.no_grad();
    let mut linears = model.linears_mut();
    for (linear, name) in &found.frozen {
        check_frozen(&mut file, name, linears[*linear])?;
    }
    let mut a_matrix = None;
    for (tensor, name) in found.tensors {
        let linear = &mut *linears[tensor.linear];
        let (device, dtype) = (linear.weight.val().device(), linear.weight.val().dtype());
        match (tensor.part, tensor.shape.as_slice()) {
            (Part::A, &[rank, d_in]) => {
                a_matrix = Some(file.read(&name, [rank, d_in], adapter_dtype(linear), &device)?)
            }
            (Part::B, &[d_out, rank]) => {
                let b = file.read(&name, [d_out, rank], adapter_dtype(linear), &device)?;
                let adapter = a_matrix.take().map(|a| new_adapter(a, b, &config, &linear.path, None));
                linear.adapter = adapter;
            }
            (Part::Bias, &[d_out]) => {
                linear.bias =
                    Some(Param::from_tensor(file.read(&name, [d_out], dtype, &device)?).set_require_grad(false));
                linear.replaced.bias = true;
            }
            (_, shape) => {
                // laid out anew, because products of transposed views are slower
                let weight: Tensor<2> = file.read(&name, [shape[0], shape[1]], dtype, &device)?;
                let weight = Tensor::from_data(weight.transpose().into_data(), (&device, dtype));
                linear.weight = Param::from_tensor(weight).set_require_grad(false);
                linear.replaced.weight = true;
                linear.is_tied = false;
            }
        }
    }
    Ok((model, config))
}

/// An adapter may replace parts of the base, so that what was below the one before is gone.
fn check_bare<M: Adaptable>(model: &M) -> Result<()> {
    let occupied = |l: &&LoraLinear| l.adapter.is_some() || l.replaced != Replaced::default();
    match model.linears().into_iter().find(occupied) {
        None => Ok(()),
        Some(linear) => Err(Error::Incompatible(format!(
            "module `{}` already has an adapter: load every adapter onto a clone of the base",
            linear.path
        ))),
    }
}

/// Which tensor of the file is which.
struct Found {
    /// With the name in this file.
    tensors: Vec<(Stored, String)>,
    /// Linear and name of copies of frozen weights.
    frozen: Vec<(usize, String)>,
}

/// Pairs the tensors that belong to the adapter with those in the file.
///
/// # Errors
/// Lists what is missing, unexpected or of another shape; names two tensors that are the same.
fn find(file: &TensorFile, expected: Vec<Stored>, dir: &Path) -> Result<Found> {
    let location = dir.join(WEIGHTS_FILE);
    let shape = |name: &str| file.shape(name).unwrap_or_default();
    let (mut in_file, mut unexpected) = (BTreeMap::<Key, String>::new(), Vec::new());
    for name in file.names() {
        let Some(key) = parse(&name) else {
            unexpected.push(format!("{name} {:?}", shape(&name)));
            continue;
        };
        if let Some(first) = in_file.insert(key, name.clone()) {
            let reason = format!("`{first}` and `{name}` are the same tensor: one adapter a file");
            return Err(Error::format(location.display(), reason));
        }
    }
    let (mut missing, mut misshapen) = (Vec::new(), Vec::new());
    let mut found = Found { tensors: Vec::new(), frozen: Vec::new() };
    for tensor in expected {
        if tensor.part == Part::A
            && let Some(name) = in_file.remove(&(tensor.path.clone(), Part::FrozenWeight))
        {
            found.frozen.push((tensor.linear, name));
        }
        match in_file.remove(&(tensor.path.clone(), tensor.part)) {
            None => missing.push(format!("{} {:?}", tensor.name, tensor.shape)),
            Some(name) if shape(&name) != tensor.shape => {
                misshapen.push(format!("{name} expected {:?}, found {:?}", tensor.shape, shape(&name)));
            }
            Some(name) => found.tensors.push((tensor, name)),
        }
    }
    unexpected.extend(in_file.values().map(|name| format!("{name} {:?}", shape(name))));
    let kinds = [("missing", missing), ("unexpected", unexpected), ("of another shape", misshapen)];
    let listed: Vec<String> = kinds.iter().filter(|(_, names)| !names.is_empty()).map(list).collect();
    if listed.is_empty() {
        return Ok(found);
    }
    let reason = format!("the tensors are not those of the configuration on this model; {}", listed.join("; "));
    Err(Error::format(location.display(), reason))
}

fn list((kind, names): &(&str, Vec<String>)) -> String {
    let shown = names[..names.len().min(MAX_LISTED)].join(", ");
    match names.len().saturating_sub(MAX_LISTED) {
        0 => format!("{} {kind}: {shown}", names.len()),
        rest => format!("{} {kind}: {shown} and {rest} more", names.len()),
    }
}

/// Compares a saved copy of a frozen weight with the model's, up to the rounding of half precision.
fn check_frozen(file: &mut TensorFile, name: &str, linear: &LoraLinear) -> Result<()> {
    let own = linear.weight.val();
    let dtype = at_least_f32(own.dtype());
    let own = own.cast(dtype).transpose();
    let copy = file.read(name, own.dims(), dtype, &own.device())?;
    let allowed = own.clone().abs().mul_scalar(COPY_RELATIVE).add_scalar(COPY_ABSOLUTE);
    let excess = (copy - own).abs() - allowed;
    match to_vec(excess.max())?.first() {
        Some(excess) if *excess <= 0.0 => Ok(()),
        excess => Err(Error::Incompatible(format!(
            "`{name}` differs from this model's weight by {:e} more than half precision rounds: the adapter was trained on \
             another base",
            excess.copied().unwrap_or(f64::NAN)
        ))),
    }
}
