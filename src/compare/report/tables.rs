//! Builds the tables of a report.

use super::format::{
    bounds, bytes, count, extra_data, found, number, percent, probability, seconds, set_score, signed,
};
use super::predictions::predictions;
use super::row::{ReportRow, RowOutcome, RunReport};
use super::table::{Order, Table, TableCell, TableRow, merged};
use crate::compare::cell::ExtraData;
use crate::compare::options::ReportOptions;
use crate::compare::seeds::{SeedGroup, SeedRow};
use crate::compare::summary::{AbstentionSummary, ShiftSummary, Summary, UncertaintyScore};
use crate::metrics::{Estimate, PairedMetric};

/// The tables of one run.
pub(super) fn of_run(run: &RunReport, options: &ReportOptions) -> Vec<Table> {
    let of_values = run.info.classes.is_empty();
    let mut tables = vec![if of_values { predictions(run, options) } else { scores(run, options) }];
    tables.extend(against_first(run, options));
    tables.extend(sets(run, options));
    tables.extend((0..run.info.shifted.len()).map(|split| shifted(run, split, options)));
    tables.push(cost(run));
    tables
}

fn estimate(e: &Estimate) -> TableCell {
    TableCell::with(number(e.value), bounds(e))
}

/// A row with cells where it answered, with its reason where it failed.
fn table_row(row: &ReportRow, cells: impl FnOnce(&Summary) -> Vec<TableCell>) -> TableRow {
    let (cells, reason) = match &row.outcome {
        RowOutcome::Answered(summary) => (cells(summary), None),
        RowOutcome::Predicted(_) => (Vec::new(), None),
        RowOutcome::Failed(reason) => (Vec::new(), Some(reason.clone())),
    };
    TableRow { name: row.name.clone(), cells, reason, variant: row.calibration.is_some() }
}

fn texts<const N: usize>(columns: [&str; N]) -> Vec<String> {
    columns.map(String::from).to_vec()
}

fn scores(run: &RunReport, options: &ReportOptions) -> Table {
    let mut columns = texts(["accuracy ↑", "NLL ↓", "Brier ↓", "ECE ↓", "debiased ECE ↓", "AURC ↓"]);
    columns.push(format!("accuracy at {} coverage ↑", percent(options.coverage)));
    columns.push(format!("coverage at {} accuracy ↑", percent(options.accuracy)));
    columns.push("NLL at the oracle temperature ↓".into());
    let cells = |s: &Summary| {
        let scores = &s.scores;
        let with = [scores.accuracy, scores.nll, scores.brier, scores.ece, scores.debiased_ece, scores.aurc];
        let mut cells: Vec<TableCell> = with.iter().map(estimate).collect();
        cells.extend([s.selective.accuracy_at_coverage, s.selective.coverage_at_accuracy].iter().map(estimate));
        cells.push(s.oracle.map_or_else(TableCell::none, |oracle| {
            let beta = if oracle.at_its_end { "at its end".into() } else { found(oracle.beta) };
            TableCell::with(number(oracle.nll.value), format!("{}, β {beta}", bounds(&oracle.nll)))
        }));
        cells
    };
    let calibrated = match run.info.n_calibration {
        0 => "There are no held-out labels, hence no calibrated rows, sets or abstention.".to_string(),
        n => format!(
            "A calibrator behind a method is fitted to {} held-out labels, on averaged probabilities.",
            count(n)
        ),
    };
    Table {
        title: format!("Scores on {} test items", count(run.info.n_test)),
        note: format!(
            "NLL in nats per item; ECE over {} bins of equal width. Intervals hold {}: accuracy by its Beta posterior, the \
             others by the Bayesian bootstrap; that of an ECE, which grows with noise, may lie above its value. The oracle temperature 1/β is fitted to the \
             test labels themselves: no method, but a bound on what any temperature behind the row could do. {calibrated}",
            options.scores.n_bins,
            percent(options.scores.level)
        ),
        first: "method".into(),
        columns,
        rows: run.rows.iter().map(|row| table_row(row, cells)).collect(),
        order: Order::Rows,
    }
}

/// Scores of differences, in the order of the table of scores.
const OF_CLASSES: [&str; 5] = ["accuracy", "NLL", "Brier", "ECE", "AURC"];
const OF_VALUES: [&str; 3] = ["NLL", "RMSE", "CRPS"];

