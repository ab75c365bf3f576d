//! Tables of what the study of training items leaves: wrong labels, influence, labels to ask for next, sets of classes.

use crate::data::{Data, Failure, Node, Spec};
use crate::table::{Table, estimate, mean};
use std::collections::BTreeMap;

/// Coverage that a repetition may miss by chance: with 500 items two in a hundred fall lower, were it 0.9.
const LOW: f64 = 0.87;

/// How many wrong labels stand among those that a score ranks highest, seed by seed, and how well it ranks all.
pub fn wrong_labels(spec: &Spec, data: &mut Data) -> Result<String, Failure> {
    let found =
        data.json(spec.file()?)?.list("")?.iter().map(|run| run.at("mislabelled")).collect::<Result<Vec<_>, _>>()?;
    let mut columns = vec!["score".to_string()];
    for run in &found {
        columns.push(format!("seed {}: found, of {}", run.number("seed")?, run.number("n_wrong")?));
    }
    columns.push("AUROC, seed by seed".into());
    let mut table = Table::new(columns);
    let by_run = found.iter().map(|run| run.list("scores")).collect::<Result<Vec<_>, _>>()?;
    for (at, score) in by_run.first().ok_or("there is no run")?.iter().enumerate() {
        let (mut cells, mut auroc) = (vec![score.text("name")?], Vec::new());
        for (run, scores) in found.iter().zip(&by_run) {
            cells.push(format!("{:.0}", scores[at].number("recall")? * run.number("n_wrong")?));
            auroc.push(format!("{:.3}", scores[at].number("auroc.value")?));
        }
        cells.push(auroc.join(", "));
        table.row(cells);
    }
    let (mut cells, looked_at) = (vec!["chance".to_string()], |run: &Node| run.number("looked_at"));
    for run in &found {
        cells.push(format!("{:.0}", run.number("n_wrong")? * looked_at(run)? / run.number("n_items")?));
    }
    cells.push("0.5".into());
    table.row(cells);
    Ok(table.markdown())
}

/// Rank correlation of what influences foretell with what retraining does, a column a seed.
pub fn influence(spec: &Spec, data: &mut Data) -> Result<String, Failure> {
    let runs = data.json(spec.file()?)?.list("")?;
    let mut columns = vec!["influence".to_string()];
    for run in &runs {
        columns.push(format!("seed {}", run.number("seed")?));
    }
    let mut table = Table::new(columns);
    let by_run = runs.iter().map(|run| run.list("rows")).collect::<Result<Vec<_>, _>>()?;
    for (at, row) in by_run.first().ok_or("there is no run")?.iter().enumerate() {
        let scores = by_run.iter().map(|rows| estimate(&rows[at].at("score")?));
        let cells = std::iter::once(row.text("name")).chain(scores);
        table.row(cells.collect::<Result<Vec<_>, _>>()?);
    }
    Ok(table.markdown())
}

/// Mean test accuracy over the number of labels, a line a rule; then how far a rule is above random choice, the mean of the rounds.
pub fn labels_next(spec: &Spec, data: &mut Data) -> Result<String, Failure> {
    let curves = data.json(spec.file()?)?.list("curves")?;
    let (mut rules, mut by_rule) = (Vec::new(), BTreeMap::<String, Vec<Vec<f64>>>::new());
    for curve in &curves {
        let rule = curve.text("rule")?;
        if !rules.contains(&rule) {
            rules.push(rule.clone());
        }
        by_rule.entry(rule).or_default().push(curve.numbers("test_accuracy")?);
    }
    let labels = curves.first().ok_or("there is no curve")?.numbers("n_labels")?;
    let columns = ["labels".to_string()].into_iter().chain(labels.iter().map(f64::to_string));
    let mut table = Table::new(columns.chain(["after the first, above random (s.e. over seeds)".to_string()]));
    let random = by_rule[&rules[0]].clone();
    for rule in &rules {
        let seeds = &by_rule[rule];
        let mut cells = vec![rule.clone()];
        for at in 0..labels.len() {
            cells.push(format!("{:.3}", mean(&seeds.iter().map(|curve| curve[at]).collect::<Vec<_>>())));
        }
        let later = |curve: &[f64]| mean(&curve[1..]);
        let above: Vec<f64> = seeds.iter().zip(&random).map(|(curve, other)| later(curve) - later(other)).collect();
        let spread = above.iter().map(|value| (value - mean(&above)).powi(2)).sum::<f64>() / (above.len() - 1) as f64;
        let error = (spread / above.len() as f64).sqrt();
        cells.push(if *rule == rules[0] { "–".into() } else { format!("{:+.3} ({error:.3})", mean(&above)) });
        table.row(cells);
    }
    Ok(table.markdown())
}

/// Every way to a threshold and every score: coverage over the repetitions, and the size of the sets.
pub fn sets(spec: &Spec, data: &mut Data) -> Result<String, Failure> {
    let report = data.json(spec.file()?)?;
    let mut table = Table::new([
        "threshold from".to_string(),
        "score".into(),
        "coverage: mean (5 % to 95 % of the repetitions)".into(),
        format!("repetitions below {LOW}"),
        "classes in a set".into(),
    ]);
    for row in report.list("rows")? {
        let mut coverage = row.numbers("coverage")?;
        coverage.sort_by(f64::total_cmp);
        let sizes = row.numbers("size")?;
        let at = |share: f64| coverage[((coverage.len() - 1) as f64 * share).round() as usize];
        let low = coverage.iter().filter(|value| **value < LOW).count() as f64 / coverage.len() as f64;
        table.row([
            row.text("name")?,
            row.text("score")?,
            format!("{:.3} ({:.3}–{:.3})", mean(&coverage), at(0.05), at(0.95)),
            format!("{:.0} %", 100.0 * low),
            format!("{:.2}", mean(&sizes)),
        ]);
    }
    Ok(table.markdown())
}
