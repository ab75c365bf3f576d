//! Models from elsewhere: the Hugging Face Hub, and GGUF files.

mod gguf;
mod hub;
mod support;
