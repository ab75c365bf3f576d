//! Tables of the cells of `addition`.

use crate::data::{Data, Failure, Node, Spec};
use crate::invented_facts::cells;
use crate::table::{Table, estimate, range};

/// Every score's AUROC of wrong answers above right ones and prediction rejection ratio; `answers` to `all` lengths, or to those that were
/// `trained` on.
pub fn scores(spec: &Spec, data: &mut Data) -> Result<String, Failure> {
    let (cells, answers) = (cells(spec, data)?, spec.value("answers")?.to_string());
    let more = if answers == "all" { "more" } else { "more_trained" };
    let mut columns = vec!["score".to_string()];
    for cell in &cells {
        columns.push(format!("wrong above right, seed {}", cell.number("seed")?));
    }
    columns.push("more than by −log-likelihood a token".into());
    for cell in &cells {
        columns.push(format!("PRR, seed {}", cell.number("seed")?));
    }
    if answers == "all" {
        columns.push("longer above trained".into());
    }
    let mut table = Table::new(columns);
    for (score, rows) in by_score(&cells)? {
        let of = |path: String| {
            rows.iter().map(move |row| row.find(&path).map_or(Ok("–".into()), |found| estimate(&found)))
        };
        let mut line = vec![score];
        for cell in of(format!("{answers}.auroc")) {
            line.push(cell?);
        }
        let mut differences = of(more.into()).collect::<Result<Vec<String>, Failure>>()?;
        differences.dedup_by(|a, b| *a == "–" && *b == "–");
        line.push(differences.join(" / "));
        for cell in of(format!("{answers}.rejection")) {
            line.push(cell?);
        }
        if answers == "all" {
            let values: Result<Vec<f64>, Failure> = rows.iter().map(|row| row.number("longer_above.value")).collect();
            line.push(range(&values?));
        }
        table.row(line);
    }
    Ok(table.markdown())
}

/// Means of every score by length, over the seeds, and the share of right answers.
pub fn lengths(spec: &Spec, data: &mut Data) -> Result<String, Failure> {
    let cells = cells(spec, data)?;
    let n_lengths = cells[0].list("right")?.len();
    let digits = |n: usize| if n == 1 { "1 digit".into() } else { format!("{n} digits") };
    let mut table = Table::new(["mean over sums".to_string()].into_iter().chain((1..=n_lengths).map(digits)));
    let mut line = |name: String, nodes: &[Node], path: &str| -> Result<(), Failure> {
        let values = nodes.iter().map(|node| node.numbers(path)).collect::<Result<Vec<Vec<f64>>, _>>()?;
        let of_length = |k: usize| range(&values.iter().map(|values| values[k]).collect::<Vec<f64>>());
        table.row([name].into_iter().chain((0..n_lengths).map(of_length)));
        Ok(())
    };
    line("answers that are right".into(), &cells, "right")?;
    for (score, rows) in by_score(&cells)? {
        line(score, &rows, "by_length")?;
    }
    Ok(table.markdown())
}

/// The rows of each score, seed after seed.
fn by_score(cells: &[Node]) -> Result<Vec<(String, Vec<Node>)>, Failure> {
    let mut all: Vec<(String, Vec<Node>)> = Vec::new();
    for cell in cells {
        for row in cell.list("rows")? {
            let score = row.text("score")?;
            match all.iter_mut().find(|(name, _)| *name == score) {
                Some((_, rows)) => rows.push(row),
                None => all.push((score, vec![row])),
            }
        }
    }
    Ok(all)
}
