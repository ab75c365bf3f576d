//! The table of a comparison: means over the seeds of a task, made from the cells.

use crate::data::{Data, Failure, Spec};
use crate::table::{Table, count, probability};
use bayes_lora::compare::{SeedRow, Spread};
use bayes_lora::methods::MaximumLikelihood;

/// Rows by mean NLL, the least first; a dagger behind those with a caveat.
pub fn comparison(spec: &Spec, data: &mut Data) -> Result<String, Failure> {
    let (task, calibrated, wanted) = (spec.value("task")?, spec.values("calibrated"), spec.values("rows"));
    let report = data.report(spec.file()?)?;
    let group = report.groups.iter().find(|group| group.task == task).ok_or_else(|| format!("no run of `{task}`"))?;
    let likelihood = MaximumLikelihood::NAME;
    let references = [likelihood.to_string(), format!("{likelihood} + temperature")];
    let split = group
        .rows
        .iter()
        .flat_map(|row| &row.numbers)
        .find_map(|(name, _)| name.strip_prefix("AUROC ")?.strip_suffix(", entropy"));
    let mut columns: Vec<String> = ["method", "accuracy", "NLL", "ECE"].map(String::from).to_vec();
    columns.extend(split.map(|split| format!("AUROC of entropy, {split}")));
    columns.extend(["P(NLL better than ML)", "P(NLL better than ML + temperature)"].map(String::from));
    columns.extend(["fit: forward, backward", "answer"].map(String::from));
    let mut table = Table::new(columns);

    let mut rows = Vec::new();
    for row in &group.rows {
        if !wanted.is_empty() && !wanted.contains(&&*row.name) {
            continue;
        }
        let is_asked = |name: &&str| row.name == format!("{name} + temperature");
        if let (Some(nll), true) = (spread(row, "NLL"), row.calibration.is_none() || calibrated.iter().any(is_asked)) {
            rows.push((nll.mean, row));
        }
    }
    rows.sort_by(|a, b| a.0.total_cmp(&b.0));
    for (_, row) in rows {
        let dagger = if row.caveats.is_empty() { "" } else { " †" };
        let mut cells = vec![format!("{}{dagger}", row.name)];
        let entropy = split.map(|split| format!("AUROC {split}, entropy"));
        for name in ["accuracy", "NLL", "ECE"].into_iter().chain(entropy.as_deref()) {
            cells.push(spread(row, name).map_or("–".into(), range));
        }
        for reference in &references {
            // two temperatures at the end of their search differ in nothing that means anything
            let is_at_its_end = |other: &SeedRow| other.name == *reference && !other.caveats.is_empty();
            let says_nothing = !row.caveats.is_empty() && group.rows.iter().any(is_at_its_end);
            cells.push(if says_nothing { "–".into() } else { against(row, reference, &group.seeds) });
        }
        let runs = report.runs.iter().filter(|run| (&run.info.model, &run.info.task) == (&group.model, &group.task));
        let cost = runs.flat_map(|run| &run.rows).filter(|other| other.name == row.name).find_map(|other| other.cost);
        let cost = cost.ok_or_else(|| format!("`{}` has no cost", row.name))?;
        cells.push(format!("{}, {}", count(cost.fit_forwards), count(cost.fit_backwards)));
        cells.push(match (cost.forwards_per_item, cost.backwards_per_item) {
            (forward, 0) => forward.to_string(),
            (forward, backward) => format!("{forward} + {backward} backward"),
        });
        table.row(cells);
    }
    Ok(table.markdown())
}

fn spread(row: &SeedRow, number: &str) -> Option<Spread> {
    row.numbers.iter().find(|(name, _)| name == number).map(|(_, spread)| *spread)
}

/// `0.600 (0.590–0.606)`; of one seed the number alone.
fn range(spread: Spread) -> String {
    match spread.n_seeds {
        1 => format!("{:.3}", spread.mean),
        _ => format!("{:.3} ({:.3}–{:.3})", spread.mean, spread.low, spread.high),
    }
}

/// How sure it is, seed by seed, that a row has less NLL than another; a dash for a seed without both, and against itself.
fn against(row: &SeedRow, reference: &str, seeds: &[u64]) -> String {
    let pairs =
        row.against.iter().find(|pairs| pairs.reference == reference).filter(|pairs| !pairs.p_better.is_empty());
    let Some(pairs) = pairs else { return "–".into() };
    let of_seed = |seed: &u64| pairs.p_better.iter().find(|(other, _)| other == seed);
    let cells = seeds.iter().map(|seed| of_seed(seed).map_or("–".into(), |(_, p)| probability(*p)));
    cells.collect::<Vec<_>>().join(" / ")
}
