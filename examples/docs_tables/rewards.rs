//! Tables of the report that `reward_model` leaves.

use crate::data::{Data, Failure, Spec};
use crate::table::{Table, range};

/// Every way of answering which of two is preferred: means over the seeds, with the smallest and the largest.
pub fn pairs(spec: &Spec, data: &mut Data) -> Result<String, Failure> {
    let report = data.json(spec.file()?)?;
    let runs = report.list("runs")?;
    let mut table = Table::new(["which of two is preferred", "accuracy", "NLL", "ECE"]);
    let first = runs.first().ok_or("there is no run")?;
    for (k, row) in first.list("pairs")?.iter().enumerate() {
        let over_seeds = |score: &str| -> Result<String, Failure> {
            let values = runs.iter().map(|run| run.number(&format!("pairs.{k}.{score}")));
            Ok(range(&values.collect::<Result<Vec<_>, _>>()?))
        };
        table.row([row.text("name")?, over_seeds("accuracy")?, over_seeds("nll.value")?, over_seeds("ece")?]);
    }
    Ok(table.markdown())
}

/// How often each rule picks the right answer, over the questions of all seeds.
pub fn best_of_n(spec: &Spec, data: &mut Data) -> Result<String, Failure> {
    let report = data.json(spec.file()?)?;
    let runs = report.list("runs")?;
    let mut table = Table::new([
        "answer with the largest",
        "right: mean (smallest–largest seed)",
        "other picks than r",
        "right, less r [95 %]",
    ]);
    for (k, rule) in report.list("best_of_n_over_seeds")?.iter().enumerate() {
        let values = runs.iter().map(|run| run.number(&format!("best_of_n.rules.{k}.accuracy")));
        let difference = ["value", "low", "high"].map(|name| rule.number(&format!("difference.{name}")));
        let [value, low, high] = difference;
        let difference = match k {
            0 => "–".into(),
            _ => format!("{:+.3} [{:+.3}, {:+.3}]", value?, low?, high?),
        };
        let right = range(&values.collect::<Result<Vec<_>, _>>()?);
        table.row([rule.text("name")?, right, rule.number("changed")?.to_string(), difference]);
    }
    Ok(table.markdown())
}
