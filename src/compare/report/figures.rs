//! Draws the pictures of a run.

use super::numbers::Report;
use super::picture::{Picture, Pictures};
use super::row::RunReport;
use crate::compare::seeds::SeedGroup;
use crate::compare::store::plain;
use crate::compare::summary::Summary;
use crate::error::Result;
use crate::metrics::Estimate;
use crate::plot::{AxisScale, CurveChart, FigureFiles, ForestPlot, Histograms, reliability_diagram};
use crate::plot::{MAX_ROWS, MAX_SERIES};
use std::path::Path;

/// Reliability diagrams side by side.
const DIAGRAMS: usize = 4;
/// Histograms in one picture.
const HISTOGRAMS: usize = 24;
/// Curves in one chart.
const CURVES: usize = 12;
/// Groups of a histogram: right, wrong and so many shifted splits.
const GROUPS: usize = 6;
const CHART: (f64, f64) = (760.0, 380.0);

impl Report {
    /// Lays out NLL, ECE and accuracy, or NLL, RMSE and CRPS of numbers, of every row of `group` that answered, each seed with its interval; the row of the least
    /// mean NLL is the first.
    ///
    /// One plot for most reports; more where there are more rows (60) or seeds (12) than one shows.
    pub fn forest_plots(&self, group: &SeedGroup) -> Vec<ForestPlot> {
        let mean_nll = |name: &str| {
            let row = group.rows.iter().find(|row| row.name == name);
            row.and_then(|row| row.numbers.iter().find(|(number, _)| number == "NLL")).map(|(_, nll)| nll.mean)
        };
        let mut names: Vec<(f64, &str)> =
            group.rows.iter().filter_map(|row| Some((mean_nll(&row.name)?, row.name.as_str()))).collect();
        names.sort_by(|a, b| a.0.total_cmp(&b.0));
        let names: Vec<&str> = names.into_iter().map(|(_, name)| name).collect();
        let of_group = |run: &&RunReport| (&run.info.model, &run.info.task) == (&group.model, &group.task);
        let score = |name: &str, seed: u64, score: &str| {
            let run = self.runs.iter().filter(of_group).find(|run| run.info.seed == seed)?;
            run.rows.iter().find(|row| row.name == name)?.outcome.estimate(score)
        };
        let others = match self.runs.iter().find(of_group) {
            Some(run) if run.info.classes.is_empty() => ["RMSE", "CRPS"],
            _ => ["ECE", "accuracy"],
        };
        let mut plots = Vec::new();
        for seeds in group.seeds.chunks(MAX_SERIES) {
            for names in names.chunks(MAX_ROWS) {
                let panel = |metric: &str| -> Vec<Vec<Option<Estimate>>> {
                    let row = |name: &&str| seeds.iter().map(|seed| score(name, *seed, metric)).collect();
                    names.iter().map(row).collect()
                };
                let plot = ForestPlot::new(names.iter().copied(), seeds.iter().map(|seed| format!("seed {seed}")))
                    .with_panel("NLL in nats", panel("NLL"))
                    .with_panel(others[0], panel(others[0]))
                    .with_panel(others[1], panel(others[1]));
                // of these seeds none may have answered
                if plot.panels[0].estimates.iter().flatten().any(Option::is_some) {
                    plots.push(plot);
                }
            }
        }
        plots
    }

    /// Writes the forest plots of every task into `dir` as `scores-TASK-MODEL` (`-2`, … where there are several), and says where.
    ///
    /// # Errors
    /// As [`ForestPlot::figure`] and [`Figure::save`](crate::plot::Figure::save).
    pub fn save_forest_plots(&self, dir: impl AsRef<Path>) -> Result<Vec<FigureFiles>> {
        let mut files = Vec::new();
        for group in &self.groups {
            let stem = format!("scores-{}", plain(&format!("{} {}", group.task, group.model)));
            for (i, plot) in self.forest_plots(group).iter().enumerate() {
                let part = if i == 0 { String::new() } else { format!("-{}", i + 1) };
                files.push(plot.figure()?.save(&dir, &format!("{stem}{part}"))?);
            }
        }
        Ok(files)
    }
}

/// The scores of a group with their intervals.
pub(super) fn forests(report: &Report, group: &SeedGroup) -> Result<Vec<Picture>> {
    let drawn = |plot: ForestPlot| Ok(Picture { svg: plot.figure()?.svg_without_font() });
    report.forest_plots(group).into_iter().map(drawn).collect()
}

/// All pictures of a run.
pub(super) fn pictures(run: &RunReport) -> Result<Vec<Pictures>> {
    let rows: Vec<(&str, &Summary)> = run.answered().map(|(row, summary)| (row.name.as_str(), summary)).collect();
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let methods: Vec<(&str, &Summary)> = run
        .answered()
        .filter(|(row, _)| row.calibration.is_none())
        .map(|(row, summary)| (row.name.as_str(), summary))
        .collect();
    let (n_shifted, drawn) = (run.info.shifted.len(), GROUPS - 2);
    let left_out = match n_shifted > drawn {
        true => format!(" Of {n_shifted} sets of foreign items the first {drawn} are drawn."),
        false => String::new(),
    };
    Ok(vec![
        Pictures {
            title: "Reliability".into(),
            note: "Accuracy against confidence on the test items, in bins of equal width; below the diagonal is \
                   overconfident."
                .into(),
            pictures: rows.chunks(DIAGRAMS).map(reliability).collect::<Result<_>>()?,
        },
        Pictures {
            title: "Risk and coverage".into(),
            note: "Share of wrong answers among the surest items, by the share of items answered, from ten items on. Methods \
                   as they answered: a temperature hardly changes which items are surest."
                .into(),
            pictures: methods.chunks(CURVES).map(risk_coverage).collect::<Result<_>>()?,
        },
        Pictures {
            title: "Entropy of right, wrong and foreign answers".into(),
            note: format!(
                "A method that knows what it does not know puts right answers to the left and all others to the right.{left_out}"
            ),
            pictures: rows.chunks(HISTOGRAMS).map(entropies).collect::<Result<_>>()?,
        },
    ])
}

fn reliability(rows: &[(&str, &Summary)]) -> Result<Picture> {
    let panels: Vec<_> = rows.iter().map(|(name, summary)| (*name, &summary.reliability)).collect();
    Ok(Picture { svg: reliability_diagram(&panels)?.svg_without_font() })
}

fn risk_coverage(rows: &[(&str, &Summary)]) -> Result<Picture> {
    let mut chart = CurveChart::new("coverage: share of items answered", "risk: share of wrong answers")
        .with_x_scale(AxisScale::Linear)
        .with_size(CHART.0, CHART.1);
    for (name, summary) in rows {
        let mut points = summary.risk_coverage.clone();
        if let [only] = points[..] {
            // of ten items or fewer: a curve needs two points
            points.push(only);
        }
        chart = chart.with_curve(*name, points);
    }
    Ok(Picture { svg: chart.figure()?.svg_without_font() })
}

fn entropies(rows: &[(&str, &Summary)]) -> Result<Picture> {
    let first = &rows[0].1.entropies;
    let groups = first.groups.iter().take(GROUPS);
    let mut histograms = Histograms::new("entropy in nats", first.edges.clone(), groups);
    for (name, summary) in rows {
        let counts = summary.entropies.counts.iter().take(GROUPS).cloned().collect();
        histograms = histograms.with_panel(*name, counts);
    }
    Ok(Picture { svg: histograms.figure()?.svg_without_font() })
}
