//! Flags that several commands share: the same name means the same everywhere.

mod adapter;
mod items;
mod posterior;
mod prediction;
mod questions;
mod shard;
mod training;

pub use adapter::AdapterArguments;
pub use items::ItemArguments;
pub use posterior::PosteriorArguments;
pub use prediction::PredictionArguments;
pub use questions::QuestionArguments;
pub use shard::Shard;
pub use training::TrainingArguments;
