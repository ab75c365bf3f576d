//! What a comparison says in short: every row's scores, which is best, and how sure that is.

use bayes_lora::compare::{Report, RowOutcome, RunReport};
use bayes_lora::metrics::Estimate;
use bayes_lora::number::significant;
use serde::{Serialize, Serializer};
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
    #[serde(skip)]
    columns: &'static [Column],
    pub rows: Vec<Row>,
    pub best: Option<Best>,
    pub report: PathBuf,
    pub pictures: Vec<PathBuf>,
}

/// A method, or a method with a calibrator behind it.
#[derive(Serialize)]
pub struct Row {
    pub name: String,
    /// Means over the seeds, by name; none of a row that failed for one of them.
    #[serde(serialize_with = "by_key")]
    pub scores: Option<Vec<(Column, Score)>>,
    /// Why it did not answer, by seed.
    pub failures: Vec<(u64, String)>,
}

/// A score that is told.
#[derive(Clone, Copy)]
pub struct Column {
    /// Its name in JSON.
    key: &'static str,
    /// Its name in words, and in the report.
    name: &'static str,
    /// Whether there is room for it in words.
    is_shown: bool,
}

const fn column(key: &'static str, name: &'static str) -> Column {
    Column { key, name, is_shown: true }
}

const fn unshown(key: &'static str, name: &'static str) -> Column {
    Column { key, name, is_shown: false }
}

const OF_CLASSES: [Column; 3] = [column("accuracy", "accuracy"), column("nll", "NLL"), column("ece", "ECE")];
const OF_VALUES: [Column; 6] = [
    column("nll", "NLL"),
    column("rmse", "RMSE"),
    column("crps", "CRPS"),
    unshown("inside_50", "inside 50 %"),
    column("inside_90", "inside 90 %"),
    unshown("inside_95", "inside 95 %"),
];

fn columns(run: &RunReport) -> &'static [Column] {
    if run.info.classes.is_empty() { &OF_VALUES } else { &OF_CLASSES }
}

fn by_key<S: Serializer>(scores: &Option<Vec<(Column, Score)>>, serializer: S) -> Result<S::Ok, S::Error> {
    match scores {
        Some(scores) => serializer.collect_map(scores.iter().map(|(column, score)| (column.key, score))),
        None => serializer.serialize_none(),
    }
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
            columns: columns(first),
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
                Some(RowOutcome::Failed(reason)) => failures.push((run.info.seed, reason.clone())),
                Some(outcome) => found.push(outcome),
                None => {}
            }
        }
        let columns = runs.first().filter(|_| found.len() == runs.len()).map(columns);
        let of_column = |column: &Column| Some((*column, Score::of(&found, column.name)?));
        let scores = columns.map(|columns| columns.iter().filter_map(of_column).collect());
        Self { name: name.into(), scores, failures }
    }
}

impl Score {
    fn of(seeds: &[&RowOutcome], name: &str) -> Option<Self> {
        let found = seeds.iter().map(|seed| seed.estimate(name)).collect::<Option<Vec<Estimate>>>()?;
        if let [Estimate { value, low, high }] = found[..] {
            return Some(Self { value, low, high });
        }
        let start = Self { value: 0.0, low: f64::INFINITY, high: f64::NEG_INFINITY };
        Some(found.iter().map(|score| score.value).fold(start, |all, value| Self {
            value: all.value + value / seeds.len() as f64,
            low: all.low.min(value),
            high: all.high.max(value),
        }))
    }
}

impl Best {
    fn new(rows: &[Row], runs: &[RunReport]) -> Option<Self> {
        let nll = |row: &Row| Some(row.scores.as_ref()?.iter().find(|(column, _)| column.key == "nll")?.1.value);
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
        let of_run = |run: &RunReport| run.p_better(&best.name, &other.name, "NLL");
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
        let shown = self.columns.iter().filter(|column| column.is_shown);
        let headings: Vec<String> = shown.map(|column| format!("{:>24}", column.name)).collect();
        writeln!(f, "{:<width$}  {}", "", headings.join(" "))?;
        for row in &self.rows {
            write!(f, "{:<width$}  ", row.name)?;
            match (&row.scores, row.failures.first()) {
                (Some(scores), _) => {
                    let shown = scores.iter().filter(|(column, _)| column.is_shown);
                    writeln!(f, "{}", shown.map(|(_, score)| score.to_string()).collect::<Vec<_>>().join(" "))?;
                }
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
