//! Draws a classifier's confidence or entropy over a two-dimensional input, with its training points.

mod draw;

use super::axes::range_of;
use super::palette::CLASSES;
use super::{check_panels, check_range};
use crate::error::{Error, Result, check_finite};
use serde::{Deserialize, Serialize};

/// A regular grid of cells over a rectangle of inputs.
///
/// Values on it are **row-major from the bottom**: the value of column `i` (x ascending) and row `j` (y ascending) has
/// index `j · n_x + i` and belongs to the centre of its cell.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Grid {
    /// Left and right end.
    pub x: (f64, f64),
    /// Lower and upper end.
    pub y: (f64, f64),
    /// Number of columns.
    pub n_x: usize,
    /// Number of rows.
    pub n_y: usize,
}

impl Grid {
    /// The inputs at which to evaluate a classifier: the centre of every cell, in the order of the values.
    pub fn centres(&self) -> Vec<[f64; 2]> {
        let at = |(low, high): (f64, f64), i: usize, n: usize| low + (high - low) * (i as f64 + 0.5) / n as f64;
        (0..self.n_y)
            .flat_map(|j| (0..self.n_x).map(move |i| [at(self.x, i, self.n_x), at(self.y, j, self.n_y)]))
            .collect()
    }
}

/// A value at every cell of the grid, under a title.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RegionPanel {
    /// Written over the panel.
    pub title: String,
    /// `[n_y · n_x]`, in the order of [`Grid`].
    pub values: Vec<f64>,
}

/// A training point.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LabelledPoint {
    /// First input.
    pub x: f64,
    /// Second input.
    pub y: f64,
    /// Index of its class.
    pub class: usize,
}

/// One to four panels of the same quantity on the same grid, side by side.
///
/// Maximum likelihood stays confident far away from the data; a Bayesian prediction does not. Side by side the two panels
/// show it.
///
/// ```
/// use bayes_lora::plot::{Grid, LabelledPoint, Regions};
///
/// let grid = Grid { x: (-3.0, 3.0), y: (-3.0, 3.0), n_x: 30, n_y: 30 };
/// let confidence = |logit: f64| 1.0 / (1.0 + (-logit.abs()).exp());
/// let mle = grid.centres().iter().map(|[x, _]| confidence(3.0 * x)).collect();
/// let laplace = grid.centres().iter().map(|[x, y]| confidence(3.0 * x / (1.0 + x * x + y * y).sqrt())).collect();
///
/// let points = [LabelledPoint { x: -1.0, y: 0.2, class: 0 }, LabelledPoint { x: 1.1, y: -0.3, class: 1 }];
/// let figure = Regions::new(grid, "confidence of the top class")
///     .with_panel("maximum likelihood", mle)
///     .with_panel("Laplace", laplace)
///     .with_scale(0.5, 1.0)
///     .with_points(&points, &["left", "right"])
///     .figure()?;
///
/// let dir = std::env::temp_dir().join(format!("bayes-lora-regions-{}", std::process::id()));
/// figure.save(&dir, "regions")?;
/// # std::fs::remove_dir_all(&dir).ok();
/// # Ok::<(), bayes_lora::error::Error>(())
/// ```
///
/// A cell keeps the proportions of its inputs, unless the panel would become more than twice as wide as high, or more
/// than 1.2 times as high as wide. Points outside the grid are written with the data but not drawn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Regions {
    /// The cells of all panels.
    pub grid: Grid,
    /// What the values are, written beside the colour bar.
    pub quantity: String,
    /// One panel each.
    pub panels: Vec<RegionPanel>,
    /// Values of the darkest and the lightest colour; beyond them the colour stays. Without it, the range of all panels.
    pub scale: Option<(f64, f64)>,
    /// Drawn over every panel.
    pub points: Vec<LabelledPoint>,
    /// A name for each class, at most eight.
    pub class_names: Vec<String>,
    /// Names of the two inputs.
    pub axis_names: [String; 2],
}

impl Regions {
    /// Starts a figure without panels or points, its axes named x₁ and x₂.
    pub fn new(grid: Grid, quantity: impl Into<String>) -> Self {
        Self {
            grid,
            quantity: quantity.into(),
            panels: Vec::new(),
            scale: None,
            points: Vec::new(),
            class_names: Vec::new(),
            axis_names: ["x₁".into(), "x₂".into()],
        }
    }

    /// Adds a panel to the right.
    pub fn with_panel(mut self, title: impl Into<String>, values: Vec<f64>) -> Self {
        let title = title.into();
        self.panels.push(RegionPanel { title, values });
        self
    }

    /// Fixes the values of the darkest and the lightest colour.
    pub fn with_scale(mut self, low: f64, high: f64) -> Self {
        self.scale = Some((low, high));
        self
    }

    /// Sets the training points and the names of their classes.
    pub fn with_points(mut self, points: &[LabelledPoint], class_names: &[&str]) -> Self {
        self.points = points.to_vec();
        self.class_names = class_names.iter().map(|&name| name.into()).collect();
        self
    }

    /// Names the two inputs.
    pub fn with_axis_names(mut self, x: impl Into<String>, y: impl Into<String>) -> Self {
        self.axis_names = [x.into(), y.into()];
        self
    }

    /// Checks everything and answers the range of the colours.
    fn check(&self) -> Result<(f64, f64)> {
        check_panels(self.panels.len())?;
        let cells = self.grid.n_x.saturating_mul(self.grid.n_y);
        if cells == 0 {
            return Err(Error::empty("grid of the regions"));
        }
        check_range("grid.x", self.grid.x)?;
        check_range("grid.y", self.grid.y)?;
        for panel in &self.panels {
            let values = || format!("values of panel `{}`", panel.title);
            if panel.values.len() != cells {
                return Err(Error::Count { what: values(), expected: cells, found: panel.values.len() });
            }
            check_finite(values(), panel.values.iter().map(|v| v.is_finite()))?;
        }
        if self.class_names.len() > CLASSES.len() {
            let bound = format!("at most {} (a colour each)", CLASSES.len());
            return Err(Error::config("class_names", bound, self.class_names.len()));
        }
        check_finite("coordinates of the points", self.points.iter().flat_map(|p| [p.x, p.y]).map(f64::is_finite))?;
        for (i, point) in self.points.iter().enumerate() {
            if point.class >= self.class_names.len() {
                return Err(Error::LabelOutOfRange {
                    item: format!("point {i}"),
                    label: point.class,
                    n_classes: self.class_names.len(),
                });
            }
        }
        let values = self.panels.iter().flat_map(|m| m.values.iter().copied());
        let scale = self.scale.unwrap_or_else(|| range_of(values));
        check_range("scale", scale)?;
        Ok(scale)
    }
}

#[cfg(test)]
mod tests;
