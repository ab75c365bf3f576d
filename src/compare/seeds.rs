//! Lays the seeds of one task side by side: the mean of each number and how far the seeds are apart.
//!
//! Seeds may share test items, so that their answers are never pooled as if they were independent; and no number here is a mean
//! over tasks.

use super::report::{ReportRow, RowOutcome, RunReport};
use super::setting::TEST_DATA;
use super::summary::{Detection, Summary};
use crate::calibrate::Calibration;
use serde::{Deserialize, Serialize};

/// The runs of one model on one task that differ in the seed alone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SeedGroup {
    /// The base model.
    pub model: String,
    /// The task.
    pub task: String,
    /// The seeds, ascending.
    pub seeds: Vec<u64>,
    /// Whether all seeds have the same test items: if not, the spread over the seeds is that of the items too.
    pub same_test_items: bool,
    /// Data from elsewhere whose answers are scored, by name.
    pub labelled: Vec<String>,
    /// One for each row of any of the runs.
    pub rows: Vec<SeedRow>,
}

/// A row over the seeds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SeedRow {
    /// Its name.
    pub name: String,
    /// The calibrator behind the method, if there is one.
    pub calibration: Option<Calibration>,
    /// Numbers with their spreads, by name; of a row that answered for no seed none.
    pub numbers: Vec<(String, Spread)>,
    /// How sure it is, seed by seed, that this row has less NLL than each row of the group's first method; none against itself.
    pub against: Vec<SeedPairs>,
    /// Why it did not answer, with the seed.
    pub failures: Vec<(u64, String)>,
    /// What a reader must know of its calibrator's fits, each with its seeds.
    pub caveats: Vec<(String, Vec<u64>)>,
}

/// A row compared with another on the same test items, seed by seed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SeedPairs {
    /// Name of the other row.
    pub reference: String,
    /// Each seed for which both answered, with the posterior probability that the row has less NLL.
    pub p_better: Vec<(u64, f64)>,
}

/// A number over the seeds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// Mean over the seeds.
    pub mean: f64,
    /// Smallest.
    pub low: f64,
    /// Largest.
    pub high: f64,
    /// Number of seeds.
    pub n_seeds: usize,
}

impl Spread {
    /// Mean, smallest and largest; none of no value.
    pub fn of(values: &[f64]) -> Option<Self> {
        let n_seeds = values.len();
        (n_seeds > 0).then(|| Self {
            mean: values.iter().sum::<f64>() / n_seeds as f64,
            low: values.iter().copied().fold(f64::INFINITY, f64::min),
            high: values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            n_seeds,
        })
    }
}

/// The numbers that are followed over the seeds, by name.
fn numbers(summary: &Summary) -> Vec<(String, f64)> {
    let scores = &summary.scores;
    let mut numbers: Vec<(String, f64)> = [
        ("accuracy", scores.accuracy.value),
        ("NLL", scores.nll.value),
        ("Brier", scores.brier.value),
        ("ECE", scores.ece.value),
        ("AURC", scores.aurc.value),
        ("accuracy at coverage", summary.selective.accuracy_at_coverage.value),
        ("coverage at accuracy", summary.selective.coverage_at_accuracy.value),
    ]
    .map(|(name, value)| (name.to_string(), value))
    .to_vec();
    numbers.extend(summary.oracle.map(|oracle| ("NLL at the oracle temperature".to_string(), oracle.nll.value)));
    for shift in &summary.shifted {
        let named = |d: &Detection| format!("AUROC {}, {}", shift.split, d.score.name());
        numbers.extend(shift.detections.iter().map(|d| (named(d), d.auroc.value)));
        if let Some(scores) = &shift.scores {
            let scored = [("accuracy", scores.accuracy), ("NLL", scores.nll), ("ECE", scores.ece)];
            numbers.extend(scored.map(|(name, score)| (on_split(name, &shift.split), score.value)));
        }
    }
    numbers
}

