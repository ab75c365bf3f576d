//! Holds the scored rows of one run.

use crate::calibrate::Calibration;
use crate::compare::cell::{
    Cell, ClassName, Cost, ExtraData, Outcome, Run, Setting, ShiftedSplit, SplitValues, TrainingCost,
};
use crate::compare::options::ReportOptions;
use crate::compare::row::{Row, rows};
use crate::compare::summary::Summary;
use crate::error::Result;
use crate::identity::Identity;
use crate::metrics::{Estimate, PairedMatrix, PairedMetric, PairedValues, ValueScores};
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
    /// All pairs of rows that answered about classes; none where fewer than two did.
    pub paired: Option<Paired>,
    /// All pairs of rows that predicted numbers; none where fewer than two did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub predicted: Option<Paired<PairedValues>>,
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
    /// The classes with their tokens; none of a regression.
    pub classes: Vec<ClassName>,
    /// Number of training items.
    pub n_train: usize,
    /// Number of held-out items whose labels fit calibrators, or whose numbers say how large the noise is.
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
    /// With answers about classes.
    Answered(Box<Summary>),
    /// With predictions of numbers.
    Predicted(Box<ValueScores>),
    /// Without, for this reason.
    Failed(String),
}

/// All pairs of rows that answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Paired<M = PairedMatrix> {
    /// Names of the rows, in the order of the matrix.
    pub names: Vec<String>,
    /// The comparison, on the test items.
    pub matrix: M,
}

/// A score by which rows are ranked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Score {
    /// Its name among the numbers of a [`SeedRow`](crate::compare::SeedRow).
    pub name: &'static str,
    pub higher_is_better: bool,
}

const fn lower(name: &'static str) -> Score {
    Score { name, higher_is_better: false }
}

pub(super) const NLL: Score = lower("NLL");

/// All by which answers about classes are ranked, the one that decides first.
const OF_CLASSES: [Score; 5] =
    [NLL, Score { name: "accuracy", higher_is_better: true }, lower("ECE"), lower("Brier"), lower("AURC")];

/// All by which predictions of numbers are ranked.
const OF_VALUES: [Score; 3] = [NLL, lower("RMSE"), lower("CRPS")];

impl RowOutcome {
    /// A score by its name; none of a row that failed, or that has no such score.
    pub fn estimate(&self, name: &str) -> Option<Estimate> {
        match self {
            Self::Answered(summary) => {
                let scores = &summary.scores;
                Some(match name {
                    "NLL" => scores.nll,
                    "accuracy" => scores.accuracy,
                    "ECE" => scores.ece,
                    "Brier" => scores.brier,
                    "AURC" => scores.aurc,
                    _ => return None,
                })
            }
            Self::Predicted(scores) => {
                scores.named().into_iter().find(|(found, _)| found == name).map(|(_, estimate)| estimate)
            }
            Self::Failed(_) => None,
        }
    }
}

impl RunReport {
    /// Scores a checked run.
    pub(super) fn new(run: &Run, options: &ReportOptions) -> Result<Self> {
        let setting = &run.setting;
        if let Some(values) = &setting.values {
            return Self::of_values(run, values, options);
        }
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
        let rows = scored.collect::<Result<_>>()?;
        Ok(Self { rows, paired, predicted: None, info: RunInfo::new(setting, n_calibration, n_sets) })
    }

    /// Scores a checked run of a regression.
    fn of_values(run: &Run, values: &SplitValues, options: &ReportOptions) -> Result<Self> {
        let (mut names, mut predictions) = (Vec::new(), Vec::new());
        for cell in &run.cells {
            if let Outcome::Predicted(answered) = &cell.outcome {
                names.push(cell.method.clone());
                predictions.push(&answered.test);
            }
        }
        let predicted = match names.len() {
            0 | 1 => None,
            _ => Some(Paired { names, matrix: PairedValues::new(&predictions, &values.test, &options.scores)? }),
        };
        let row = |cell: &Cell| {
            let outcome = match &cell.outcome {
                Outcome::Predicted(answered) => {
                    RowOutcome::Predicted(Box::new(ValueScores::new(&answered.test, &values.test, &options.scores)?))
                }
                Outcome::Failed(reason) => RowOutcome::Failed(reason.clone()),
                Outcome::Answered(_) => RowOutcome::Failed("its answers are about classes, not numbers".into()),
            };
            Ok(ReportRow::of(cell, None, outcome))
        };
        let rows = run.cells.iter().map(row).collect::<Result<_>>()?;
        Ok(Self { rows, paired: None, predicted, info: RunInfo::new(&run.setting, values.held_out.len(), 0) })
    }

