//! Tables of the cells of the leave-one-out study.

use crate::data::{Data, Failure, Node, Spec};
use crate::table::{Table, estimate, probability, range};

/// The rows that others are compared with, and the one that no label-free row can better but by luck.
const LIKELIHOOD: &str = "maximum likelihood";
const HUNDRED: &str = "ML + temperature, 100 labels";
const BOUND: &str = "ML + temperature, test labels (bound)";
const SCORES: [&str; 5] = ["accuracy", "nll", "ece", "brier", "aurc"];
/// Shown as 0.000, without a sign.
const ROUNDED: f64 = 5e-4;

/// One row of one cell, where it was scored.
struct Scored {
    name: String,
    source: String,
    scores: Option<Node>,
}

/// The cells of a directory whose names begin with one of the words given (`cells`), in order, or all.
fn cells(spec: &Spec, data: &mut Data) -> Result<Vec<(String, Node)>, Failure> {
    let dir = spec.file()?;
    let wanted = spec.values("cells");
    let mut found = Vec::new();
    for name in data.names(dir)? {
        if wanted.is_empty() || wanted.iter().any(|start| name.starts_with(start)) {
            found.push((name.clone(), data.json(&format!("{dir}/{name}"))?));
        }
    }
    if found.is_empty() {
        return Err(format!("{dir}: no cell begins with {wanted:?}").into());
    }
    Ok(found)
}

fn rows(cell: &Node) -> Result<Vec<Scored>, Failure> {
    let row =
        |row: Node| Ok(Scored { name: row.text("name")?, source: row.text("source")?, scores: row.find("scores") });
    cell.list("rows")?.into_iter().map(row).collect()
}

/// Every name, in the order of the cells.
fn names(all: &[Vec<Scored>]) -> Vec<(&str, &str)> {
    let mut names: Vec<(&str, &str)> = Vec::new();
    for row in all.iter().flatten() {
        if !names.iter().any(|(name, _)| *name == row.name) {
            names.push((&row.name, &row.source));
        }
    }
    names
}

fn named<'a>(rows: &'a [Scored], name: &str) -> Option<&'a Node> {
    rows.iter().find(|row| row.name == name)?.scores.as_ref()
}

/// Every row over the seeds of a task, but those whose names end with one of the words given (`without`): means with the smallest and the
/// largest, P seed by seed.
pub fn scores(spec: &Spec, data: &mut Data) -> Result<String, Failure> {
    let cells = cells(spec, data)?;
    let all = cells.iter().map(|(_, cell)| rows(cell)).collect::<Result<Vec<_>, _>>()?;
    let columns = ["row", "accuracy", "NLL", "ECE", "Brier", "AURC"];
    let mut table = Table::new(
        columns.into_iter().chain(["P(NLL better than ML)", "P(NLL better than ML + temperature of 100 labels)"]),
    );
    let without = spec.values("without");
    for (name, _) in names(&all) {
        if without.iter().any(|end| name.ends_with(end)) {
            continue;
        }
        let found: Vec<&Node> = all.iter().filter_map(|rows| named(rows, name)).collect();
        let mut line = vec![name.to_string()];
        if found.is_empty() {
            line.push("refused".into());
            table.row(line);
            continue;
        }
        for score in SCORES {
            let values = found.iter().map(|row| row.number(&format!("{score}.value")));
            line.push(range(&values.collect::<Result<Vec<_>, _>>()?));
        }
        for other in ["against_ml", "against_100_labels"] {
            let of_seed = |rows: &Vec<Scored>| match named(rows, name).and_then(|row| row.find(other)) {
                Some(pair) => Ok(probability(pair.number("p_better")?)),
                None => Ok::<_, Failure>("–".into()),
            };
            line.push(all.iter().map(of_seed).collect::<Result<Vec<_>, _>>()?.join(" / "));
        }
        table.row(line);
    }
    Ok(table.markdown())
}

/// Of each row in how many cells it harms beyond its interval, helps beyond it, and has less NLL than the temperature of 100 labels.
pub fn counts(spec: &Spec, data: &mut Data) -> Result<String, Failure> {
    let cells = cells(spec, data)?;
    let all = cells.iter().map(|(_, cell)| rows(cell)).collect::<Result<Vec<_>, _>>()?;
    let mut table = Table::new([
        "row",
        "cells (refused)",
        "harms beyond its interval",
        "helps beyond it",
        "worst NLL above ML's",
        "NLL below that of 100 labels",
        "mean NLL above the bound's",
    ]);
    let mut names = names(&all);
    // those that need no label first
    names.sort_by_key(|(_, source)| *source != "training_items");
    let wanted = spec.values("rows");
    for (name, source) in names {
        let is_left_out = !wanted.is_empty() && !wanted.contains(&name);
        if name == LIKELIHOOD || source == "test_labels" || is_left_out {
            continue;
        }
        let (mut n, mut harms, mut helps, mut below, mut compared) = (0, 0, 0, 0, 0);
        let (mut worst, mut above) = (f64::NEG_INFINITY, 0.0);
        let asked = all.iter().filter(|rows| rows.iter().any(|row| row.name == name)).count();
        for rows in &all {
            let Some(row) = named(rows, name) else { continue };
            n += 1;
            let nll = row.number("nll.value")?;
            let difference = |end: &str| row.number(&format!("against_ml.difference.{end}"));
            harms += usize::from(difference("low")? > 0.0);
            helps += usize::from(difference("high")? < 0.0);
            worst = worst.max(difference("value")?);
            if let (Some(hundred), true) = (named(rows, HUNDRED), name != HUNDRED) {
                compared += 1;
                below += usize::from(nll < hundred.number("nll.value")?);
            }
            let bound = named(rows, BOUND).ok_or_else(|| format!("a cell has no `{BOUND}`"))?;
            above += nll - bound.number("nll.value")?;
        }
        if n == 0 {
            table.row([name.to_string(), format!("0 ({asked})")]);
            continue;
        }
        table.row([
            name.to_string(),
            if asked == n { n.to_string() } else { format!("{n} ({})", asked - n) },
            harms.to_string(),
            helps.to_string(),
            if worst.abs() < ROUNDED { "0.000".into() } else { format!("{worst:+.3}") },
            if compared == 0 { "–".into() } else { format!("{below} of {compared}") },
            format!("{:.3}", above / n as f64),
        ]);
    }
    Ok(table.markdown())
}

