//! Tables of the sets of classes that `training_items --sets` leaves.

use crate::data::{Data, Failure, Spec};
use crate::table::Table;

/// Coverage that a repetition may miss by chance: with 500 items two in a hundred fall lower, were it 0.9.
const LOW: f64 = 0.87;

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
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
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
