//! Tables of the cells of `invented_facts`.

use crate::data::{Data, Failure, Node, Spec};
use crate::table::{Table, estimate, range};

/// Every score of `answers own` or `fact`: AUROC in each seed with its interval, for people never read about above all others, and how
/// much more that is than by the log-likelihood; over the seeds for those above people read about once, and for wrong answers above right
/// ones with the prediction rejection ratio.
pub fn scores(spec: &Spec, data: &mut Data) -> Result<String, Failure> {
    let (cells, answers) = (cells(spec, data)?, spec.value("answers")?.to_string());
    let mut columns = vec!["score".to_string()];
    for cell in &cells {
        columns.push(format!("unseen above seen, seed {}", cell.number("seed")?));
    }
    columns.push("more than by −log-likelihood".into());
    columns.push("unseen above seen once".into());
    if answers == "own" {
        columns.push("wrong above right".into());
    }
    // older cells have no prediction rejection ratio
    let mut has_ratio = answers == "own";
    for seed in 0..cells.len() {
        has_ratio &= rows(&cells, &answers, seed)?.iter().all(|row| row.find("rejection").is_some());
    }
    if has_ratio {
        columns.push("PRR".into());
    }
    let mut table = Table::new(columns);
    for (index, row) in rows(&cells, &answers, 0)?.iter().enumerate() {
        let others = (0..cells.len()).map(|seed| {
            rows(&cells, &answers, seed)?.into_iter().nth(index).ok_or_else(|| "cells have other rows".into())
        });
        let others = others.collect::<Result<Vec<Node>, Failure>>()?;
        let mut line = vec![row.text("score")?];
        for other in &others {
            line.push(estimate(&other.at("unseen_above_seen")?)?);
        }
        let more = |other: &Node| other.find("more.0").map_or(Ok("–".into()), |more| estimate(&more));
        let mut differences = others.iter().map(more).collect::<Result<Vec<String>, Failure>>()?;
        differences.dedup_by(|a, b| *a == "–" && *b == "–");
        line.push(differences.join(" / "));
        let values = |path: &str| others.iter().map(|other| other.number(path)).collect::<Result<Vec<f64>, _>>();
        line.push(range(&values("unseen_above_once.value")?));
        if answers == "own" {
            line.push(range(&values("wrong_above_right.value")?));
        }
        if has_ratio {
            line.push(range(&values("rejection.value")?));
        }
        table.row(line);
    }
    Ok(table.markdown())
}

/// Means of every score of own answers by exposure, over the seeds, and the share of right answers.
pub fn exposure(spec: &Spec, data: &mut Data) -> Result<String, Failure> {
    let cells = cells(spec, data)?;
    let exposures = cells[0].numbers("exposures")?;
    let mut table =
        Table::new(["mean over people".to_string()].into_iter().chain(exposures.iter().map(|n| format!("{n} copies"))));
    let line = |name: String, of: &dyn Fn(usize, usize) -> Result<f64, Failure>| -> Result<Vec<String>, Failure> {
        let mut line = vec![name];
        for exposure in 0..exposures.len() {
            let values = (0..cells.len()).map(|seed| of(seed, exposure)).collect::<Result<Vec<f64>, _>>()?;
            line.push(range(&values));
        }
        Ok(line)
    };
    table.row(line("answers that are right".into(), &|seed, e| Ok(cells[seed].numbers("right")?[e]))?);
    for (index, row) in rows(&cells, "own", 0)?.iter().enumerate() {
        let of = |seed: usize, e: usize| Ok(rows(&cells, "own", seed)?[index].numbers("by_exposure")?[e]);
        table.row(line(row.text("score")?, &of)?);
    }
    Ok(table.markdown())
}

pub(crate) fn cells(spec: &Spec, data: &mut Data) -> Result<Vec<Node>, Failure> {
    let dir = spec.file()?;
    let cells =
        data.names(dir)?.iter().map(|name| data.json(&format!("{dir}/{name}"))).collect::<Result<Vec<_>, _>>()?;
    if cells.is_empty() { Err(format!("{dir} has no cells").into()) } else { Ok(cells) }
}

/// The rows of one seed about these answers.
fn rows(cells: &[Node], answers: &str, seed: usize) -> Result<Vec<Node>, Failure> {
    let mut rows = cells[seed].list("rows")?;
    rows.retain(|row| row.text("answers").is_ok_and(|of| of == answers));
    Ok(rows)
}
