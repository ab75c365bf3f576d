//! The posterior: its mathematics, its file, its searches, and what it says of the training items.

mod dense;
mod draws;
mod file;
mod laplace;
mod searches;
mod training_items;
