//! Puts methods side by side: the same data, the same seeds, paired comparisons.

mod cell;
mod comparison;
mod protocol;
mod setting;
mod store;
mod work;

pub use cell::{
    Answered, Answers, CELL_FORMAT, Cell, ClassName, Cost, ExtraData, Outcome, Setting, ShiftedSplit, TrainingCost,
};
pub use comparison::{Comparison, Run};
pub use protocol::{Protocol, TaskKind};
pub use setting::{About, Splits};
pub use store::read_runs;
