//! Encoders: networks whose tokens see each other in both directions, of the BERT family.

mod config;
mod layer;
mod load;
mod model;

pub use config::{EncoderConfig, Pooling};
pub use load::{LoadedEncoder, PretrainedEncoder};
pub use model::Encoder;
