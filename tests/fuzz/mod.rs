//! Foreign files, changed at random: whatever is in a file, its parser answers with a value or an error, soon, and asks for no
//! more memory than the file is worth. `docs/reference/fuzzing.md` says how to run more of it.

mod adapters;
mod beliefs;
mod checkpoints;
mod configs;
mod container;
mod generation;
#[cfg(feature = "gguf")]
mod gguf;
mod harness;
mod json;
mod models;
mod mutate;
mod posteriors;
mod tasks;
mod templates;
mod tensors;
mod texts;
mod tokenizers;

#[global_allocator]
static ALLOCATOR: crate::support::allocations::Watched = crate::support::allocations::Watched;
