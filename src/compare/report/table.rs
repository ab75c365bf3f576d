//! Holds tables as text, for pages and for Markdown alike.

use super::format::{interval, number};
use crate::compare::seeds::Spread;
use serde::Serialize;
use std::fmt::Write;

/// A table whose first column names the rows.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Table {
    pub title: String,
    /// What the columns mean.
    pub note: String,
    /// Heading of the column of names.
    pub first: String,
    pub columns: Vec<String>,
    pub rows: Vec<TableRow>,
    pub order: Order,
}

/// Whether a reader may sort the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Order {
    /// Each row on its own.
    Rows,
    /// Methods, each with its variants, whose cells refer to it.
    Methods,
    /// Not at all.
    Fixed,
}

/// A row of cells, or a reason in their place.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct TableRow {
    pub name: String,
    pub cells: Vec<TableCell>,
    /// Why there are no cells.
    pub reason: Option<String>,
    /// Stands closer to the row above, as a variant of it.
    pub variant: bool,
}

/// A text with a smaller one after it, such as an interval.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct TableCell {
    pub text: String,
    pub detail: String,
    /// Words, which break over lines, and no number.
    pub words: bool,
}

impl TableCell {
    pub fn new(text: impl Into<String>) -> Self {
        Self::with(text, "")
    }

    pub fn words(text: impl Into<String>) -> Self {
        Self { words: true, ..Self::new(text) }
    }

    pub fn with(text: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { text: text.into(), detail: detail.into(), words: false }
    }

    /// A mean over seeds with their extremes, and how many of the group's they are where they are not all.
    pub fn of_spread(spread: &Spread, n_seeds: usize) -> Self {
        let bounds = (spread.n_seeds > 1).then(|| interval(spread.low, spread.high));
        let seeds = (spread.n_seeds < n_seeds).then(|| format!("{} of {n_seeds} seeds", spread.n_seeds));
        Self::with(number(spread.mean), bounds.into_iter().chain(seeds).collect::<Vec<_>>().join(", "))
    }

    /// Where there is nothing to tell.
    pub fn none() -> Self {
        Self::new("—")
    }
}

impl Table {
    /// Writes the table in Markdown, below a heading of the fourth level.
    pub fn markdown(&self) -> String {
        let mut text = String::new();
        // writing to a string cannot fail
        let _ = writeln!(text, "#### {}\n", escaped(&self.title));
        if !self.note.is_empty() {
            let _ = writeln!(text, "{}\n", escaped(&self.note));
        }
        let headings: Vec<String> = std::iter::once(&self.first).chain(&self.columns).map(|c| escaped(c)).collect();
        let _ = writeln!(text, "| {} |", headings.join(" | "));
        let _ = writeln!(text, "|---|{}", "--:|".repeat(self.columns.len()));
        for row in &self.rows {
            let mut cells: Vec<String> = match &row.reason {
                Some(reason) => vec![format!("failed: {}", escaped(reason))],
                None => row.cells.iter().map(|cell| escaped(format!("{} {}", cell.text, cell.detail).trim())).collect(),
            };
            cells.resize(self.columns.len(), String::new());
            let _ = writeln!(text, "| {} | {} |", escaped(&row.name), cells.join(" | "));
        }
        text.push('\n');
        text
    }
}

/// All that stands in any of the lists, once: what earlier lists lack has its place behind the one before it.
pub(super) fn merged<T: PartialEq + Copy>(lists: impl IntoIterator<Item = impl IntoIterator<Item = T>>) -> Vec<T> {
    let mut all: Vec<T> = Vec::new();
    for list in lists {
        let mut next = all.len();
        for one in list {
            let place = all.iter().position(|known| *known == one).unwrap_or_else(|| {
                all.insert(next, one);
                next
            });
            next = place + 1;
        }
    }
    all
}

/// Keeps a text on its line, in its cell, and without a meaning of its own in Markdown or HTML.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' | '\r' | '\t' => out.push(' '),
            '<' => out.push_str("&lt;"),
            '&' => out.push_str("&amp;"),
            '|' | '*' | '_' | '`' | '[' | ']' | '\\' | '#' | '~' => {
                out.push('\\');
                out.push(c);
            }
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, cells: &[(&str, &str)], reason: Option<&str>) -> TableRow {
        TableRow {
            name: name.into(),
            cells: cells.iter().map(|(text, detail)| TableCell::with(*text, *detail)).collect(),
            reason: reason.map(String::from),
            variant: false,
        }
    }

    #[test]
    fn what_earlier_lists_lack_stands_behind_the_one_before_it() {
        assert_eq!(
            merged([vec!["a", "b", "c"], vec!["a", "x", "c"], vec!["y", "b", "z"]]),
            ["a", "x", "b", "z", "c", "y"]
        );
        assert!(merged::<u8>([vec![], vec![]]).is_empty());
    }

    #[test]
    fn markdown_has_a_cell_for_every_column_and_shows_reasons() {
        let table = Table {
            title: "Scores".into(),
            note: "Lower is better.".into(),
            first: "method".into(),
            columns: vec!["NLL".into(), "ECE".into()],
            rows: vec![
                row("a|b", &[("0.5", "(0.4, 0.6)"), ("0.1", "")], None),
                row("c", &[], Some("no <memory>\nleft")),
            ],
            order: Order::Rows,
        };
        let lines: Vec<String> = table.markdown().lines().map(String::from).collect();
        assert_eq!(
            lines,
            [
                "#### Scores",
                "",
                "Lower is better.",
                "",
                "| method | NLL | ECE |",
                "|---|--:|--:|",
                r"| a\|b | 0.5 (0.4, 0.6) | 0.1 |",
                "| c | failed: no &lt;memory> left |  |",
                ""
            ]
        );
    }
}