/// The name of a score on a shifted split.
pub(super) fn on_split(score: &str, split: &str) -> String {
    format!("{score} on {split}")
}

/// Groups runs by model and task, in the order of their first appearance; `runs` are sorted by seed within each.
pub(super) fn groups(runs: &[RunReport]) -> Vec<SeedGroup> {
    let mut groups: Vec<SeedGroup> = Vec::new();
    for run in runs {
        let info = &run.info;
        if !groups.iter().any(|group| (&group.model, &group.task) == (&info.model, &info.task)) {
            groups.push(group(runs, &info.model, &info.task));
        }
    }
    groups
}

fn group(runs: &[RunReport], model: &str, task: &str) -> SeedGroup {
    let of_group = || runs.iter().filter(|run| run.info.model == model && run.info.task == task);
    let mut methods: Vec<&str> = Vec::new();
    let mut names: Vec<(usize, Option<Calibration>, &str)> = Vec::new();
    for row in of_group().flat_map(|run| &run.rows) {
        let method = methods.iter().position(|method| *method == row.method).unwrap_or_else(|| {
            methods.push(&row.method);
            methods.len() - 1
        });
        names.push((method, row.calibration, &row.name));
    }
    // a method that failed at first has its calibrated rows behind it nonetheless
    names.sort();
    names.dedup();
    let references: Vec<&str> = names.iter().filter(|(method, ..)| *method == 0).map(|(.., name)| *name).collect();
    let rows = names.iter().map(|&(_, calibration, name)| {
        let found: Vec<(u64, &ReportRow)> = of_group()
            .flat_map(|run| run.rows.iter().map(|row| (run.info.seed, row)))
            .filter(|(_, row)| row.name == name)
            .collect();
        let mut values: Vec<(String, Vec<f64>)> = Vec::new();
        let mut failures = Vec::new();
        let mut caveats: Vec<(String, Vec<u64>)> = Vec::new();
        for (seed, row) in found {
            if let Some(caveat) = &row.caveat {
                push_under(&mut caveats, caveat.clone(), seed);
            }
            match &row.outcome {
                RowOutcome::Failed(reason) => failures.push((seed, reason.clone())),
                RowOutcome::Answered(summary) => {
                    numbers(summary).into_iter().for_each(|(name, value)| push_under(&mut values, name, value));
                }
                RowOutcome::Predicted(scores) => {
                    let named = scores.named().into_iter();
                    named.for_each(|(name, score)| push_under(&mut values, name, score.value));
                }
            }
        }
        let numbers = values.into_iter().filter_map(|(name, values)| Some((name, Spread::of(&values)?))).collect();
        let others = references.iter().filter(|reference| **reference != name);
        let against = others.map(|reference| SeedPairs {
            reference: reference.to_string(),
            p_better: of_group()
                .filter_map(|run| Some((run.info.seed, run.p_better(name, reference, "NLL")?)))
                .collect(),
        });
        let against = against.filter(|pairs| !pairs.p_better.is_empty()).collect();
        SeedRow { name: name.to_string(), calibration, numbers, against, failures, caveats }
    });
    SeedGroup {
        model: model.into(),
        task: task.into(),
        seeds: of_group().map(|run| run.info.seed).collect(),
        same_test_items: {
            let mut hashes = of_group().map(|run| run.info.identity.get(TEST_DATA));
            let first = hashes.next();
            hashes.all(|hash| Some(hash) == first)
        },
        labelled: of_group()
            .next()
            .into_iter()
            .flat_map(|run| &run.info.shifted)
            .filter(|split| !split.labels.is_empty())
            .map(|split| split.name.clone())
            .collect(),
        rows: rows.collect(),
    }
}

