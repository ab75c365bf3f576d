//! Sets a report as Markdown: the tables, and P(better) in NLL.

use super::format::probability;
use super::numbers::Report;
use super::page::facts;
use super::row::{NLL, RunReport};
use super::table::{Order, Table, TableCell, TableRow, escaped};
use super::{overview, tables};
use crate::metrics::PairedMetric;
use std::fmt::Write;

pub(super) fn markdown(report: &Report) -> String {
    let mut text = String::new();
    // writing to a string cannot fail
    let _ = writeln!(text, "# {}\n", escaped(&report.options.title));
    let _ = writeln!(
        text,
        "Protocol {}, bayes-lora {}. Arrows: ↑ higher is better, ↓ lower is better.\n",
        escaped(&report.protocol),
        report.crate_version
    );
    let tables_of_all = overview::overview(&report.groups);
    if !tables_of_all.is_empty() {
        text.push_str("## All tasks\n\n");
        tables_of_all.iter().for_each(|table| text.push_str(&table.markdown()));
    }
    for group in &report.groups {
        let _ = writeln!(text, "## {}, {}\n", escaped(&group.task), escaped(&group.model));
        if let Some(table) = tables::of_seeds(group, &report.options) {
            text.push_str(&table.markdown());
        }
        let same = |run: &&RunReport| (&run.info.model, &run.info.task) == (&group.model, &group.task);
        for run in report.runs.iter().filter(same) {
            let _ = writeln!(text, "### {}, seed {}\n", escaped(&group.task), run.info.seed);
            for (name, value) in facts(run) {
                let _ = writeln!(text, "- {}: {}", escaped(&name), escaped(&value));
            }
            text.push('\n');
            for table in tables::of_run(run, &report.options) {
                text.push_str(&table.markdown());
            }
            if let Some((names, nll)) = run.compared().zip(run.metric(NLL.name)) {
                text.push_str(&better(names, nll).markdown());
            }
        }
    }
    text
}

/// The matrix of P(better) in NLL, its columns numbered as its rows.
fn better(names: &[String], nll: &PairedMetric) -> Table {
    let rows = names.iter().enumerate().zip(&nll.p_better).map(|((i, name), row)| {
        let cell = |(j, p): (usize, &f64)| if i == j { TableCell::none() } else { TableCell::new(probability(*p)) };
        TableRow {
            name: format!("{}. {name}", i + 1),
            cells: row.iter().enumerate().map(cell).collect(),
            reason: None,
            variant: false,
        }
    });
    Table {
        title: "P(row better than column) in NLL".into(),
        note: "The other metrics are in the JSON.".into(),
        first: "method".into(),
        columns: (1..=names.len()).map(|i| i.to_string()).collect(),
        rows: rows.collect(),
        order: Order::Fixed,
    }
}
