//! A comparison: cells are kept and taken up, failures are rows, and what methods share changes no number.

mod answers;
mod cells;
mod failures;
mod runs;
mod values;
