//! The program `bayes-lora`, as a user runs it: on the model and the questions that ship with the crate, in processes that are killed,
//! interrupted and started again.

mod comparing;
mod fields;
#[cfg(feature = "gguf")]
mod gguf;
mod heads;
mod inspecting;
mod kinds;
mod predicting;
mod program;
mod refusals;
mod shards;
mod texts;
mod training;
