//! Builds the table of scores of predicted numbers.

use super::format::{bounds, count, number, percent};
use super::row::{ReportRow, RowOutcome, RunReport};
use super::table::{Order, Table, TableCell, TableRow};
use crate::compare::options::ReportOptions;
use crate::metrics::Estimate;

/// The scores of all rows of a regression.
pub(super) fn predictions(run: &RunReport, options: &ReportOptions) -> Table {
    let scores = run.rows.iter().find_map(|row| match &row.outcome {
        RowOutcome::Predicted(scores) => Some(scores.named()),
        _ => None,
    });
    let heading = |name: String| match name.as_str() {
        "NLL" | "RMSE" | "CRPS" => format!("{name} ↓"),
        _ => name,
    };
    let noise = match run.info.n_calibration {
        0 => "The noise is that of the training items, of which the adapter has seen the numbers.".to_string(),
        n => format!("The variance of each row's noise makes {} held-out numbers most probable.", count(n)),
    };
    Table {
        title: format!("Scores on {} test items", count(run.info.n_test)),
        note: format!(
            "NLL of the predicted density in nats per item, which may be below zero; RMSE of the means, CRPS and the mean standard \
             deviation in the units of the numbers; then the share of the numbers inside central intervals, which should be as large as \
             the interval says. Intervals hold {}: shares by their Beta posterior, the others by the Bayesian bootstrap. {noise}",
            percent(options.scores.level)
        ),
        first: "method".into(),
        columns: scores.into_iter().flatten().map(|(name, _)| heading(name)).collect(),
        rows: run.rows.iter().map(row).collect(),
        order: Order::Rows,
    }
}

fn row(row: &ReportRow) -> TableRow {
    let (cells, reason) = match &row.outcome {
        RowOutcome::Predicted(scores) => {
            let cell = |score: &Estimate| TableCell::with(number(score.value), bounds(score));
            (scores.named().iter().map(|(_, score)| cell(score)).collect(), None)
        }
        RowOutcome::Failed(reason) => (Vec::new(), Some(reason.clone())),
        RowOutcome::Answered(_) => (Vec::new(), None),
    };
    TableRow { name: row.name.clone(), cells, reason, variant: false }
}
