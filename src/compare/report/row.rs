//! Holds the scored rows of one run.

use crate::calibrate::Calibration;
use crate::compare::cell::{ClassName, Cost, ExtraData, Outcome, Run, ShiftedSplit, TrainingCost};
use crate::compare::options::ReportOptions;
use crate::compare::row::{Row, rows};
use crate::compare::summary::Summary;
use crate::error::Result;
use crate::identity::Identity;
use crate::metrics::PairedMatrix;
use crate::search::Search;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One task under one seed, scored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunReport {
    /// What was run.
    pub info: RunInfo,
    /// Every method, each directly before its calibrated rows.
    pub rows: Vec<ReportRow>,
    /// All pairs of rows that answered; none where fewer than two did.
    pub paired: Option<Paired>,
}

/// What a run's [`Setting`](crate::compare::Setting) says, with sizes in the place of labels.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunInfo {
    /// The version of the crate that made the answers.
    pub crate_version: String,
    /// The task.
    pub task: String,
    /// The base model.
    pub model: String,
    /// The seed.
    pub seed: u64,
    /// How the adapter is made and trained.
    pub recipe: String,
    /// Hash of the prompt's form.
    pub prompt_hash: String,
    /// One prompt as the model sees it.
    pub prompt_example: String,
    /// The classes with their tokens.
    pub classes: Vec<ClassName>,
    /// Number of training items.
    pub n_train: usize,
    /// Number of held-out items whose labels fit calibrators.
    pub n_calibration: usize,
    /// Number of held-out items whose labels fit sets and abstention.
    pub n_sets: usize,
    /// Number of test items.
    pub n_test: usize,
    /// Data from elsewhere.
    pub shifted: Vec<ShiftedSplit>,
    /// Training of the adapter that post-hoc methods start from.
    pub training: TrainingCost,
    /// Hashes of data and weights.
    pub identity: Identity,
}

/// A method, or a method with a calibrator behind it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReportRow {
    /// `method` or `method + calibrator`.
    pub name: String,
    /// The method.
    pub method: String,
    /// The calibrator, if there is one.
    pub calibration: Option<Calibration>,
    /// The method's settings.
    pub description: String,
    /// How the method's noise is shared by tokens.
    pub sharing: Option<String>,
    /// What the method itself read besides the training data.
    pub extra_data: ExtraData,
    /// Number of held-out labels that the calibrator read besides.
    pub calibration_labels: usize,
    /// The method's price; a calibrator adds no pass. None of a method that failed.
    pub cost: Option<Cost>,
    /// What computed the answers, where that was kept.
    pub machine: Option<String>,
    /// Numbers that the method and its calibrator found, by name.
    pub found: BTreeMap<String, f64>,
    /// What a reader must know of the fit: searches of the method, or of its calibrator, that ended at a bound.
    pub caveat: Option<String>,
    /// The scores, or why there are none.
    pub outcome: RowOutcome,
}

/// How a row ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RowOutcome {
    /// With answers.
    Answered(Box<Summary>),
    /// Without, for this reason.
    Failed(String),
}

/// All pairs of rows that answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Paired {
    /// Names of the rows, in the order of the matrix.
    pub names: Vec<String>,
    /// The comparison, on the test items.
    pub matrix: PairedMatrix,
}

impl RunReport {
    /// Scores a checked run.
    pub(super) fn new(run: &Run, options: &ReportOptions) -> Result<Self> {
        let setting = &run.setting;
        let rows = rows(setting, &run.cells, options)?;
        let answered: Vec<(String, &ndarray::Array2<f64>)> =
            rows.iter().filter_map(|row| Some((row.name(), &row.answers.as_ref().ok()?.test.probabilities))).collect();
        let paired = match answered.len() {
            0 | 1 => None,
            _ => {
                let views: Vec<_> = answered.iter().map(|(_, p)| p.view()).collect();
                let matrix = PairedMatrix::new(&views, &setting.test, &options.scores)?;
                Some(Paired { names: answered.into_iter().map(|(name, _)| name).collect(), matrix })
            }
        };
        let n_held_out = setting.held_out.len();
        // a single item has no halves
        let n_calibration = n_held_out / 2;
        let n_sets = if n_held_out > 1 { n_held_out - n_calibration } else { 0 };
        let scored = rows.iter().map(|row| ReportRow::new(row, run, options, n_calibration));
        Ok(Self {
            rows: scored.collect::<Result<_>>()?,
            paired,
            info: RunInfo {
                crate_version: setting.crate_version.clone(),
                task: setting.task.clone(),
                model: setting.model.clone(),
                seed: setting.seed,
                recipe: setting.recipe.clone(),
                prompt_hash: setting.prompt_hash.clone(),
                prompt_example: setting.prompt_example.clone(),
                classes: setting.classes.clone(),
                n_train: setting.n_train,
                n_calibration,
                n_sets,
                n_test: setting.test.len(),
                shifted: setting.shifted.clone(),
                training: setting.training,
                identity: setting.identity.clone(),
            },
        })
    }

    /// The rows that answered, with their scores.
    pub(super) fn answered(&self) -> impl Iterator<Item = (&ReportRow, &Summary)> {
        self.rows.iter().filter_map(|row| match &row.outcome {
            RowOutcome::Answered(summary) => Some((row, &**summary)),
            RowOutcome::Failed(_) => None,
        })
    }
}

impl ReportRow {
    fn new(row: &Row, run: &Run, options: &ReportOptions, n_calibration: usize) -> Result<Self> {
        let cell = row.cell;
        let (cost, machine, mut found) = match &cell.outcome {
            Outcome::Answered(answered) => (Some(answered.cost), answered.machine.clone(), answered.found.clone()),
            Outcome::Failed(_) => (None, None, BTreeMap::new()),
        };
        let outcome = match &row.answers {
            Err(reason) => RowOutcome::Failed(reason.clone()),
            Ok(answers) => {
                found.extend(answers.parameters.clone());
                RowOutcome::Answered(Box::new(Summary::new(answers, &run.setting, options)?))
            }
        };
        let mut caveats = match (&cell.outcome, row.calibration) {
            // the method's own stand in the row above
            (Outcome::Answered(answered), None) => answered.searches.iter().filter_map(Search::remark).collect(),
            _ => Vec::new(),
        };
        caveats.extend(row.answers.as_ref().ok().and_then(|answers| answers.caveat).map(String::from));
        Ok(Self {
            name: row.name(),
            method: cell.method.clone(),
            calibration: row.calibration,
            description: cell.description.clone(),
            sharing: cell.sharing.clone(),
            extra_data: cell.extra_data,
            calibration_labels: if row.calibration.is_some() { n_calibration } else { 0 },
            cost,
            machine,
            found,
            caveat: (!caveats.is_empty()).then(|| caveats.join("; ")),
            outcome,
        })
    }
}
