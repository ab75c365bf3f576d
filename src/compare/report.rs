//! Makes one report of runs: every method a row, with its scores, sets, detection of shifted data and price; every pair
//! compared on the same items; the seeds of a task beside each other.
//!
//! ```
//! use bayes_lora::belief::{LinkApprox, LogitBelief};
//! use bayes_lora::compare::*;
//! use ndarray::Array2;
//!
//! # let setting = Setting {
//! #     format_version: CELL_FORMAT, crate_version: "0.1.0".into(), protocol: "clean".into(), task: "toy".into(),
//! #     model: "tiny".into(), seed: 0, recipe: String::new(), prompt_hash: String::new(), prompt_example: String::new(),
//! #     classes: ["A", "B"].map(|name| ClassName { name: name.into(), token: None }).to_vec(), n_train: 10,
//! #     training: TrainingCost::default(), held_out: Vec::new(), test: (0..20).map(|i| i % 2).collect(), shifted: Vec::new(), values: None,
//! #     identity: Default::default(),
//! # };
//! let cell = |method: &str, margin: f64| -> bayes_lora::error::Result<Cell> {
//!     let right = |item: usize, class: usize| (item % 2 == class) != (item % 5 == 0);
//!     let logits = Array2::from_shape_fn((20, 2), |(i, c)| if right(i, c) { margin + i as f64 / 9.0 } else { 0.0 });
//!     let test = Answers::new(&LogitBelief::Point { logits }, LinkApprox::default())?;
//!     let cost = Cost::default();
//!     let answered = Answered { held_out: None, test, shifted: vec![], cost, machine: None, found: Default::default(), searches: vec![] };
//!     Ok(Cell {
//!         format_version: CELL_FORMAT,
//!         method: method.into(),
//!         description: format!("margin {margin}"),
//!         identity: None,
//!         extra_data: ExtraData::None,
//!         sharing: None,
//!         outcome: Outcome::Answered(Box::new(answered)),
//!     })
//! };
//! let cells = vec![cell("sure", 6.0)?, cell("modest", 0.5)?];
//! let report = Report::new(vec![Run { setting, cells }], ReportOptions::default())?;
//! let paired = report.runs[0].paired.as_ref().expect("two methods answered");
//! assert!(paired.matrix.nll.p_better[1][0] > 0.95); // one answer in five is wrong: the modest method says so
//! assert!(report.html()?.contains("modest"));
//! # Ok::<(), bayes_lora::error::Error>(())
//! ```

mod answer;
mod check;
#[cfg(feature = "plot")]
mod figures;
mod format;
mod lead;
mod markdown;
mod matrix;
mod numbers;
mod overview;
mod page;
mod picture;
mod predictions;
mod row;
mod standing;
mod table;
mod tables;

pub use numbers::{REPORT_FORMAT, Report};
pub use row::{Paired, ReportRow, RowOutcome, RunInfo, RunReport};

use super::cell::Run;
use super::options::ReportOptions;
use super::seeds::groups;
use crate::atomic_file::write_atomic;
use crate::error::{Error, Result};
use crate::methods::MaximumLikelihood;
use std::path::{Path, PathBuf};

/// Where [`Report::save`] wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReportFiles {
    /// The page, its pictures inside.
    pub html: PathBuf,
    /// The tables.
    pub markdown: PathBuf,
    /// The numbers.
    pub json: PathBuf,
}

impl Report {
    /// Scores every row of every run.
    ///
    /// # Errors
    /// If there is no run, an option is out of its bounds, a format version is foreign, runs have different protocols, a run
    /// is given twice, seeds of one task differ in recipe, prompt, classes or shifted splits, a run has a method twice, or an
    /// answer does not fit its setting or is not finite.
    pub fn new(mut runs: Vec<Run>, options: ReportOptions) -> Result<Self> {
        let reference = options.reference.as_deref().unwrap_or(MaximumLikelihood::NAME);
        runs.iter_mut().for_each(|run| run.cells.sort_by_key(|cell| cell.method != reference));
        let methods: Vec<&str> = runs.iter().flat_map(|run| &run.cells).map(|cell| cell.method.as_str()).collect();
        options.check(&methods)?;
        let protocol = check::runs(&runs)?;
        let mut order: Vec<&Run> = runs.iter().collect();
        let place = |run: &Run| runs.iter().position(|other| check::same_group(run, other));
        order.sort_by_key(|run| (place(run), run.setting.seed));
        let reports = order.into_iter().map(|run| RunReport::new(run, &options)).collect::<Result<Vec<_>>>()?;
        Ok(Self {
            format_version: REPORT_FORMAT,
            crate_version: env!("CARGO_PKG_VERSION").into(),
            protocol,
            options,
            groups: groups(&reports),
            runs: reports,
        })
    }

    /// Reads what [`json`](Self::json) wrote.
    ///
    /// # Errors
    /// If it is no such JSON or of another version.
    pub fn from_json(json: &str) -> Result<Self> {
        let report: Self = serde_json::from_str(json).map_err(|e| Error::format("report", e))?;
        match report.format_version {
            REPORT_FORMAT => Ok(report),
            found => Err(Error::config("format_version of the report", REPORT_FORMAT.to_string(), found)),
        }
    }

    /// Writes all numbers as JSON.
    ///
    /// # Errors
    /// If a number has no place in JSON.
    pub fn json(&self) -> Result<String> {
        let mut json = serde_json::to_string(self).map_err(|e| Error::format("report", e))?;
        json.push('\n');
        Ok(json)
    }

    /// Writes one self-contained page: which method is best and by how much, tables, and pictures where the feature `plot` is
    /// on.
    ///
    /// It needs no network and no other file, and follows the reader's choice of light or dark. A script of its own sorts
    /// tables; without it everything can be read.
    ///
    /// # Errors
    /// If a picture cannot be drawn.
    pub fn html(&self) -> Result<String> {
        page::html(self)
    }

    /// Writes the tables as Markdown.
    pub fn markdown(&self) -> String {
        markdown::markdown(self)
    }

    /// Writes `report.html`, `report.md` and `report.json` into `dir`, making it where it does not exist; each file appears
    /// whole or not at all, and all are made before the first is written.
    ///
    /// # Errors
    /// [`Error::Io`] with the path that the file system refused, and as [`html`](Self::html) and [`json`](Self::json).
    pub fn save(&self, dir: impl AsRef<Path>) -> Result<ReportFiles> {
        let dir = dir.as_ref();
        let at = |name: &str| dir.join(name);
        let files = ReportFiles { html: at("report.html"), markdown: at("report.md"), json: at("report.json") };
        let (html, markdown, json) = (self.html()?, self.markdown(), self.json()?);
        std::fs::create_dir_all(dir).map_err(|e| Error::io(dir, e))?;
        write_atomic(&files.json, json.as_bytes())?;
        write_atomic(&files.markdown, markdown.as_bytes())?;
        write_atomic(&files.html, html.as_bytes())?;
        Ok(files)
    }
}

#[cfg(test)]
mod tests;
