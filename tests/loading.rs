//! Models and adapters from files: what is read is what others compute, and what is wrong is refused by its name.

mod adapters;
mod bases;
mod encoders;
mod errors;
mod models;
mod peft;
mod support;
