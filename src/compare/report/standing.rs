//! Finds which row of a task is best, by how much, and how sure that is.
//!
//! Nothing is pooled: each seed has its own paired comparison, and a row is *clearly* better where every seed says so.

use super::numbers::Report;
use super::row::{RunReport, Score};
use crate::compare::cell::ExtraData;
use crate::compare::seeds::{SeedGroup, SeedRow};
use crate::metrics::Estimate;

/// A row held against the reference on the items of one seed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Against {
    /// The row's score minus the reference's.
    pub difference: Estimate,
    /// Posterior probability that the row is better.
    pub p_better: f64,
}

/// A row with its mean score over the seeds.
#[derive(Clone, Copy)]
pub(super) struct Ranked<'a> {
    pub row: &'a SeedRow,
    pub mean: f64,
}

impl<'a> Ranked<'a> {
    pub fn name(&self) -> &'a str {
        &self.row.name
    }
}

/// The runs of one task under all its seeds.
pub(super) struct Standing<'a> {
    pub group: &'a SeedGroup,
    runs: Vec<&'a RunReport>,
    /// The row that all others are compared with.
    pub reference: &'a str,
    /// How probable it must be, in every seed, that a row is better.
    pub level: f64,
}

impl<'a> Standing<'a> {
    /// None where no seed has two rows that answered.
    pub fn new(report: &'a Report, group: &'a SeedGroup) -> Option<Self> {
        let of_group = |run: &&RunReport| (&run.info.model, &run.info.task) == (&group.model, &group.task);
        let runs: Vec<&RunReport> =
            report.runs.iter().filter(of_group).filter(|run| run.compared().is_some()).collect();
        let reference = runs.first()?.compared()?.first()?;
        Some(Self { group, runs, reference, level: report.options.scores.level })
    }

    /// The scores by which rows are ranked, the one that decides first.
    pub fn scores(&self) -> &'static [Score] {
        self.runs.first().map_or(&[], |run| run.scores())
    }

    /// The rows that answered for the most seeds, the best mean first; of equal ones the reference, then in the order of the report.
    pub fn ranking(&self, score: &Score) -> Vec<Ranked<'a>> {
        let spread = |row: &'a SeedRow| {
            let (_, spread) = row.numbers.iter().find(|(name, _)| name == score.name)?;
            Some((row, *spread))
        };
        let found: Vec<_> = self.group.rows.iter().filter_map(spread).collect();
        let most = found.iter().map(|(_, spread)| spread.n_seeds).max().unwrap_or(0);
        let full = found.into_iter().filter(|(_, spread)| spread.n_seeds == most);
        let mut ranked: Vec<Ranked> = full.map(|(row, spread)| Ranked { row, mean: spread.mean }).collect();
        let loss = |ranked: &Ranked| if score.higher_is_better { -ranked.mean } else { ranked.mean };
        ranked.sort_by(|a, b| {
            let is_other = |ranked: &Ranked| ranked.name() != self.reference;
            loss(a).total_cmp(&loss(b)).then(is_other(a).cmp(&is_other(b)))
        });
        ranked
    }

    /// Each seed in which both the row and the reference answered, and the reference stands first.
    pub fn against_reference(&self, row: &str, score: &Score) -> Vec<Against> {
        let of_run = |run: &&RunReport| {
            let names = run.compared().filter(|names| names[0] == self.reference)?;
            let index = names.iter().position(|name| name == row)?;
            let metric = run.metric(score.name)?;
            Some(Against { difference: metric.minus_first[index], p_better: metric.p_better[index][0] })
        };
        self.runs.iter().filter_map(of_run).collect()
    }

    /// How probable it is that `a` is better than `b`, for each seed in which both answered.
    pub fn p_better(&self, a: &str, b: &str, score: &Score) -> Vec<f64> {
        self.runs.iter().filter_map(|run| run.p_better(a, b, score.name)).collect()
    }

    /// Whether every seed says that `a` is better than `b`.
    pub fn is_clearly_better(&self, a: &str, b: &str, score: &Score) -> bool {
        let p = self.p_better(a, b, score);
        !p.is_empty() && p.iter().all(|p| *p >= self.level)
    }

    /// Whether no row of this name, in any seed, read anything besides the training items.
    pub fn reads_nothing_else(&self, row: &str) -> bool {
        let rows = self.runs.iter().flat_map(|run| &run.rows).filter(|found| found.name == row);
        rows.into_iter().all(|row| row.extra_data == ExtraData::None && row.calibration_labels == 0)
    }
}

