//! Writes a model's adapter as PEFT does, with everything that its files had.

use super::WEIGHTS_FILE;
use super::config_file::write_config;
use super::tensors::{Holder, Part, Stored, stored_tensors, vocabulary_weights};
use crate::error::{Error, Result};
use crate::lora::weights::to_vec;
use crate::lora::{Adaptable, BasePart, LoraAdapter, LoraConfig, LoraLinear, PartWeight, TrainedHead};
use crate::tensor_file::write_tensors;
use burn::tensor::{DType, Tensor};
use std::collections::HashMap;
use std::path::Path;

/// What PEFT calls the task of a model with a head for classes.
const SEQUENCE_CLASSIFIER: &str = "SEQ_CLS";

/// Writes the adapter as PEFT does, with its configuration: `[r, d_in]` and `[d_out, r]` under PEFT's names, the biases and
/// whole modules that the configuration lists, and the embeddings and heads that came with the adapter though it does not.
///
/// All values are written in **f32**, whatever the file had that they came from; an f32 file comes back byte by byte. The copy
/// of a frozen head that PEFT adds is not written: it is the base's, and converters of adapters refuse it. `base_model` is the
/// name under which PEFT finds the base.
///
/// # Errors
/// If the model has no adapter, another than `config` describes, replaced parts of the base that `config` would lose, or the
/// directory cannot be written.
pub fn save_peft<M: Adaptable>(model: &M, config: &LoraConfig, base_model: &str, dir: impl AsRef<Path>) -> Result<()> {
    let dir = dir.as_ref();
    config.validate()?;
    let linears = model.linears();
    if linears.iter().all(|linear| linear.adapter.is_none()) {
        return Err(Error::empty("adapter"));
    }
    let replaced = vocabulary_weights(model).into_iter().filter(|w| config.save_embedding_layers && w.replaced);
    let stored = stored_tensors(model, config, &replaced.map(|weight| (weight.path, weight.rows)).collect())?;
    let saved = |holder| -> Vec<Part> { stored.iter().filter(|t| t.holder == holder).map(|t| t.part).collect() };
    for (index, linear) in linears.iter().enumerate() {
        check_described(config, linear, &saved(Holder::Linear(index)))?;
    }
    let parts = model.parts();
    for (index, part) in parts.iter().enumerate() {
        check_kept(&part.path, Part::Weight, part.replaced, "modules_to_save", &saved(Holder::Part(index)))?;
    }
    let heads = model.heads();
    let tensors = stored.iter().map(|tensor| {
        let values = match tensor.holder {
            Holder::Linear(index) => values(linears[index], tensor)?,
            Holder::Head(index) => head_values(heads[index], tensor.part)?,
            Holder::Part(index) => part_values(&parts[index])?,
        };
        Ok((tensor.name.clone(), tensor.shape.clone(), values))
    });
    let tensors = tensors.collect::<Result<Vec<_>>>()?;
    std::fs::create_dir_all(dir).map_err(|e| Error::io(dir, e))?;
    let metadata = HashMap::from([("format".to_string(), "pt".to_string())]);
    write_tensors(dir.join(WEIGHTS_FILE), &tensors, Some(metadata))?;
    write_config(dir, &with_heads(config, &heads), base_model)
}

/// The configuration as PEFT has it for a model with a head: a sequence classifier that saves it whole.
fn with_heads(config: &LoraConfig, heads: &[&TrainedHead]) -> LoraConfig {
    let mut config = config.clone();
    if !heads.is_empty() {
        config.task_type = Some(SEQUENCE_CLASSIFIER.into());
        let listed = config.modules_to_save.get_or_insert_default();
        listed.extend(
            heads.iter().map(|head| head.path.clone()).filter(|path| !listed.contains(path)).collect::<Vec<_>>(),
        );
    }
    config
}

fn head_values(head: &TrainedHead, part: Part) -> Result<Vec<f32>> {
    match (part, head.bias()) {
        (Part::Bias, Some(bias)) => to_f32(bias),
        _ => to_f32(head.matrix()),
    }
}

/// The tensor's values in f32, row-major as in the file.
fn values(linear: &LoraLinear, tensor: &Stored) -> Result<Vec<f32>> {
    let missing = || Error::Incompatible(format!("`{}` has no {:?} to save", linear.path, tensor.part));
    let adapter = || linear.adapter.as_ref().ok_or_else(missing);
    match tensor.part {
        Part::A => to_f32(adapter()?.a.val()),
        Part::B => to_f32(adapter()?.b.val()),
        Part::Bias => to_f32(linear.bias.as_ref().ok_or_else(missing)?.val()),
        Part::Weight => to_f32(linear.weight.val().transpose()),
        Part::FrozenWeight | Part::Original => Err(missing()),
    }
}

fn part_values(part: &BasePart) -> Result<Vec<f32>> {
    match &part.weight {
        PartWeight::Table(table) => to_f32(table.clone()),
        PartWeight::Vector(vector) => to_f32(vector.clone()),
    }
}

fn to_f32<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f32>> {
    Ok(to_vec(tensor.cast(DType::F32))?.into_iter().map(|v| v as f32).collect())
}

/// Checks that `config`, which saves these parts of a linear, describes what the linear carries and loses nothing of it.
fn check_described(config: &LoraConfig, linear: &LoraLinear, parts: &[Part]) -> Result<()> {
    let path = &linear.path;
    let differs = |reason: String| Err(Error::Incompatible(reason));
    match (&linear.adapter, parts.contains(&Part::A)) {
        (Some(_), false) => return differs(format!("`{path}` has an adapter that the configuration does not target")),
        (None, true) => return differs(format!("`{path}` has no adapter, but the configuration targets it")),
        (Some(adapter), true) => check_shape(config, path, adapter)?,
        (None, false) => {}
    }
    check_kept(path, Part::Weight, linear.replaced.weight, "modules_to_save", parts)?;
    check_kept(path, Part::Bias, linear.replaced.bias, "bias or modules_to_save", parts)?;
    if parts.contains(&Part::Weight) && linear.is_tied && !linear.replaced.weight {
        return differs(format!("`{path}` is tied to the embedding and has no weight of its own to save"));
    }
    Ok(())
}

/// Checks that what came with an adapter is among the parts that are saved.
fn check_kept(path: &str, part: Part, replaced: bool, field: &str, saved: &[Part]) -> Result<()> {
    if replaced && !saved.contains(&part) {
        return Err(Error::Incompatible(format!(
            "the {part:?} of `{path}` came with an adapter and would be lost: the configuration lacks {field}"
        )));
    }
    Ok(())
}

/// Checks that an adapter has the rank and the scale that `config` says.
fn check_shape(config: &LoraConfig, path: &str, adapter: &LoraAdapter) -> Result<()> {
    let expected = (config.rank_at(path)?, config.scale(path)?);
    let found = (adapter.a.dims()[0], adapter.scale);
    if expected == found {
        return Ok(());
    }
    Err(Error::Incompatible(format!(
        "the configuration says rank {} and scale {} at `{path}`, the adapter has rank {} and scale {}",
        expected.0, expected.1, found.0, found.1
    )))
}
