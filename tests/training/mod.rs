//! Training on small models, alone and as the first half of the whole path.

mod configuration;
mod own_module;
mod pipeline;
mod streams;
mod trainer;
