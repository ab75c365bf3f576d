//! Reads and writes adapters in PEFT's files: `adapter_config.json` and `adapter_model.safetensors`, as PEFT 0.21 does.
//!
//! | field | what happens |
//! |---|---|
//! | `r`, `lora_alpha`, `use_rslora`, `rank_pattern`, `alpha_pattern`, `lora_dropout` | read and written |
//! | `target_modules`, `exclude_modules`, `layers_to_transform`, `layers_pattern` | PEFT's rules, read and written |
//! | `bias`, `modules_to_save` | the tensors take the place of the model's own (linears, embeddings, norms), and are written again |
//! | `ensure_weight_tying` | a tied head and its embedding are trained as one; otherwise each stands for itself |
//! | `fan_in_fan_out` | kept: A and B mean the same either way; refused together with `modules_to_save` |
//! | `task_type`, `auto_mapping` | kept |
//! | `init_lora_weights` | starts that leave the base as it is are read, those that change it (PiSSA, OLoRA, CorDA, LoftQ, LoRA-GA) refused |
//! | names, versions, modes, settings of starts | no effect on a trained adapter: not read |
//! | DoRA, MonteCLoRA and every other feature, unknown fields | refused by name, unless unset |
//!
//! Embeddings and heads that PEFT saved by itself, because they were resized or adapted, are read whether the configuration mentions
//! them or not. Patterns have the syntax of Python's `re`.

mod config_file;
mod draws;
mod find;
mod read;
mod rounding;
mod tensors;
mod write;

pub use draws::{SavedDraws, save_draws};
pub use read::{load_peft, saved_head};
pub use write::save_peft;

const WEIGHTS_FILE: &str = "adapter_model.safetensors";
