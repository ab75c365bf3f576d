//! Collects the shapes of a figure.
//!
//! Positions are in drawing units from the top left corner, y downward.

use super::palette::Rgb;
use super::text::{TextStyle, printable};

/// An axis-aligned rectangle.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Rect {
    pub x: f64,
    pub y: f64,
    pub width: f64,
    pub height: f64,
}

impl Rect {
    pub fn right(&self) -> f64 {
        self.x + self.width
    }

    pub fn bottom(&self) -> f64 {
        self.y + self.height
    }

    pub fn center(&self) -> (f64, f64) {
        (self.x + self.width / 2.0, self.y + self.height / 2.0)
    }
}

/// How a line is drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Stroke {
    pub color: Rgb,
    pub width: f64,
    /// Lengths of dashes and gaps in turn; none for a solid line.
    pub dash: &'static [f64],
}

impl Stroke {
    pub fn solid(color: Rgb, width: f64) -> Self {
        Self { color, width, dash: &[] }
    }

    pub fn dashed(color: Rgb, width: f64) -> Self {
        Self { color, width, dash: &[5.0, 4.0] }
    }
}

/// One thing drawn.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Shape {
    Rect {
        area: Rect,
        fill: Option<Rgb>,
        stroke: Option<Stroke>,
    },
    /// Filled cells without outlines, their edges unblurred.
    Cells(Vec<(Rect, Rgb)>),
    Line {
        points: Vec<(f64, f64)>,
        stroke: Stroke,
    },
    Circle {
        center: (f64, f64),
        radius: f64,
        fill: Rgb,
        stroke: Option<Stroke>,
    },
    Polygon {
        corners: Vec<(f64, f64)>,
        fill: Rgb,
        stroke: Option<Stroke>,
    },
    /// One line of text, its baseline at `at.1`.
    Text {
        at: (f64, f64),
        content: String,
        style: TextStyle,
    },
}

/// The shapes drawn so far, later ones over earlier ones.
#[derive(Debug)]
pub(super) struct Canvas {
    pub width: f64,
    pub height: f64,
    pub shapes: Vec<Shape>,
}

impl Canvas {
    /// An empty page.
    pub fn new(width: f64, height: f64) -> Self {
        Self { width, height, shapes: Vec::new() }
    }

    pub fn rect(&mut self, area: Rect, fill: Option<Rgb>, stroke: Option<Stroke>) {
        self.shapes.push(Shape::Rect { area, fill, stroke });
    }

    /// Draws many filled cells without outlines, their edges unblurred so that neighbours leave no seam.
    pub fn cells(&mut self, cells: &[(Rect, Rgb)]) {
        self.shapes.push(Shape::Cells(cells.to_vec()));
    }

    pub fn line(&mut self, from: (f64, f64), to: (f64, f64), stroke: Stroke) {
        self.polyline(&[from, to], stroke);
    }

    /// Joins the points by straight lines, over whose corners dashes continue.
    pub fn polyline(&mut self, points: &[(f64, f64)], stroke: Stroke) {
        self.shapes.push(Shape::Line { points: points.to_vec(), stroke });
    }

    pub fn circle(&mut self, center: (f64, f64), radius: f64, fill: Rgb, stroke: Option<Stroke>) {
        self.shapes.push(Shape::Circle { center, radius, fill, stroke });
    }

    pub fn polygon(&mut self, corners: &[(f64, f64)], fill: Rgb, stroke: Option<Stroke>) {
        self.shapes.push(Shape::Polygon { corners: corners.to_vec(), fill, stroke });
    }

    /// Sets one line of text with its baseline at `y`.
    pub fn text(&mut self, x: f64, y: f64, content: &str, style: TextStyle) {
        self.shapes.push(Shape::Text { at: (x, y), content: printable(content), style });
    }
}
