//! Encoders: networks whose tokens see each other in both directions.

mod by_layers;
mod config;
#[cfg(feature = "gguf")]
mod gguf;
mod layer;
mod load;
mod merged;
mod model;
mod modern;
mod names;

pub use config::{EncoderConfig, EncoderFamily, Pooling};
pub use load::{LoadedEncoder, PretrainedEncoder};
pub use model::Encoder;
pub use modern::ModernBert;
