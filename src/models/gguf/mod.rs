//! Reads a GGUF file as the checkpoint of a decoder: its metadata as a configuration, its tensors under the names, in the row order
//! and with the gains of Hugging Face.

mod config;
mod rope;
mod weights;

pub(super) use config::config;
pub(super) use weights::Weights;
