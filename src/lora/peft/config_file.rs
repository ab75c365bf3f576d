//! Reads and writes `adapter_config.json` with every field accounted for: what is neither read nor known to change nothing is
//! refused by name.

use crate::atomic_file::write_atomic;
use crate::error::{Error, Result};
use crate::lora::LoraConfig;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

const FILE: &str = "adapter_config.json";
/// Longest configuration that is read.
const MAX_CONFIG_BYTES: u64 = 16 << 20;
/// The method that these files hold.
const LORA: &str = "LORA";

/// What [`LoraConfig`] holds.
const READ: [&str; 16] = [
    "alpha_pattern",
    "auto_mapping",
    "bias",
    "ensure_weight_tying",
    "exclude_modules",
    "fan_in_fan_out",
    "layers_pattern",
    "layers_to_transform",
    "lora_alpha",
    "lora_dropout",
    "modules_to_save",
    "r",
    "rank_pattern",
    "target_modules",
    "task_type",
    "use_rslora",
];

/// What says nothing about the function that a trained adapter computes. `megatron_core`, `qalora_group_size` and
/// `runtime_config` belong to features that have a field of their own among [`features`] or to training; the four settings of
/// starts mean nothing without their start, which `init_lora_weights` names.
const INFORMATION: [&str; 13] = [
    "base_model_name_or_path",
    "corda_config",
    "eva_config",
    "inference_mode",
    "init_lora_weights",
    "loftq_config",
    "lora_ga_config",
    "megatron_core",
    "peft_type",
    "peft_version",
    "qalora_group_size",
    "revision",
    "runtime_config",
];

/// What would change that function and is not computed here, with its name and the value that PEFT writes where it is off.
fn features() -> [(&'static str, &'static str, Value); 13] {
    [
        ("alora_invocation_tokens", "activated LoRA", Value::Null),
        ("arrow_config", "Arrow routing", Value::Null),
        ("kasa_config", "KaSA", Value::Null),
        ("layer_replication", "replicated layers", Value::Null),
        ("lora_bias", "a bias of B", json!(false)),
        ("megatron_config", "Megatron", Value::Null),
        ("monteclora_config", "MonteCLoRA", Value::Null),
        ("target_parameters", "adapted parameters that are no modules", Value::Null),
        ("trainable_token_indices", "trainable tokens", Value::Null),
        ("use_bdlora", "block-diagonal LoRA", Value::Null),
        ("use_dora", "DoRA", json!(false)),
        ("use_qalora", "QALoRA", json!(false)),
        ("velora_config", "VeLoRA", Value::Null),
    ]
}

/// Starts that leave the base as it is: `reset_lora_parameters`, `orthogonal_init`, `mica_init` and EVA's set A and B alone.
const PLAIN_STARTS: [&str; 4] = ["gaussian", "orthogonal", "eva", "mica"];

/// True unless A and B are about another base than the one on disk: `pissa_init`, `olora_init`, `corda_init`, `loftq_init` and
/// `lora_ga_init` take their start out of the base's weight.
fn is_plain_start(start: &Value) -> bool {
    match start {
        Value::Null | Value::Bool(_) => true,
        // PEFT reads this one in any case of letters
        Value::String(start) => PLAIN_STARTS.contains(&start.as_str()) || start.eq_ignore_ascii_case("gaussian"),
        _ => false,
    }
}

/// What to do about a start that changed the base.
fn plain_starts() -> String {
    format!(
        "true, false, {}; PEFT makes such an adapter of one that changed its base, by save_pretrained with \
         path_initial_model_for_weight_conversion",
        PLAIN_STARTS.join(", ")
    )
}

/// Null, false and what is empty.
fn is_off(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::String(text) => text.is_empty(),
        _ => false,
    }
}

