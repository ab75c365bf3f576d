//! Holds all numbers of a report.

use super::row::RunReport;
use crate::compare::options::ReportOptions;
use crate::compare::seeds::SeedGroup;
use serde::{Deserialize, Serialize};

/// The version of the JSON that [`Report::json`] writes; any change of a field needs another.
pub const REPORT_FORMAT: u64 = 4;

/// All numbers of a comparison under one protocol.
///
/// It is plain data: written as JSON and read back it is the same but for the last digit of a number.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// [`REPORT_FORMAT`]
    pub format_version: u64,
    /// The version of this crate.
    pub crate_version: String,
    /// The protocol of all runs.
    pub protocol: String,
    /// What is shown and at which levels.
    pub options: ReportOptions,
    /// By model and task in the order given, by seed within.
    pub runs: Vec<RunReport>,
    /// The seeds of each model and task side by side.
    pub groups: Vec<SeedGroup>,
}
