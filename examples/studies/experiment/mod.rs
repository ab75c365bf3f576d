//! What several studies ask for and make: a model, a task, and an adapter that is trained or taken from an earlier run.

pub mod adapter;
pub mod base;
pub mod items;
pub mod questions;
pub mod splits;
pub mod task;
