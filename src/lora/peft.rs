//! Reads and writes adapters in PEFT's files: `adapter_config.json` and `adapter_model.safetensors`.

use super::attach::{Adaptable, adapter_dtype, check_targets, new_adapter};
use super::weights::to_vec;
use super::{LoraAdapter, LoraConfig, TargetModules};
use crate::atomic_file::write_atomic;
use crate::error::{Error, Result};
use crate::tensor_file::{TensorFile, write_matrices};
use burn::tensor::DType;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::Path;

const CONFIG_FILE: &str = "adapter_config.json";
const WEIGHTS_FILE: &str = "adapter_model.safetensors";
/// What PEFT puts before a module's path.
const PREFIX: &str = "base_model.model.";

/// Config fields with the values that change nothing; any other value of these is refused by name.
fn neutral_fields() -> [(&'static str, &'static [Value]); 12] {
    const NULL: &[Value] = &[Value::Null];
    const OFF: &[Value] = &[Value::Null, Value::Bool(false)];
    [
        ("use_dora", OFF),
        ("use_qalora", OFF),
        ("fan_in_fan_out", OFF),
        ("lora_bias", OFF),
        ("modules_to_save", NULL),
        ("layers_to_transform", NULL),
        ("layer_replication", NULL),
        ("trainable_token_indices", NULL),
        ("target_parameters", NULL),
        ("alora_invocation_tokens", NULL),
        ("eva_config", NULL),
        ("monteclora_config", NULL),
    ]
}

/// Reads PEFT's configuration and attaches the saved A and B to `model`.
///
/// # Errors
/// If a file is missing or malformed, the adapter uses a feature that is not supported (named), a tensor is missing,
/// unexpected or of another shape, or a target matches nothing.
pub fn load_peft<M: Adaptable>(model: M, dir: impl AsRef<Path>) -> Result<(M, LoraConfig)> {
    let dir = dir.as_ref();
    let config = read_config(&dir.join(CONFIG_FILE))?;
    check_targets(&model, &config)?;
    let mut file = TensorFile::open(dir.join(WEIGHTS_FILE))?;
    let mut unexpected: std::collections::BTreeSet<String> = file.names().into_iter().collect();
    let mut model = model.no_grad();
    for linear in model.linears_mut() {
        if !config.targets(&linear.path, linear.is_head)? {
            continue;
        }
        let rank = config.rank_at(&linear.path);
        let (device, dtype) = (linear.weight.val().device(), adapter_dtype(linear));
        let mut read = |matrix: &str, shape: [usize; 2]| {
            let name = format!("{PREFIX}{}.{matrix}.weight", linear.path);
            unexpected.remove(&name);
            file.read(&name, shape, dtype, &device)
        };
        let a = read("lora_A", [rank, linear.d_in()])?;
        let b = read("lora_B", [linear.d_out(), rank])?;
        linear.adapter = Some(new_adapter(a, b, &config, &linear.path, None));
    }
    if let Some(name) = unexpected.first() {
        return Err(Error::format(
            dir.join(WEIGHTS_FILE).display(),
            format!(
                "{} tensors belong to no targeted module, the first is `{name}` {:?}",
                unexpected.len(),
                file.shape(name).unwrap_or_default()
            ),
        ));
    }
    Ok((model, config))
}

fn read_config(path: &Path) -> Result<LoraConfig> {
    let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, e))?;
    let value: Value = serde_json::from_str(&text).map_err(|e| Error::format(path.display(), e))?;
    let unsupported = |field: &str, found: &Value, supported: &str| Error::Unsupported {
        what: format!("{}: field `{field}` =", path.display()),
        found: found.to_string(),
        supported: supported.into(),
    };
    if let Some(kind) = value.get("peft_type").filter(|k| *k != "LORA") {
        return Err(unsupported("peft_type", kind, "LORA"));
    }
    if let Some(bias) = value.get("bias").filter(|b| *b != "none" && !b.is_null()) {
        return Err(unsupported("bias", bias, "none"));
    }
    for (field, neutral) in neutral_fields() {
        if let Some(found) = value.get(field).filter(|v| !neutral.contains(v)) {
            return Err(unsupported(field, found, "unset"));
        }
    }
    let config: LoraConfig = serde_json::from_value(value).map_err(|e| Error::format(path.display(), e))?;
    config.validate()?;
    Ok(config)
}

/// Checks that a module's adapter has the rank and the scale that `config` says.
fn check_described(config: &LoraConfig, path: &str, adapter: &LoraAdapter) -> Result<()> {
    let expected = (config.rank_at(path), config.scale(path));
    let found = (adapter.a.dims()[0], adapter.scale);
    if expected == found {
        return Ok(());
    }
    Err(Error::Incompatible(format!(
        "the configuration says rank {} and scale {} at `{path}`, the adapter has rank {} and scale {}",
        expected.0, expected.1, found.0, found.1
    )))
}

/// Writes the adapter as PEFT does: `[r, d_in]` and `[d_out, r]` in f32 under PEFT's names, with its configuration.
///
/// # Errors
/// If the model has no adapter, another than `config` describes, or the directory cannot be written.
pub fn save_peft<M: Adaptable>(model: &M, config: &LoraConfig, base_model: &str, dir: impl AsRef<Path>) -> Result<()> {
    let dir = dir.as_ref();
    let mut matrices = Vec::new();
    for linear in model.linears() {
        let Some(adapter) = &linear.adapter else { continue };
        check_described(config, &linear.path, adapter)?;
        for (matrix, tensor) in [("lora_A", adapter.a.val()), ("lora_B", adapter.b.val())] {
            let shape = tensor.dims();
            let values = to_vec(tensor.cast(DType::F32))?.into_iter().map(|v| v as f32).collect();
            matrices.push((format!("{PREFIX}{}.{matrix}.weight", linear.path), shape, values));
        }
    }
    if matrices.is_empty() {
        return Err(Error::empty("adapter"));
    }
    std::fs::create_dir_all(dir).map_err(|e| Error::io(dir, e))?;
    let metadata = HashMap::from([("format".to_string(), "pt".to_string())]);
    write_matrices(dir.join(WEIGHTS_FILE), &matrices, Some(metadata))?;
    let targets = match &config.target_modules {
        TargetModules::Names(names) => json!(names),
        TargetModules::Pattern(pattern) => json!(pattern),
    };
    let content = json!({
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": base_model,
        "r": config.rank, "lora_alpha": config.alpha, "lora_dropout": config.dropout,
        "target_modules": targets, "exclude_modules": config.exclude_modules,
        "use_rslora": config.use_rslora, "rank_pattern": config.rank_pattern,
        "alpha_pattern": config.alpha_pattern, "bias": "none", "fan_in_fan_out": false,
        "inference_mode": true, "init_lora_weights": true, "use_dora": false,
    });
    let text = serde_json::to_vec_pretty(&content).map_err(|e| Error::format(dir.display(), e))?;
    write_atomic(dir.join(CONFIG_FILE), &text)
}
