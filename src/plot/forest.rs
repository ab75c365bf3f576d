//! Draws forest plots: numbers with their intervals, a row for each method, a panel for each metric.

mod draw;

use super::check_panels;
use super::palette::CURVES;
use crate::error::{Error, Result};
use crate::metrics::Estimate;
use serde::{Deserialize, Serialize};

/// Most rows of a plot.
pub(crate) const MAX_ROWS: usize = 60;
/// Most marks in a row that an eye keeps apart, filled and hollow.
pub(crate) const MAX_SERIES: usize = 2 * CURVES.len();

/// One metric of all rows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ForestPanel {
    /// Name of the metric, with its unit.
    pub label: String,
    /// `[n_rows][n_series]`, none where a row has no such number.
    pub estimates: Vec<Vec<Option<Estimate>>>,
}

/// One to four panels that share up to 60 named rows, each with up to twelve marks.
///
/// A table of figures hides which differences are larger than their intervals; rows of points with intervals show it. Several
/// seeds of the same method lie under each other in its row.
///
/// ```
/// use bayes_lora::metrics::Estimate;
/// use bayes_lora::plot::ForestPlot;
///
/// let e = |value| Some(Estimate { value, low: value - 0.1, high: value + 0.1 });
/// let figure = ForestPlot::new(["maximum likelihood", "Laplace"], ["seed 0", "seed 1"])
///     .with_panel("NLL", vec![vec![e(1.1), e(1.0)], vec![e(0.9), None]])
///     .figure()?;
/// assert!(figure.svg_without_font().contains("maximum likelihood"));
/// # Ok::<(), bayes_lora::error::Error>(())
/// ```
///
/// Each panel's axis is linear and spans its values and intervals. Rows are drawn in the order given.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ForestPlot {
    /// From top to bottom.
    pub rows: Vec<String>,
    /// What the marks within a row are, such as seeds, each with a colour of its own; explained where there are two or more.
    pub series: Vec<String>,
    /// Side by side.
    pub panels: Vec<ForestPanel>,
}

impl ForestPlot {
    /// Starts a plot without panels.
    pub fn new(
        rows: impl IntoIterator<Item = impl Into<String>>,
        series: impl IntoIterator<Item = impl Into<String>>,
    ) -> Self {
        let rows = rows.into_iter().map(Into::into).collect();
        Self { rows, series: series.into_iter().map(Into::into).collect(), panels: Vec::new() }
    }

    /// Adds a panel of estimates, `[n_rows][n_series]`.
    pub fn with_panel(mut self, label: impl Into<String>, estimates: Vec<Vec<Option<Estimate>>>) -> Self {
        self.panels.push(ForestPanel { label: label.into(), estimates });
        self
    }

    fn check(&self) -> Result<()> {
        for (what, found, most) in [("rows", self.rows.len(), MAX_ROWS), ("series", self.series.len(), MAX_SERIES)] {
            if found == 0 {
                return Err(Error::empty(format!("list of {what}")));
            }
            if found > most {
                return Err(Error::config(what, format!("at most {most}"), found));
            }
        }
        check_panels(self.panels.len())?;
        self.panels.iter().try_for_each(|panel| self.check_panel(panel))
    }

    fn check_panel(&self, ForestPanel { label, estimates }: &ForestPanel) -> Result<()> {
        if estimates.len() != self.rows.len() {
            return Err(Error::Count {
                what: format!("rows of panel `{label}`"),
                expected: self.rows.len(),
                found: estimates.len(),
            });
        }
        for (name, row) in self.rows.iter().zip(estimates) {
            if row.len() != self.series.len() {
                let what = format!("estimates of `{name}` in panel `{label}`");
                return Err(Error::Count { what, expected: self.series.len(), found: row.len() });
            }
            let numbers = row.iter().flatten().flat_map(|e| [e.value, e.low, e.high]);
            if let Some(number) = numbers.into_iter().find(|number| !number.is_finite()) {
                return Err(Error::config(format!("`{name}` in panel `{label}`"), "finite", number));
            }
        }
        match estimates.iter().flatten().flatten().next() {
            Some(_) => Ok(()),
            None => Err(Error::empty(format!("panel `{label}`"))),
        }
    }
}

#[cfg(test)]
mod tests;