fn against_first(run: &RunReport, options: &ReportOptions) -> Option<Table> {
    let names = run.compared()?;
    let first = names.first()?;
    let (of_values, shares) =
        (run.info.classes.is_empty(), "Accuracy by the Dirichlet posterior of the paired table, the others by");
    let (scores, found_by) = if of_values { (&OF_VALUES[..], "By") } else { (&OF_CLASSES[..], shares) };
    let metrics: Vec<(&str, &PairedMetric)> =
        scores.iter().filter_map(|score| Some((*score, run.metric(score)?))).collect();
    let rows = names.iter().enumerate().skip(1).map(|(index, name)| {
        let cells = metrics.iter().flat_map(|(_, metric)| {
            let difference = metric.minus_first[index];
            [
                TableCell::with(signed(difference.value), bounds(&difference)),
                TableCell::new(probability(metric.p_better[index][0])),
            ]
        });
        let variant = run.rows.iter().any(|row| row.name == *name && row.calibration.is_some());
        TableRow { name: name.clone(), cells: cells.collect(), reason: None, variant }
    });
    Some(Table {
        title: format!("Differences from “{first}” on the same items"),
        note: format!(
            "Each column pair: the row minus “{first}” with its {} interval, and the posterior probability that the row is \
             better. {found_by} a Bayesian bootstrap with the same weights for both.",
            percent(options.scores.level)
        ),
        first: "method".into(),
        columns: metrics.iter().flat_map(|(name, _)| [format!("Δ {name}"), "P(better)".to_string()]).collect(),
        rows: rows.collect(),
        order: Order::Rows,
    })
}

fn sets(run: &RunReport, options: &ReportOptions) -> Option<Table> {
    if run.info.n_sets == 0 {
        return None;
    }
    let mut columns = Vec::new();
    for score in options.set_scores.iter().map(|score| set_score(*score)) {
        columns.extend([format!("{score}: coverage"), format!("{score}: mean size ↓")]);
    }
    columns.extend(texts(["answers from", "answered ↑", "wrong among answers"]));
    let cells = |s: &Summary| {
        let mut cells = Vec::new();
        for set in &s.sets {
            cells.push(estimate(&set.coverage));
            cells.push(estimate(&set.mean_size));
        }
        cells.extend(s.abstention.as_ref().map(abstention).into_iter().flatten());
        cells
    };
    let expected = run.answered().find_map(|(_, s)| s.sets.first().map(|set| set.expected_coverage));
    let expected = expected.map_or(String::new(), |(low, high)| {
        let level = percent(options.scores.level);
        format!(" So many items put the coverage between {} and {} with {level}.", number(low), number(high))
    });
    let read: Vec<&str> = run
        .rows
        .iter()
        .filter(|row| row.extra_data != ExtraData::None && row.calibration.is_none())
        .map(|row| row.name.as_str())
        .collect();
    let caution = match read.is_empty() {
        true => String::new(),
        false => format!(
            " The promises need held-out items that a method has not read; these have read items besides the training data: {}.",
            read.join(", ")
        ),
    };
    Some(Table {
        title: "Sets of classes, and abstention".into(),
        note: format!(
            "Fitted to {} held-out labels that no calibrator has seen. Conformal sets: the label is promised to be in {} of \
             them.{expected} Abstention: an answer is given where the largest probability is at least the threshold; at most {} \
             of the answers are wrong, except with a probability of {} over the draw of held-out items.{caution}",
            count(run.info.n_sets),
            percent(1.0 - options.miscoverage),
            percent(options.risk),
            percent(options.failure_probability),
        ),
        first: "method".into(),
        columns,
        rows: run.rows.iter().map(|row| table_row(row, cells)).collect(),
        order: Order::Rows,
    })
}

fn abstention(rule: &AbstentionSummary) -> [TableCell; 3] {
    [
        rule.threshold.map_or_else(|| TableCell::new("never"), |t| TableCell::new(number(t))),
        estimate(&rule.coverage),
        rule.selective_risk.as_ref().map_or_else(TableCell::none, estimate),
    ]
}