    /// The scores by which its rows are ranked, the one that decides first.
    pub(super) fn scores(&self) -> &'static [Score] {
        if self.predicted.is_some() { &OF_VALUES } else { &OF_CLASSES }
    }

    /// Names of the rows that are compared pair by pair; none where fewer than two answered.
    pub(super) fn compared(&self) -> Option<&[String]> {
        let of_classes = self.paired.as_ref().map(|paired| &*paired.names);
        of_classes.or(self.predicted.as_ref().map(|paired| &*paired.names))
    }

    /// All pairs by one score.
    pub(super) fn metric(&self, score: &str) -> Option<&PairedMetric> {
        if let Some(Paired { matrix, .. }) = &self.predicted {
            return Some(match score {
                "NLL" => &matrix.nll,
                "RMSE" => &matrix.rmse,
                "CRPS" => &matrix.crps,
                _ => return None,
            });
        }
        let matrix = &self.paired.as_ref()?.matrix;
        Some(match score {
            "NLL" => &matrix.nll,
            "accuracy" => &matrix.accuracy,
            "ECE" => &matrix.ece,
            "Brier" => &matrix.brier,
            "AURC" => &matrix.aurc,
            _ => return None,
        })
    }

    /// How probable it is that row `a` is better than row `b` by a score, where both answered.
    pub fn p_better(&self, a: &str, b: &str, score: &str) -> Option<f64> {
        let names = self.compared()?;
        let place = |row: &str| names.iter().position(|name| name == row);
        Some(self.metric(score)?.p_better[place(a)?][place(b)?])
    }

    /// The rows that answered about classes, with their scores.
    pub(super) fn answered(&self) -> impl Iterator<Item = (&ReportRow, &Summary)> {
        self.rows.iter().filter_map(|row| match &row.outcome {
            RowOutcome::Answered(summary) => Some((row, &**summary)),
            RowOutcome::Predicted(_) | RowOutcome::Failed(_) => None,
        })
    }
}

impl RunInfo {
    fn new(setting: &Setting, n_calibration: usize, n_sets: usize) -> Self {
        Self {
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
            n_test: setting.n_test(),
            shifted: setting.shifted.clone(),
            training: setting.training,
            identity: setting.identity.clone(),
        }
    }
}

impl ReportRow {
    fn new(row: &Row, run: &Run, options: &ReportOptions, n_calibration: usize) -> Result<Self> {
        let outcome = match &row.answers {
            Err(reason) => RowOutcome::Failed(reason.clone()),
            Ok(answers) => RowOutcome::Answered(Box::new(Summary::new(answers, &run.setting, options)?)),
        };
        let mut found = Self::of(row.cell, row.calibration, outcome);
        found.name = row.name();
        if row.calibration.is_some() {
            found.calibration_labels = n_calibration;
        }
        if let Ok(answers) = &row.answers {
            found.found.extend(answers.parameters.clone());
            let caveats = found.caveat.into_iter().chain(answers.caveat.map(String::from));
            found.caveat = joined(caveats.collect());
        }
        Ok(found)
    }

    /// The row of a cell, but for what a calibrator adds.
    fn of(cell: &Cell, calibration: Option<Calibration>, outcome: RowOutcome) -> Self {
        let found = cell.outcome.found();
        // a method's own searches stand in the row above
        let searches = found.as_ref().filter(|_| calibration.is_none()).map_or(&[][..], |found| found.searches);
        Self {
            name: cell.method.clone(),
            method: cell.method.clone(),
            calibration,
            description: cell.description.clone(),
            sharing: cell.sharing.clone(),
            extra_data: cell.extra_data,
            calibration_labels: 0,
            cost: found.as_ref().map(|found| *found.cost),
            machine: found.as_ref().and_then(|found| found.machine.clone()),
            caveat: joined(searches.iter().filter_map(Search::remark).collect()),
            found: found.map_or_else(BTreeMap::new, |found| found.found.clone()),
            outcome,
        }
    }
}

fn joined(caveats: Vec<String>) -> Option<String> {
    (!caveats.is_empty()).then(|| caveats.join("; "))
}
