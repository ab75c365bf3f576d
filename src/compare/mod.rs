//! Puts methods side by side: the same data, the same seeds, paired comparisons.
//!
//! A [`Setting`] says what the methods of a run have in common, a [`Cell`] what one of them answered. [`Report`] reads both
//! and writes one page, its tables as Markdown and its numbers as JSON; no model is needed any more.

mod cell;
mod options;
mod report;
mod row;
mod seeds;
mod summary;
#[cfg(test)]
mod synthetic;

pub use cell::{
    Answered, Answers, CELL_FORMAT, Cell, ClassName, Cost, ExtraData, Outcome, Setting, ShiftedSplit, TrainingCost,
};
pub use options::{MethodSelection, ReportOptions};
pub use report::{Paired, REPORT_FORMAT, Report, ReportFiles, ReportRow, RowOutcome, Run, RunInfo, RunReport};
pub use seeds::{SeedGroup, SeedRow, Spread};
pub use summary::{
    AbstentionSummary, Detection, EntropyHistogram, SetSummary, ShiftSummary, Summary, UncertaintyScore,
};
