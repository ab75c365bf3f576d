//! Reads and writes adapters in PEFT's files: `adapter_config.json` and `adapter_model.safetensors`, as PEFT 0.21 does.
//!
//! | field | what happens |
//! |---|---|
//! | `r`, `lora_alpha`, `use_rslora`, `rank_pattern`, `alpha_pattern`, `lora_dropout` | read and written |
//! | `target_modules`, `exclude_modules`, `layers_to_transform`, `layers_pattern` | PEFT's rules, read and written |
//! | `bias`, `modules_to_save` | the tensors take the place of the base's linears' own, and are written again |
//! | `fan_in_fan_out` | kept: A and B mean the same either way; refused together with `modules_to_save` |
//! | `task_type` | kept |
//! | names, versions, modes, plain initialisations | no effect on a trained adapter: not read |
//! | DoRA, MonteCLoRA and every other feature, unknown fields | refused by name, unless unset |

mod config_file;
mod read;
mod tensors;
mod write;

pub use read::load_peft;
pub use write::save_peft;

const WEIGHTS_FILE: &str = "adapter_model.safetensors";
