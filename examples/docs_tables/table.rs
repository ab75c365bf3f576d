//! Sets tables and numbers in Markdown.

use crate::data::{Data, Failure, Node, Spec};

/// A table whose cells are Markdown already.
pub struct Table {
    columns: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub fn new(columns: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self { columns: columns.into_iter().map(Into::into).collect(), rows: Vec::new() }
    }

    /// Adds a row; cells that it lacks are empty.
    pub fn row(&mut self, cells: impl IntoIterator<Item = impl Into<String>>) {
        let mut cells: Vec<String> = cells.into_iter().map(Into::into).collect();
        cells.resize(self.columns.len(), String::new());
        self.rows.push(cells);
    }

    pub fn markdown(&self) -> String {
        let rule = format!("|{}", "---|".repeat(self.columns.len()));
        // an empty cell is one space wide
        let line = |cells: &Vec<String>| {
            cells.iter().fold(String::from("|"), |line, cell| {
                line + &if cell.is_empty() { " |".into() } else { format!(" {cell} |") }
            })
        };
        let lines = [line(&self.columns), rule].into_iter().chain(self.rows.iter().map(line));
        lines.collect::<Vec<_>>().join("\n")
    }
}

/// The table of a file of texts.
pub fn typed(spec: &Spec, data: &mut Data) -> Result<String, Failure> {
    let file = data.json(spec.file()?)?;
    let mut table = Table::new(file.texts("columns")?);
    for row in file.list("rows")? {
        table.row(row.texts("cells")?);
    }
    Ok(table.markdown())
}

/// `0.478 [0.450, 0.507]`
pub fn estimate(node: &Node) -> Result<String, Failure> {
    let [value, low, high] = ["value", "low", "high"].map(|name| node.number(name));
    Ok(format!("{:.3} [{:.3}, {:.3}]", value?, low?, high?))
}

pub fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// A mean with the smallest and the largest, `0.600 (0.590–0.606)`.
pub fn range(values: &[f64]) -> String {
    let (low, high) = values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(*v), h.max(*v)));
    if values.len() == 1 { format!("{low:.3}") } else { format!("{:.3} ({low:.3}–{high:.3})", mean(values)) }
}

/// A probability that one method is better, without claiming what a thousand draws cannot give; no line breaks within.
pub fn probability(p: f64) -> String {
    match p {
        p if p >= 0.999 => "≥\u{a0}0.999".into(),
        p if p <= 0.001 => "≤\u{a0}0.001".into(),
        p if p < 0.005 => "<\u{a0}0.01".into(),
        p => format!("{p:.2}"),
    }
}

/// Digits in groups of three.
pub fn count(n: usize) -> String {
    if n < 1000 { n.to_string() } else { format!("{},{:03}", count(n / 1000), n % 1000) }
}
