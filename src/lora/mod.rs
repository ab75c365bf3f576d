//! Adapts pretrained linears by low-rank updates `W = W₀ + s·B·A`.
//!
//! ```
//! use bayes_lora::lora::LoraConfig;
//! let config = LoraConfig::new(8).with_target_modules(["q_proj", "v_proj"]);
//! assert_eq!(config.scale("model.layers.0.self_attn.q_proj")?, 2.0); // alpha / rank, alpha = 2·rank by default
//! assert!(config.targets("model.layers.0.self_attn.q_proj", false)?);
//! assert!(!config.targets("model.layers.0.self_attn.eq_proj", false)?);
//! # Ok::<(), bayes_lora::error::Error>(())
//! ```
//!
//! [`load_peft`] and [`save_peft`] read and write what PEFT 0.21 does. A posterior is about A and B, and about the head of a
//! classifier ([`TrainedHead`]): other biases and whole modules that an adapter's files bring (`bias`, `modules_to_save`, embeddings) become part
//! of the base below it.

mod attach;
mod canonical;
mod config;
mod fingerprint;
mod head;
mod linear;
mod parts;
mod pattern;
mod peft;
mod sampler;
mod stack;
mod summary;
mod targets;
mod trained;
mod weights;
mod whole_numbers;

pub use attach::{Adaptable, attach, merge};
pub use canonical::canonicalize;
pub use config::{LoraConfig, TrainedBiases};
pub(crate) use fingerprint::{ModelFingerprint, check_same_adapter, model_fingerprint};
pub use fingerprint::{adapter_fingerprint, base_fingerprint};
pub use head::TrainedHead;
pub use linear::{LoraAdapter, LoraLinear, Replaced};
pub(crate) use linear::{at_least_f32, laid_out, times_transposed};
pub use parts::{BasePart, PartWeight};
pub use peft::{SavedDraws, load_peft, save_draws, save_peft, saved_head};
pub use sampler::AdapterSampler;
pub(crate) use stack::AdapterStack;
pub use summary::{AdapterSummary, summarize};
pub use targets::{OneOrMany, TargetModules};
pub(crate) use trained::trained_matrices;
pub use weights::{
    AdapterWeights, adapter_scales, initial_weights, prior_centre, read_adapter, start_at, write_adapter,
};
pub(crate) use weights::{adapter_gradients, check_same_scales, check_same_shapes, from_array, to_array, to_vec};
