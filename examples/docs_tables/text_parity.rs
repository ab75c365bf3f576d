//! The table of `studies text-parity`: perplexities beside PEFT's.

use crate::data::{Data, Failure, Node, Spec};
use crate::table::Table;

/// The runs, as files of the directory, and what each is called.
const RUNS: [(&str, &str); 4] = [
    ("peer", "transformers + PEFT"),
    ("peer_epoch", "the same, every token weighs the same"),
    ("ours", "this crate"),
    ("ours_packed", "this crate, packed"),
];

/// Perplexity of held-out texts after each epoch, and how far the farthest is from the peer's.
pub fn perplexities(spec: &Spec, data: &mut Data) -> Result<String, Failure> {
    let dir = spec.file()?;
    let there = data.names(dir)?;
    let runs = RUNS
        .iter()
        .filter(|(file, _)| there.iter().any(|name| name == file))
        .map(|(file, name)| Ok((*name, data.json(&format!("{dir}/{file}"))?)))
        .collect::<Result<Vec<(&str, Node)>, Failure>>()?;
    let peer = data.json(&format!("{dir}/peer"))?.numbers("perplexity")?;
    let mut columns = vec!["perplexity of held-out answers".to_string()];
    columns.extend((1..=peer.len()).map(|epoch| format!("epoch {epoch}")));
    columns.push("largest difference".into());
    let mut table = Table::new(columns);
    for (index, (name, run)) in runs.iter().enumerate() {
        let found = run.numbers("perplexity")?;
        let difference = found.iter().zip(&peer).map(|(a, b)| (a / b - 1.0).abs()).fold(0.0, f64::max);
        let mut row = vec![name.to_string()];
        row.extend(found.iter().map(|perplexity| format!("{perplexity:.3}")));
        row.push(if index == 0 { "–".into() } else { format!("{:.3} %", 100.0 * difference) });
        table.row(row);
    }
    Ok(table.markdown())
}

/// The share of pads, a text a row and packed.
pub fn pads(spec: &Spec, data: &mut Data) -> Result<String, Failure> {
    let ours = data.json(&format!("{}/ours", spec.file()?))?;
    let mut table = Table::new(["pads among the places of the batches", "a text a row", "packed"]);
    for (order, name) in [("shuffled", "shuffled, similar lengths together"), ("as they come", "as they come")] {
        let share = |layout: &str| {
            Ok::<_, Failure>(format!("{:.1} %", 100.0 * ours.number(&format!("pads.{order}.{layout}"))?))
        };
        table.row([name.to_string(), share("apart")?, share("packed")?]);
    }
    Ok(table.markdown())
}