fn shifted(run: &RunReport, split: usize, options: &ReportOptions) -> Table {
    let shift = &run.info.shifted[split];
    let scored = !shift.labels.is_empty();
    let mut columns = if scored { texts(["accuracy ↑", "NLL ↓", "ECE ↓"]) } else { Vec::new() };
    columns.extend(UncertaintyScore::ALL.iter().flat_map(|score| {
        let name = score.name();
        [format!("{name}: AUROC ↑"), format!("{name}: AUPR ↑"), format!("{name}: FPR@95 ↓")]
    }));
    let cells = |s: &Summary| {
        let shift: Option<&ShiftSummary> = s.shifted.get(split);
        let mut cells: Vec<TableCell> = match shift.and_then(|s| s.scores.as_ref()) {
            Some(scores) => [scores.accuracy, scores.nll, scores.ece].iter().map(estimate).collect(),
            None => vec![TableCell::none(); if scored { 3 } else { 0 }],
        };
        let of = |score| shift.and_then(|s| s.detections.iter().find(|d| d.score == score));
        cells.extend(UncertaintyScore::ALL.iter().flat_map(|&score| match of(score) {
            None => vec![TableCell::none(); 3],
            Some(d) => vec![estimate(&d.auroc), estimate(&d.aupr), estimate(&d.fpr95)],
        }));
        cells
    };
    let share = shift.n_items as f64 / (shift.n_items + run.info.n_test) as f64;
    Table {
        title: format!(
            "{} “{}”: {} foreign items",
            if scored { "Answers to, and detection of" } else { "Detection of" },
            shift.name,
            count(shift.n_items)
        ),
        note: format!(
            "Foreign items are the positives; chance is an AUROC of 0.5 and an AUPR of {}. Intervals hold {}. FPR@95: share of \
             test items that would be called foreign where 95 % of the foreign ones are. A dash: a point has no mutual \
             information, a calibrator leaves none, and it leaves the energy as it was.",
            number(share),
            percent(options.scores.level)
        ),
        first: "method".into(),
        columns,
        rows: run.rows.iter().map(|row| table_row(row, cells)).collect(),
        order: Order::Rows,
    }
}

/// Stands for what the row above says.
const DITTO: &str = "″";
/// Columns of a method's price.
const PRICES: usize = 7;

fn cost(run: &RunReport) -> Table {
    let rows = run.rows.iter().map(|row| {
        let mut cells = vec![TableCell::words(extra_data(row.extra_data, row.calibration_labels))];
        match (&row.cost, row.calibration) {
            // the method's own price stands in the row above
            (Some(_), Some(_)) => cells.extend(vec![TableCell::new(DITTO); PRICES]),
            (None, _) => cells.extend(vec![TableCell::none(); PRICES]),
            (Some(cost), None) => cells.extend([
                TableCell::new(seconds(cost.fit_seconds)),
                TableCell::new(count(cost.fit_forwards)),
                TableCell::new(count(cost.fit_backwards)),
                TableCell::new(seconds(cost.predict_seconds)),
                TableCell::new(count(cost.forwards_per_item)),
                TableCell::new(count(cost.backwards_per_item)),
                TableCell::new(bytes(cost.stored_bytes)),
            ]),
        }
        let numbers = row.found.iter().map(|(name, value)| format!("{name} {}", found(*value)));
        cells.push(TableCell::words(numbers.chain(row.caveat.clone()).collect::<Vec<_>>().join("; ")));
        let noise = row.sharing.as_ref().map(|sharing| format!("noise: {sharing}"));
        let settings = [row.description.clone()].into_iter().chain(noise).filter(|text| !text.is_empty());
        cells.push(match row.calibration {
            Some(_) => TableCell::words(DITTO),
            None => TableCell::words(settings.collect::<Vec<_>>().join("; ")),
        });
        TableRow { name: row.name.clone(), cells, reason: None, variant: row.calibration.is_some() }
    });
    let training = &run.info.training;
    Table {
        title: "Data and cost".into(),
        note: format!(
            "{}{} A pass is that of one item. {DITTO}: as the method above; a calibrator adds no pass.",
            match training.items {
                0 => "Every method trained its own adapter. ".to_string(),
                items => format!(
                    "Beyond the adapter that post-hoc methods start from, whose training took {} over {} items ({} tokens) and is \
                     in no row. ",
                    seconds(training.seconds),
                    count(items),
                    count(training.tokens)
                ),
            },
            seconds_of(run)
        ),
        first: "method".into(),
        columns: texts([
            "extra data",
            "fit",
            "fit forwards",
            "fit backwards",
            "all predictions",
            "forwards per answer",
            "backwards per answer",
            "kept",
            "found",
            "settings",
        ]),
        rows: rows.collect(),
        order: Order::Methods,
    }
}

