//! Puts methods side by side: the same data, the same seeds, paired comparisons.
//!
//! A [`Comparison`] runs [methods](crate::methods) and keeps a cell of each. A [`Setting`] says what the methods of a run have in common, a [`Cell`] what one of them answered. [`Report`] reads both
//! and writes one page, its tables as Markdown and its numbers as JSON; no model is needed any more.

mod cell;
mod comparison;
mod curvature_group;
mod machine;
mod options;
mod protocol;
mod report;
mod row;
mod seeds;
mod setting;
mod store;
mod summary;
#[cfg(test)]
mod synthetic;
mod work;

pub use cell::{
    Answered, Answers, CELL_FORMAT, Cell, ClassName, Cost, ExtraData, Outcome, Run, Setting, ShiftedSplit, SplitValues,
    TrainingCost,
};
pub use comparison::Comparison;
pub use machine::machine;
pub use options::{MethodSelection, ReportOptions};
pub use protocol::{Protocol, TaskKind};
pub use report::{Paired, REPORT_FORMAT, Report, ReportFiles, ReportRow, RowOutcome, RunInfo, RunReport};
pub use seeds::{SeedGroup, SeedPairs, SeedRow, Spread};
pub use setting::{About, Shifted, Splits};
pub use store::read_runs;
pub use summary::{
    AbstentionSummary, Detection, EntropyHistogram, OracleTemperature, SetSummary, ShiftSummary, Summary,
    UncertaintyScore,
};
