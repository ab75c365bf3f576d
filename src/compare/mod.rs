//! Puts methods side by side: the same data, the same seeds, paired comparisons.

mod cell;

pub use cell::{
    Answered, Answers, CELL_FORMAT, Cell, ClassName, Cost, ExtraData, Outcome, Setting, ShiftedSplit, TrainingCost,
};
