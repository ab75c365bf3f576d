//! Says in words which row is best and by how much.

use super::format::{interval, number, percent, probability, signed};
use super::lead::{Entry, Lead};
use super::numbers::Report;
use super::row::{NLL, Score};
use super::standing::{Ranked, Standing, least_sure, mean_difference};
use super::table::{Order, Table, TableCell, TableRow};
use serde::Serialize;

/// Best rows that are shown beside the reference.
const SHOWN: usize = 6;

/// What the first screen says of a task.
#[derive(Serialize)]
pub(super) struct Answer {
    /// The best row.
    pub best: String,
    /// What it is, after its name.
    pub headline: String,
    pub sentences: Vec<String>,
    /// The best rows against the reference.
    pub lead: Option<Lead>,
    /// What the rows are compared with.
    pub reference: String,
    pub several_seeds: bool,
    /// The best row by each score.
    pub scores: Table,
}

/// The answer for every group of the report, none where nothing can be compared.
pub(super) fn answers(report: &Report) -> Vec<Option<Answer>> {
    let answer = |standing: Standing| Answer::new(&standing);
    report.groups.iter().map(|group| Standing::new(report, group).and_then(answer)).collect()
}

/// The best row of every task against its reference; none of one task.
pub(super) fn all_tasks(report: &Report) -> Option<Lead> {
    if report.groups.len() < 2 {
        return None;
    }
    let entry = |group| {
        let standing = Standing::new(report, group)?;
        let best = *standing.ranking(&NLL).first()?;
        Some(Entry {
            name: group.task.clone(),
            detail: format!("{}: {}, NLL {}", group.model, best.name(), number(best.mean)),
            against: standing.against_reference(best.name(), &NLL),
        })
    };
    Lead::new("task", report.groups.iter().filter_map(entry).collect())
}

impl Answer {
    fn new(standing: &Standing) -> Option<Self> {
        let ranking = standing.ranking(&NLL);
        let best = ranking.first()?;
        let n_seeds = standing.group.seeds.len();
        let mean = if n_seeds > 1 { format!(", the mean over {n_seeds} seeds") } else { String::new() };
        Some(Self {
            best: best.name().into(),
            headline: format!("has the least NLL: {} nats per item{mean}.", number(best.mean)),
            sentences: sentences(standing, &ranking),
            lead: lead(standing, &ranking),
            reference: standing.reference.into(),
            several_seeds: n_seeds > 1,
            scores: by_score(standing),
        })
    }
}

/// By how much, against what, and what cannot be told apart.
fn sentences(standing: &Standing, ranking: &[Ranked]) -> Vec<String> {
    let (best, reference) = (&ranking[0], standing.reference);
    let mut said = Vec::new();
    if best.name() == reference {
        said.push(format!("No row has less NLL than {reference}."));
    } else {
        said.extend(gain(standing, best));
        said.extend(ranking.get(1).filter(|next| next.name() != reference).map(|next| over_next(standing, best, next)));
    }
    said.extend(without_labels(standing, ranking));
    let is_clear = |ranked: &&Ranked| standing.is_clearly_better(ranked.name(), reference, &NLL);
    let others = ranking.iter().filter(|ranked| ranked.name() != reference);
    let (n_others, n_clear) = (others.clone().count(), others.filter(is_clear).count());
    said.push(match n_clear {
        0 => format!("Nothing is clearly better than {reference}."),
        n => format!("{n} of {n_others} rows are clearly better than {reference}."),
    });
    said
}

/// The gain over the reference, with its interval.
fn gain(standing: &Standing, best: &Ranked) -> Vec<String> {
    let (name, reference) = (best.name(), standing.reference);
    let against = standing.against_reference(name, &NLL);
    let (Some(mean), Some(worst)) = (mean_difference(&against), least_sure(&against)) else { return Vec::new() };
    let n_clear = against.iter().filter(|a| a.p_better >= standing.level).count();
    let verdict = match (n_clear, against.len()) {
        (k, n) if k == n => format!("It is clearly better than {reference}"),
        (0, _) => format!("It is not clearly better than {reference}"),
        (k, n) => format!("It is clearly better than {reference} for {k} of {n} seeds"),
    };
    let (level, d) = (percent(standing.level), worst.difference);
    let how_sure = format!("{level} interval {}, P(better) {}", interval(-d.high, -d.low), probability(worst.p_better));
    match against.len() {
        1 => vec![format!("{verdict}: its NLL is {} nats lower ({how_sure}).", number(-mean))],
        _ => vec![
            format!("{verdict}: its NLL is {} nats lower on average.", number(-mean)),
            format!("In the least certain seed it is {} nats lower ({how_sure}).", number(-d.value)),
        ],
    }
}

