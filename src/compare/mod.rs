//! Puts methods side by side: the same data, the same seeds, paired comparisons.

mod cell;
mod comparison;
mod store;

pub use cell::{
    Answered, Answers, CELL_FORMAT, Cell, ClassName, Cost, ExtraData, Outcome, Setting, ShiftedSplit, TrainingCost,
};
pub use comparison::{About, Comparison, Run, Splits};
pub use store::read_runs;
