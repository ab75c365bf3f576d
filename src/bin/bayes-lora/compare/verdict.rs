//! What a comparison says in short: every row's scores, which is best, and how sure that is.

use bayes_lora::compare::{Report, RowOutcome, RunReport};
use bayes_lora::metrics::{self, Estimate};
use bayes_lora::number::significant;
use serde::Serialize;
use std::fmt;
use std::path::PathBuf;

/// How probable it must be for every seed that one row is better than another.
const CLEARLY: f64 = 0.95;

#[derive(Serialize)]
pub struct Verdict {
    pub task: String,
    pub model: String,
    pub seeds: Vec<u64>,
    pub n_test: usize,
    pub rows: Vec<Row>,
    pub best: Option<Best>,
    pub report: PathBuf,
    pub pictures: Vec<PathBuf>,
}

/// A method, or a method with a calibrator behind it.
#[derive(Serialize)]
pub struct Row {
    pub name: String,
    /// Means over the seeds; none of a row that failed for one of them.
    pub scores: Option<Scores>,
    /// Why it did not answer, by seed.
    pub failures: Vec<(u64, String)>,
}

#[derive(Serialize)]
pub struct Scores {
    pub accuracy: Score,
    pub nll: Score,
    pub ece: Score,
}

/// A score: of one seed with its credible interval, of several the mean with the smallest and the largest.
#[derive(Serialize)]
pub struct Score {
    pub value: f64,
    pub low: f64,
    pub high: f64,
}

/// The row with the least NLL.
#[derive(Serialize)]
pub struct Best {
    pub name: String,
    /// The trained adapter alone, or the row that comes first, and the second best.
    pub than: Vec<Than>,
}

/// How probable it is, seed by seed, that the best row has less NLL than this one.
#[derive(Serialize)]
pub struct Than {
    pub name: String,
    pub p_better: Vec<f64>,
    pub clearly: bool,
}

impl Verdict {
    pub fn new(report: &Report, html: PathBuf, pictures: Vec<PathBuf>) -> Option<Self> {
        let first = report.runs.first()?;
        let mut names: Vec<&str> = Vec::new();
        for row in report.runs.iter().flat_map(|run| &run.rows) {
            if !names.contains(&row.name.as_str()) {
                names.push(&row.name);
            }
        }
        let rows: Vec<Row> = names.into_iter().map(|name| Row::new(name, &report.runs)).collect();
        Some(Self {
            task: first.info.task.clone(),
            model: first.info.model.clone(),
            seeds: report.runs.iter().map(|run| run.info.seed).collect(),
            n_test: first.info.n_test,
            best: Best::new(&rows, &report.runs),
            rows,
            report: html,
            pictures,
        })
    }
}

impl Row {
    fn new(name: &str, runs: &[RunReport]) -> Self {
        let (mut found, mut failures) = (Vec::new(), Vec::new());
        for run in runs {
            match run.rows.iter().find(|row| row.name == name).map(|row| &row.outcome) {
                Some(RowOutcome::Answered(summary)) => found.push(&summary.scores),
                Some(RowOutcome::Failed(reason)) => failures.push((run.info.seed, reason.clone())),
                None => {}
            }
        }
        let scores = (found.len() == runs.len()).then(|| Scores {
            accuracy: Score::of(&found, |scores| scores.accuracy),
            nll: Score::of(&found, |scores| scores.nll),
            ece: Score::of(&found, |scores| scores.ece),
        });
        Self { name: name.into(), scores, failures }
    }
}

impl Score {
    fn of(seeds: &[&metrics::Scores], score: fn(&metrics::Scores) -> Estimate) -> Self {
        if let [one] = seeds {
            let Estimate { value, low, high } = score(one);
            return Self { value, low, high };
        }
        let start = Self { value: 0.0, low: f64::INFINITY, high: f64::NEG_INFINITY };
        seeds.iter().map(|seed| score(seed).value).fold(start, |all, value| Self {
            value: all.value + value / seeds.len() as f64,
            low: all.low.min(value),
            high: all.high.max(value),
        })
    }
}

impl Best {
    fn new(rows: &[Row], runs: &[RunReport]) -> Option<Self> {
        let nll = |row: &Row| row.scores.as_ref().map(|scores| scores.nll.value);
        let mut ranked: Vec<(&Row, f64)> = rows.iter().filter_map(|row| Some((row, nll(row)?))).collect();
        // of equal ones the first stays first
        ranked.sort_by(|a, b| a.1.total_cmp(&b.1));
        let best = ranked.first()?.0;
        let first = rows.iter().find(|row| row.scores.is_some());
        let mut others: Vec<&Row> = first.into_iter().chain(ranked.get(1).map(|(row, _)| *row)).collect();
        others.dedup_by_key(|row| &row.name);
        let than = others.iter().filter(|row| row.name != best.name).map(|row| Than::new(best, row, runs));
        Some(Self { name: best.name.clone(), than: than.collect() })
    }
}

impl Than {
    fn new(best: &Row, other: &Row, runs: &[RunReport]) -> Self {
        let of_run = |run: &RunReport| {
            let paired = run.paired.as_ref()?;
            let place = |row: &Row| paired.names.iter().position(|name| *name == row.name);
            Some(paired.matrix.nll.p_better[place(best)?][place(other)?])
        };
        let p_better: Vec<f64> = runs.iter().filter_map(of_run).collect();
        let clearly = !p_better.is_empty() && p_better.iter().all(|p| *p >= CLEARLY);
        Self { name: other.name.clone(), p_better, clearly }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seeds: Vec<String> = self.seeds.iter().map(u64::to_string).collect();
        let (s, seeds) = (if seeds.len() == 1 { "" } else { "s" }, seeds.join(", "));
        writeln!(f, "{}, {}, seed{s} {seeds}, {} test items", self.task, self.model, self.n_test)?;
        let width = self.rows.iter().map(|row| row.name.chars().count()).max().unwrap_or(0);
        writeln!(f, "{:<width$}  {:>24} {:>24} {:>24}", "", "accuracy", "NLL", "ECE")?;
        for row in &self.rows {
            write!(f, "{:<width$}  ", row.name)?;
            match (&row.scores, row.failures.first()) {
                (Some(scores), _) => writeln!(f, "{} {} {}", scores.accuracy, scores.nll, scores.ece)?,
                (None, Some((seed, reason))) => writeln!(f, "seed {seed}: {reason}")?,
                (None, None) => writeln!(f, "not run for all seeds")?,
            }
        }
        if let Some(best) = &self.best {
            writeln!(f, "\nLeast NLL: {}", best.name)?;
            for than in &best.than {
                let p: Vec<String> = than.p_better.iter().map(|p| format!("{p:.3}")).collect();
                let clearly = if than.clearly { "clearly better" } else { "not clearly better" };
                writeln!(f, "  {clearly} than {}: P(better) {}", than.name, p.join(" / "))?;
            }
        }
        write!(f, "\nwrote {}", self.report.display())?;
        self.pictures.iter().try_for_each(|picture| write!(f, "\nwrote {}", picture.display()))
    }
}

impl fmt::Display for Score {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [value, low, high] = [self.value, self.low, self.high].map(significant);
        write!(f, "{:>24}", format!("{value} [{low}, {high}]"))
    }
}