/// The best row against the second.
fn over_next(standing: &Standing, best: &Ranked, next: &Ranked) -> String {
    let p = standing.p_better(best.name(), next.name(), &NLL);
    let clear = match standing.is_clearly_better(best.name(), next.name(), &NLL) {
        true => "is clearly better than",
        false => "is not clearly better than",
    };
    let p: Vec<String> = p.into_iter().map(probability).collect();
    let by_seed = if p.len() > 1 { ", seed by seed" } else { "" };
    format!("It {clear} the next, {} (P(better) {}{by_seed}).", next.name(), p.join(" / "))
}

/// The best among the rows that read the training items alone, where the best of all read more.
fn without_labels(standing: &Standing, ranking: &[Ranked]) -> Vec<String> {
    if standing.reads_nothing_else(ranking[0].name()) {
        return Vec::new();
    }
    let mut said = vec!["It reads data besides the training items.".to_string()];
    let frugal = ranking.iter().find(|ranked| standing.reads_nothing_else(ranked.name()));
    said.extend(frugal.map(|frugal| {
        format!("Of the rows that do not, {} has the least NLL: {}.", frugal.name(), number(frugal.mean))
    }));
    said
}

/// The best rows, the best that reads nothing else, and the reference.
fn lead(standing: &Standing, ranking: &[Ranked]) -> Option<Lead> {
    let frugal = ranking.iter().position(|ranked| standing.reads_nothing_else(ranked.name()));
    let is_shown = |(place, ranked): &(usize, &Ranked)| {
        *place < SHOWN || Some(*place) == frugal || ranked.name() == standing.reference
    };
    let entry = |(_, ranked): (usize, &Ranked)| Entry {
        name: ranked.name().into(),
        detail: format!("NLL {}", number(ranked.mean)),
        // a difference from itself is none
        against: match ranked.name() == standing.reference {
            true => Vec::new(),
            false => standing.against_reference(ranked.name(), &NLL),
        },
    };
    Lead::new("method", ranking.iter().enumerate().filter(is_shown).map(entry).collect())
}

fn by_score(standing: &Standing) -> Table {
    let rows = standing.scores().iter().filter_map(|score| score_row(standing, score));
    Table {
        title: "The best row by each score".into(),
        note: format!(
            "Mean over the seeds; below a difference, the {} interval of the least certain seed. A row is called clearly better where \
             P(better) is at least {} in every seed. The best of many rows is found by the items that score it, which flatters its lead.",
            percent(standing.level),
            percent(standing.level),
        ),
        first: "score".into(),
        columns: [
            "best row",
            "mean",
            "difference from the reference",
            "P(better than the reference)",
            "not clearly worse",
        ]
        .map(String::from)
        .to_vec(),
        rows: rows.collect(),
        order: Order::Fixed,
    }
}