/// The mean of the differences; none without a seed.
pub(super) fn mean_difference(against: &[Against]) -> Option<f64> {
    let sum: f64 = against.iter().map(|a| a.difference.value).sum();
    (!against.is_empty()).then(|| sum / against.len() as f64)
}

/// The seed that is least sure that the row is better; of equally sure ones that of the smallest difference.
pub(super) fn least_sure(against: &[Against]) -> Option<&Against> {
    let size = |a: &Against| a.difference.value.abs();
    against.iter().min_by(|a, b| a.p_better.total_cmp(&b.p_better).then(size(a).total_cmp(&size(b))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::report::row::NLL;
    use crate::compare::{ReportOptions, synthetic};

    fn report() -> Report {
        let mut options = ReportOptions::default();
        options.scores.n_draws = 50;
        Report::new([0, 1].map(|seed| synthetic::run("a", seed, &["map", "laplace", "swag"])).into(), options).unwrap()
    }

    #[test]
    fn rows_are_ranked_by_their_means_and_the_reference_wins_a_tie() {
        let mut report = report();
        let set = |row: &mut SeedRow, mean: f64, n_seeds: usize| {
            for (name, spread) in &mut row.numbers {
                if name == "NLL" || name == "accuracy" {
                    (spread.mean, spread.n_seeds) = (mean, n_seeds);
                }
            }
        };
        for (row, (mean, n)) in report.groups[0].rows.iter_mut().zip([(0.5, 2), (0.4, 2), (0.5, 2), (0.1, 1)]) {
            set(row, mean, n);
        }
        report.groups[0].rows[2..4].rotate_left(1);
        report.groups[0].rows.truncate(4);
        report.groups[0].rows.reverse();
        let standing = Standing::new(&report, &report.groups[0]).unwrap();
        assert_eq!(standing.reference, "map");
        // one seed of two is not ranked
        let names = |score: &Score| standing.ranking(score).iter().map(|r| r.name().to_string()).collect::<Vec<_>>();
        assert_eq!(names(&NLL), ["map + temperature", "map", "laplace"]);
        assert_eq!(names(&standing.scores()[1]), ["map", "laplace", "map + temperature"]);
    }

    #[test]
    fn differences_and_probabilities_are_those_of_the_paired_matrix_of_each_seed() {
        let report = report();
        let standing = Standing::new(&report, &report.groups[0]).unwrap();
        for score in standing.scores() {
            let against = standing.against_reference("swag", score);
            assert_eq!(against.len(), 2);
            for (run, found) in report.runs.iter().zip(&against) {
                let paired = run.paired.as_ref().unwrap();
                let index = paired.names.iter().position(|name| name == "swag").unwrap();
                let metric = run.metric(score.name).unwrap();
                assert_eq!((found.difference, found.p_better), (metric.minus_first[index], metric.p_better[index][0]));
            }
            let p = standing.p_better("swag", "map", score);
            assert_eq!(p, against.iter().map(|a| a.p_better).collect::<Vec<_>>());
            assert_eq!(standing.is_clearly_better("swag", "map", score), p.iter().all(|p| *p >= 0.95));
        }
        assert!(!standing.is_clearly_better("map", "nobody", &NLL));
    }

    #[test]
    fn a_calibrated_row_reads_labels_besides() {
        let report = report();
        let standing = Standing::new(&report, &report.groups[0]).unwrap();
        assert!(standing.reads_nothing_else("map") && !standing.reads_nothing_else("map + temperature"));
    }

    #[test]
    fn means_and_the_least_sure_seed_are_over_the_seeds() {
        let of = |value: f64, p_better: f64| Against { difference: Estimate { value, low: -1.0, high: 1.0 }, p_better };
        let against = [of(-0.25, 0.9), of(-0.75, 0.6)];
        assert_eq!(mean_difference(&against), Some(-0.5));
        assert_eq!(least_sure(&against), Some(&against[1]));
        let equally = [of(-0.75, 1.0), of(-0.25, 1.0), of(-0.5, 1.0)];
        assert_eq!(least_sure(&equally), Some(&equally[1]));
        assert_eq!((mean_difference(&[]), least_sure(&[])), (None, None));
    }
}