/// Reads the configuration in `dir`.
///
/// # Errors
/// If it is missing, too long or malformed, has a field of another type or out of bounds, or asks for what is not computed.
pub(super) fn read_config(dir: &Path) -> Result<LoraConfig> {
    let path = dir.join(FILE);
    let mut text = String::new();
    let file = std::fs::File::open(&path).map_err(|e| Error::io(&path, e))?;
    file.take(MAX_CONFIG_BYTES + 1).read_to_string(&mut text).map_err(|e| Error::io(&path, e))?;
    if text.len() as u64 > MAX_CONFIG_BYTES {
        let reason = format!("a configuration of more than {MAX_CONFIG_BYTES} bytes is not read");
        return Err(Error::format(path.display(), reason));
    }
    let mut fields: Map<String, Value> = serde_json::from_str(&text).map_err(|e| Error::format(path.display(), e))?;
    check_fields(&fields, &path)?;
    // PEFT writes null for what is unset
    fields.retain(|field, value| READ.contains(&field.as_str()) && !value.is_null());
    let config: LoraConfig =
        serde_json::from_value(fields.clone().into()).map_err(|e| Error::format(wrong_field(&fields, &path), e))?;
    config.validate().map_err(|error| in_config(dir, error))?;
    Ok(config)
}

/// Names the file that a wrong setting is in.
pub(super) fn in_config(dir: &Path, error: Error) -> Error {
    match error {
        Error::Config { .. } => Error::format(dir.join(FILE).display(), error),
        other => other,
    }
}

fn check_fields(fields: &Map<String, Value>, path: &Path) -> Result<()> {
    let unsupported = |what: String, found: &Value, supported: &str| Error::Unsupported {
        what: format!("{}: field {what} =", path.display()),
        found: found.to_string(),
        supported: supported.into(),
    };
    if let Some(kind) = fields.get("peft_type").filter(|kind| **kind != LORA) {
        return Err(unsupported("`peft_type`".into(), kind, LORA));
    }
    if let Some(start) = fields.get("init_lora_weights").filter(|start| !is_plain_start(start)) {
        return Err(unsupported("`init_lora_weights`".into(), start, &plain_starts()));
    }
    for (field, value) in fields {
        let known = READ.contains(&field.as_str()) || INFORMATION.contains(&field.as_str());
        if known || is_off(value) {
            continue;
        }
        let feature = features().into_iter().find(|(name, ..)| name == field);
        let feature = feature.map_or("unknown to PEFT 0.21", |(_, feature, _)| feature);
        return Err(unsupported(format!("`{field}` ({feature})"), value, "unset"));
    }
    Ok(())
}

/// Names the field that serde could not read: the one that spoils a configuration that is right without it.
fn wrong_field(fields: &Map<String, Value>, path: &Path) -> String {
    let spoils = |field: &String, value: &Value| {
        let right = json!({"r": 1, "lora_alpha": 1, "target_modules": ["a"]});
        let mut fields = right.as_object().cloned().unwrap_or_default();
        fields.insert(field.clone(), value.clone());
        serde_json::from_value::<LoraConfig>(fields.into()).is_err()
    };
    match fields.iter().find(|(field, value)| spoils(field, value)) {
        Some((field, value)) => format!("{}: field `{field}` = {value}", path.display()),
        None => path.display().to_string(),
    }
}

/// Writes every field that PEFT 0.21 writes, sorted as there.
///
/// # Errors
/// If the directory cannot be written.
pub(super) fn write_config(dir: &Path, config: &LoraConfig, base_model: &str) -> Result<()> {
    let path = dir.join(FILE);
    let malformed = |e: serde_json::Error| Error::format(path.display(), e);
    let mut own: BTreeMap<String, Value> =
        serde_json::to_value(config).and_then(serde_json::from_value).map_err(malformed)?;
    own.retain(|field, _| READ.contains(&field.as_str()));
    let information = [
        ("base_model_name_or_path", json!(base_model)),
        ("corda_config", Value::Null),
        ("eva_config", Value::Null),
        ("inference_mode", json!(true)),
        ("init_lora_weights", json!(true)),
        ("loftq_config", json!({})),
        ("lora_ga_config", Value::Null),
        ("megatron_core", json!("megatron.core")),
        ("peft_type", json!(LORA)),
        ("peft_version", Value::Null),
        ("qalora_group_size", json!(16)),
        ("revision", Value::Null),
    ];
    let off = features().map(|(field, _, off)| (field, off));
    let fixed = information.into_iter().chain(off).map(|(field, value)| (field.to_string(), value));
    let all: BTreeMap<String, Value> = fixed.chain(own).collect();
    write_atomic(&path, &serde_json::to_vec_pretty(&all).map_err(malformed)?)
}