fn score_row(standing: &Standing, score: &Score) -> Option<TableRow> {
    let ranking = standing.ranking(score);
    let best = ranking.first()?;
    let against = match best.name() == standing.reference {
        true => Vec::new(),
        false => standing.against_reference(best.name(), score),
    };
    let difference = mean_difference(&against)
        .zip(least_sure(&against))
        .map(|(mean, worst)| TableCell::with(signed(mean), interval(worst.difference.low, worst.difference.high)));
    let p: Vec<String> = against.iter().map(|a| probability(a.p_better)).collect();
    let others = &ranking[1..];
    let is_tied = |other: &&Ranked| !standing.is_clearly_better(best.name(), other.name(), score);
    let n_tied = others.iter().filter(is_tied).count();
    let arrow = if score.higher_is_better { "↑" } else { "↓" };
    Some(TableRow {
        name: format!("{} {arrow}", score.name),
        cells: vec![
            TableCell::words(best.name()),
            TableCell::new(number(best.mean)),
            difference.unwrap_or_else(TableCell::none),
            if p.is_empty() { TableCell::none() } else { TableCell::new(p.join(" / ")) },
            TableCell::new(format!("{n_tied} of {}", others.len())),
        ],
        reason: None,
        variant: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::{ReportOptions, synthetic};

    /// A report in which every row has P(better) `p` of the seed against every other.
    fn report(p: &[f64]) -> Report {
        let mut options = ReportOptions::default();
        options.scores.n_draws = 20;
        let runs = (0..p.len() as u64).map(|seed| synthetic::run("a", seed, &["map", "laplace"]));
        let mut report = Report::new(runs.collect(), options).unwrap();
        for (run, p) in report.runs.iter_mut().zip(p) {
            run.paired.as_mut().unwrap().matrix.nll.p_better.iter_mut().flatten().for_each(|found| *found = *p);
        }
        report
    }

    /// Makes `laplace + temperature` the best, then `laplace`.
    fn ordered(mut report: Report, reference: f64) -> Report {
        let means = [reference, reference, 0.8, 0.75];
        for (row, mean) in report.groups[0].rows.iter_mut().zip(means) {
            row.numbers.iter_mut().filter(|(name, _)| name == "NLL").for_each(|(_, spread)| spread.mean = mean);
        }
        report
    }

    fn said(report: &Report) -> String {
        let answer = answers(report).remove(0).unwrap();
        format!("{} {} {}", answer.best, answer.headline, answer.sentences.join(" "))
    }

    #[test]
    fn one_seed_says_its_interval_and_nothing_of_means() {
        let text = said(&ordered(report(&[0.97]), 1.0));
        assert!(text.starts_with(
            "laplace + temperature has the least NLL: 0.750 nats per item. It is clearly better than map: its NLL "
        ));
        assert!(text.contains("(95 % interval [") && text.contains("P(better) 0.97)."), "{text}");
        assert!(text.contains("It is clearly better than the next, laplace (P(better) 0.97)."), "{text}");
        assert!(text.contains("Of the rows that do not, laplace has the least NLL: 0.800."), "{text}");
        assert!(text.ends_with("3 of 3 rows are clearly better than map."), "{text}");
    }

    #[test]
    fn what_some_seeds_say_is_not_called_clear() {
        let text = said(&ordered(report(&[0.97, 0.9]), 1.0));
        assert!(text.contains(", the mean over 2 seeds. It is clearly better than map for 1 of 2 seeds: "), "{text}");
        assert!(text.contains("In the least certain seed it is ") && text.contains("P(better) 0.90)."), "{text}");
        assert!(text.contains("It is not clearly better than the next, laplace"), "{text}");
        assert!(text.contains("(P(better) 0.97 / 0.90, seed by seed)."), "{text}");
        assert!(text.ends_with("Nothing is clearly better than map."), "{text}");
    }

    #[test]
    fn where_nothing_is_better_the_answer_says_so() {
        let report = ordered(report(&[0.5, 0.5]), 0.5);
        let text = said(&report);
        assert!(text.starts_with("map has the least NLL: 0.500 nats"), "{text}");
        assert!(text.contains("No row has less NLL than map. Nothing is clearly better than map."), "{text}");
        let lead = answers(&report).remove(0).unwrap().lead.unwrap();
        assert_eq!((lead.rows[0].name.as_str(), lead.rows[0].difference.as_str()), ("map", "—"));
    }

    #[test]
    fn the_best_rows_and_the_reference_are_shown_and_every_score_has_its_best() {
        let names: Vec<String> = (0..9).map(|i| format!("method {i}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut options = ReportOptions::default();
        options.scores.n_draws = 20;
        let mut report = Report::new(vec![synthetic::run("a", 0, &names)], options).unwrap();
        let nll = report.groups[0].rows[0].numbers.iter_mut().find(|(name, _)| name == "NLL").unwrap();
        nll.1.mean = 9.0;
        let answer = answers(&report).remove(0).unwrap();
        let shown: Vec<String> = answer.lead.unwrap().rows.into_iter().map(|row| row.name).collect();
        assert!(shown.len() <= SHOWN + 2 && shown.last().is_some_and(|last| last == "method 0"), "{shown:?}");
        assert_eq!(answer.best, shown[0]);
        let scores: Vec<&str> = answer.scores.rows.iter().map(|row| row.name.as_str()).collect();
        assert_eq!(scores, ["NLL ↓", "accuracy ↑", "ECE ↓", "Brier ↓", "AURC ↓"]);
        assert!(all_tasks(&report).is_none());
    }
}