/// Puts a value to those of its name, which keep their order.
fn push_under<T>(named: &mut Vec<(String, Vec<T>)>, name: String, value: T) {
    match named.iter_mut().find(|(known, _)| *known == name) {
        Some((_, values)) => values.push(value),
        None => named.push((name, vec![value])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::cell::Outcome;
    use crate::compare::{Report, ReportOptions, synthetic};

    #[test]
    fn a_spread_is_mean_and_extremes() {
        let spread = Spread { mean: 0.5, low: 0.25, high: 1.0, n_seeds: 3 };
        assert_eq!(Spread::of(&[0.25, 1.0, 0.25]), Some(spread));
        assert_eq!(Spread::of(&[]), None);
    }

    #[test]
    fn seeds_are_averaged_within_a_task_and_a_failure_is_kept_with_its_seed() {
        let mut runs: Vec<_> = [("a", 1), ("b", 0), ("a", 0), ("a", 2)]
            .map(|(task, seed)| synthetic::run(task, seed, &["map", "laplace"]))
            .into();
        runs[2].cells[0].outcome = Outcome::Failed("diverged".into());
        runs[0].cells[1].outcome = Outcome::Failed("no memory".into());
        let mut options = ReportOptions::default();
        options.scores.n_draws = 20;
        let report = Report::new(runs, options).unwrap();
        let tasks: Vec<_> = report.groups.iter().map(|g| (g.task.as_str(), g.seeds.clone())).collect();
        assert_eq!(tasks, [("a", vec![0, 1, 2]), ("b", vec![0])]);
        let rows = &report.groups[0].rows;
        let names: Vec<_> = rows.iter().map(|row| row.name.as_str()).collect();
        assert_eq!(names, ["map", "map + temperature", "laplace", "laplace + temperature"]);
        let ece = |name: &str, seed: u64| {
            let run = report.runs.iter().find(|run| (run.info.task.as_str(), run.info.seed) == ("a", seed)).unwrap();
            match &run.rows.iter().find(|row| row.name == name).unwrap().outcome {
                RowOutcome::Answered(summary) => summary.scores.ece.value,
                other => panic!("{other:?}"),
            }
        };
        let spread = |row: &SeedRow| row.numbers.iter().find(|(name, _)| name == "ECE").unwrap().1;
        assert_eq!(spread(&rows[0]), Spread::of(&[ece("map", 1), ece("map", 2)]).unwrap());
        assert_eq!(spread(&rows[2]), Spread::of(&[ece("laplace", 0), ece("laplace", 2)]).unwrap());
        assert_eq!(rows[2].failures, [(1, "no memory".to_string())]);
        assert_eq!(rows[0].failures, [(0, "diverged".to_string())]);
        assert!(rows[1].failures.is_empty());
        // against each row of the first method, where it answered
        let against = |row: &SeedRow| -> Vec<(String, Vec<u64>)> {
            let seeds = |pairs: &SeedPairs| pairs.p_better.iter().map(|(seed, _)| *seed).collect();
            row.against.iter().map(|pairs| (pairs.reference.clone(), seeds(pairs))).collect()
        };
        let beside = |seeds: &[u64]| -> Vec<(String, Vec<u64>)> {
            ["map", "map + temperature"].map(|reference| (reference.to_string(), seeds.to_vec())).into()
        };
        assert_eq!(against(&rows[2]), beside(&[2]));
        assert_eq!(against(&rows[0]), [("map + temperature".to_string(), vec![1, 2])]);
        let (seed, p) = rows[0].against[0].p_better[1];
        let paired = report.runs.iter().find(|run| (run.info.task.as_str(), run.info.seed) == ("a", seed)).unwrap();
        assert_eq!(p, paired.paired.as_ref().unwrap().matrix.nll.p_better[0][1]);
        // a point has no mutual information to follow
        let followed = |row: &SeedRow| row.numbers.iter().any(|(name, _)| name.ends_with("mutual information"));
        assert_eq!((followed(&rows[0]), followed(&rows[2])), (false, true));
    }
}