/// A line a cell and row of those chosen: NLL and ECE with their intervals, and how sure it is that the row betters maximum likelihood.
pub fn chosen(spec: &Spec, data: &mut Data) -> Result<String, Failure> {
    let mut table = Table::new(["task", "row", "accuracy", "NLL", "ECE", "P(NLL better than ML)"]);
    let (cells, tasks) = (cells(spec, data)?, spec.values("tasks"));
    if cells.len() != tasks.len() {
        return Err(format!("{} cells have {} names in `tasks`", cells.len(), tasks.len()).into());
    }
    for ((cell, node), task) in cells.into_iter().zip(tasks) {
        let (scored, mut task) = (rows(&node)?, task.to_string());
        for name in spec.values("rows") {
            let row = named(&scored, name).ok_or_else(|| format!("{cell}: there is no `{name}`"))?;
            let pair = row.find("against_ml").filter(|_| name != LIKELIHOOD);
            let p = pair.map(|pair| pair.number("p_better")).transpose()?;
            let [accuracy, nll, ece] = ["accuracy", "nll", "ece"].map(|score| estimate(&row.at(score)?));
            table.row([
                std::mem::take(&mut task),
                name.to_string(),
                accuracy?,
                nll?,
                ece?,
                p.map_or("–".into(), probability),
            ]);
        }
    }
    Ok(table.markdown())
}

/// What is known of each adapter: its fit, what leaving out says of it, and the numbers that were found.
pub fn adapters(spec: &Spec, data: &mut Data) -> Result<String, Failure> {
    let mut table = Table::new([
        "cell",
        "training NLL",
        "accuracy: training, left out, cross-fitted, held out",
        "NLL: left out, cross-fitted, held out",
        "λ of weights: usual evidence, own mode, matched",
        "β: left out, own logits, cross-fitted, 300 labels, test labels",
    ]);
    for (name, cell) in cells(spec, data)? {
        let three = |path: &str| {
            cell.find(path).map_or(Ok("–".into()), |_| Ok::<_, Failure>(format!("{:.3}", cell.number(path)?)))
        };
        let join = |paths: &[&str]| {
            Ok::<_, Failure>(paths.iter().map(|path| three(path)).collect::<Result<Vec<_>, _>>()?.join(", "))
        };
        let whole = |of: &str| {
            let path = format!("left_out.0.precision_{of}");
            cell.find(&path).map_or(Ok("–".into()), |_| Ok::<_, Failure>(format!("{:.1}", cell.number(&path)?)))
        };
        let listed = cell.list("rows")?;
        let beta = |name: &str| -> Result<String, Failure> {
            for row in &listed {
                if row.text("name")?.starts_with(name) && row.find("found.0").is_some() {
                    return Ok(format!("{:.2}", row.number("found.0.value")?));
                }
            }
            Ok("–".into())
        };
        let free = ["ML + leave-one-out temperature, β free", "ML + leave-one-out temperature, own logits, β free"];
        let betas = [free[0], free[1], "ML + cross-fitted temperature", "ML + temperature, 300 labels", BOUND];
        table.row([
            name,
            three("training.nll")?,
            join(&[
                "training.accuracy",
                "left_out.0.shifted.accuracy",
                "cross_fitted.fit.accuracy",
                "held_out.accuracy",
            ])?,
            join(&["left_out.0.shifted.nll", "cross_fitted.fit.nll", "held_out.nll"])?,
            ["by_evidence", "at_own_mode", "matched"].map(whole).into_iter().collect::<Result<Vec<_>, _>>()?.join(", "),
            betas.map(beta).into_iter().collect::<Result<Vec<_>, _>>()?.join(", "),
        ]);
    }
    Ok(table.markdown())
}

/// Seconds of every stage, the mean over the cells, and the bytes that it leaves.
pub fn costs(spec: &Spec, data: &mut Data) -> Result<String, Failure> {
    let mut stages: Vec<(String, Vec<f64>, Option<f64>)> = Vec::new();
    for (_, cell) in cells(spec, data)? {
        for cost in cell.list("costs")? {
            let (what, seconds) = (cost.text("what")?, cost.number("seconds")?);
            let bytes = cost.find("bytes").map(|_| cost.number("bytes")).transpose()?;
            match stages.iter_mut().find(|(known, ..)| *known == what) {
                Some((_, all, _)) => all.push(seconds),
                None => stages.push((what, vec![seconds], bytes)),
            }
        }
    }
    let mut table = Table::new(["stage", "seconds", "MB"]);
    for (what, seconds, bytes) in stages {
        let mean = seconds.iter().sum::<f64>() / seconds.len() as f64;
        table.row([what, format!("{mean:.1}"), bytes.map_or(String::new(), |bytes| format!("{:.1}", bytes / 1e6))]);
    }
    Ok(table.markdown())
}