/// On what the seconds were taken.
fn seconds_of(run: &RunReport) -> String {
    let mut machines: Vec<(&str, Vec<&str>)> = Vec::new();
    for row in run.rows.iter().filter(|row| row.cost.is_some() && row.calibration.is_none()) {
        let machine = row.machine.as_deref().unwrap_or("a machine whose name was not kept");
        match machines.iter_mut().find(|(known, _)| *known == machine) {
            Some((_, names)) => names.push(&row.name),
            None => machines.push((machine, vec![&row.name])),
        }
    }
    match &machines[..] {
        [] => String::new(),
        [(machine, _)] => format!("Seconds of the rows are those of {machine}."),
        several => {
            let each = several.iter().map(|(machine, names)| format!("{machine} ({})", names.join(", ")));
            format!(
                "Seconds of the rows are of several machines, not to be compared: {}.",
                each.collect::<Vec<_>>().join("; ")
            )
        }
    }
}

/// The seeds of a task side by side; none where there is one seed.
pub(super) fn of_seeds(group: &SeedGroup, options: &ReportOptions) -> Option<Table> {
    if group.seeds.len() < 2 {
        return None;
    }
    let columns = merged(group.rows.iter().map(|row| row.numbers.iter().map(|(name, _)| name)));
    let cell = |row: &SeedRow, column: &String| match row.numbers.iter().find(|(name, _)| name == column) {
        None => TableCell::none(),
        Some((_, spread)) => TableCell::of_spread(spread, group.seeds.len()),
    };
    let is_reference = |name: &String| group.rows.iter().flat_map(|row| &row.against).any(|p| p.reference == *name);
    let references: Vec<&String> = group.rows.iter().map(|row| &row.name).filter(|name| is_reference(name)).collect();
    let mut remarks = Vec::new();
    let mut rows = Vec::new();
    for row in &group.rows {
        for (caveat, seeds) in &row.caveats {
            remarks.push(format!(" {} (seeds {}): {caveat}.", row.name, listed(seeds)));
        }
        let n_answered = row.numbers.first().map_or(0, |(_, spread)| spread.n_seeds);
        let mut cells = vec![TableCell::new(format!("{n_answered} of {}", group.seeds.len()))];
        cells.extend(columns.iter().map(|column| cell(row, column)));
        cells.extend(references.iter().map(|reference| against(row, reference, &group.seeds)));
        let failed = row.failures.iter().map(|(seed, reason)| format!("seed {seed}: {reason}"));
        let failed = failed.collect::<Vec<_>>().join("; ");
        let reason = row.numbers.is_empty().then(|| failed.clone());
        if reason.is_none() && !failed.is_empty() {
            remarks.push(format!(" {} failed for {failed}.", row.name));
        }
        rows.push(TableRow { name: row.name.clone(), cells, reason, variant: row.calibration.is_some() });
    }
    let headings = columns.iter().map(|name| match name.as_str() {
        "accuracy at coverage" => format!("accuracy at {} coverage", percent(options.coverage)),
        "coverage at accuracy" => format!("coverage at {} accuracy", percent(options.accuracy)),
        other => other.to_string(),
    });
    Some(Table {
        title: format!("Over the seeds {}", listed(&group.seeds)),
        note: format!(
            "Mean over the seeds, and in brackets the smallest and the largest: the seeds' spread, no interval. {}, which are never \
             pooled. Nothing is averaged over tasks. P(NLL better): how sure it is, on the same items and seed by seed, that the \
             row has less NLL.{}",
            if group.same_test_items {
                "All seeds have the same test items"
            } else {
                "Each seed has test items of its own"
            },
            remarks.concat()
        ),
        first: "method".into(),
        columns: std::iter::once("seeds".to_string())
            .chain(headings)
            .chain(references.iter().map(|reference| format!("P(NLL better than {reference})")))
            .collect(),
        rows,
        order: Order::Rows,
    })
}

fn listed(seeds: &[u64]) -> String {
    seeds.iter().map(u64::to_string).collect::<Vec<_>>().join(", ")
}

/// P(better) of each seed, in the order of the seeds.
fn against(row: &SeedRow, reference: &str, seeds: &[u64]) -> TableCell {
    let Some(pairs) = row.against.iter().find(|pairs| pairs.reference == reference) else { return TableCell::none() };
    let of_seed = |seed: &u64| match pairs.p_better.iter().find(|(found, _)| found == seed) {
        Some((_, p)) => probability(*p),
        None => "—".into(),
    };
    TableCell::new(seeds.iter().map(of_seed).collect::<Vec<_>>().join(" / "))
}
