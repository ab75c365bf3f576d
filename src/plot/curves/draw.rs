//! Lays out the curves, the marks with their labels, and the key.

use super::{AxisScale, Curve, CurveChart};
use crate::error::Result;
use crate::plot::axes::{Axes, BELOW, MARGIN, TICK_SIZE, freed, range_of, room_beside, shortened};
use crate::plot::canvas::{Canvas, Rect, Stroke};
use crate::plot::key::{Entry, Key, Symbol, curve_stroke};
use crate::plot::palette::{GREY, WHITE};
use crate::plot::text::{TextStyle, fit, width};
use crate::plot::{Figure, check_range};

const TOP: f64 = 36.0;
const RIGHT: f64 = 26.0;
const X_TICKS: usize = 8;
const Y_TICKS: usize = 5;
/// Decades that a logarithmic axis extends at least on either side of every point.
const X_AROUND: f64 = 0.05;
/// Most points of a curve that get a dot each.
const MAX_DOTS: usize = 20;
/// Height of a row of labels.
const LABEL_ROW: f64 = 14.0;
/// Room between a label and a line.
const SPACE: f64 = 4.0;

impl CurveChart {
    /// Draws the curves.
    ///
    /// # Errors
    /// [`Error`](crate::error::Error)`::Empty` without curves or for a curve without points; `Config` beyond twelve curves or six marks,
    /// for a curve of one point, for an x that is not finite, or not positive on a logarithmic axis, for a y that is not
    /// finite, for a frame smaller than 100 units, and where the largest and the smallest y are further apart than a number
    /// can say.
    pub fn figure(&self) -> Result<Figure> {
        self.check()?;
        Figure::of("curves", layout(self)?, self)
    }
}

/// Lays out a checked chart.
fn layout(chart: &CurveChart) -> Result<Canvas> {
    let points = || chart.curves.iter().flat_map(|curve| &curve.points);
    let xs = points().map(|point| point.0).chain(chart.marks.iter().map(|mark| mark.x));
    let around = if chart.x_scale == AxisScale::Logarithmic { X_AROUND } else { 0.0 };
    let places = xs.map(|x| chart.x_scale.place(x)).flat_map(|at| [at - around, at + around]);
    let x = freed(range_of(places));
    check_range("x of the curves", x)?;
    let (frame_width, frame_height) = chart.size;
    let labels = place_labels(chart, x);
    let rows = labels.iter().map(|label| label.row + 1).max().unwrap_or(0);
    let headroom = rows as f64 * LABEL_ROW;
    let (low, high) = freed(range_of(points().map(|point| point.1)));
    let y = (low, high + (high - low) * headroom / frame_height);
    check_range("y of the curves", y)?;

    let left = room_beside(y, Y_TICKS);
    let page = left + frame_width + RIGHT;
    let frame = Rect { x: left, y: TOP, width: frame_width, height: frame_height + headroom };
    let axes = Axes { frame, x, y };
    let names = chart.curves.iter().enumerate().map(|(i, curve)| Entry::new(Symbol::Curve(i), &curve.name));
    let key = Key::new(&names.collect::<Vec<_>>(), page - 2.0 * MARGIN);
    let key_top = frame.bottom() + BELOW + 4.0;
    let mut canvas = Canvas::new(page, key_top + key.height() + 8.0);
    axes.draw_grid(&mut canvas, Y_TICKS);
    draw_marks(&mut canvas, &axes, &labels);
    for (i, curve) in chart.curves.iter().enumerate() {
        draw_curve(&mut canvas, &axes, chart.x_scale, curve, i);
    }
    axes.draw_frame(&mut canvas);
    let x_label = shortened(&chart.x_label, frame_width);
    match chart.x_scale {
        AxisScale::Logarithmic => axes.draw_log_x(&mut canvas, X_TICKS, Some(&x_label)),
        AxisScale::Linear => axes.draw_x(&mut canvas, X_TICKS, Some(&x_label)),
    }
    axes.draw_y(&mut canvas, Y_TICKS, Some(&shortened(&chart.y_label, page - 2.0 * MARGIN)));
    key.draw(&mut canvas, page / 2.0, key_top);
    Ok(canvas)
}

fn draw_curve(canvas: &mut Canvas, axes: &Axes, scale: AxisScale, curve: &Curve, index: usize) {
    let mut points = curve.points.clone();
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    let points: Vec<(f64, f64)> = points.iter().map(|&(x, y)| (axes.px(scale.place(x)), axes.py(y))).collect();
    let stroke = curve_stroke(index);
    canvas.polyline(&points, stroke);
    if points.len() <= MAX_DOTS {
        for point in points {
            canvas.circle(point, 2.4, stroke.color, None);
        }
    }
}

/// Places a mark and its label, horizontally from the frame's left edge.
pub(super) struct Label {
    /// Where the line stands.
    at: f64,
    text: String,
    size: u32,
    pub start: f64,
    pub end: f64,
    /// From the top of the frame.
    pub row: usize,
}

/// Sets every label beside its line: to the right, or to the left where the frame ends; in the first row in which it
/// meets no other label, and its line none below.
pub(super) fn place_labels(chart: &CurveChart, (low, high): (f64, f64)) -> Vec<Label> {
    let frame = chart.size.0;
    let at = |x: f64| (chart.x_scale.place(x) - low) / (high - low) * frame;
    let mut marks: Vec<(f64, &str)> = chart.marks.iter().map(|m| (at(m.x), m.label.as_str())).collect();
    marks.sort_by(|a, b| a.0.total_cmp(&b.0));
    // How far each row is taken.
    let mut taken: Vec<f64> = Vec::new();
    marks
        .into_iter()
        .map(|(at, label)| {
            let (text, size) = fit(label, TICK_SIZE, TICK_SIZE - 2, at.max(frame - at) - 2.0 * SPACE);
            let long = width(&text, size);
            let to_the_right = at <= frame / 2.0 || at + long + 2.0 * SPACE <= frame;
            let start = if to_the_right { at + SPACE } else { at - SPACE - long };
            let end = start + long;
            let free = |row: usize| taken[row..].iter().all(|&taken| taken + SPACE <= start.min(at));
            let row = (0..taken.len()).find(|&row| free(row)).unwrap_or(taken.len());
            if row == taken.len() {
                taken.push(0.0);
            }
            taken[row] = end.max(at);
            Label { at, text, size, start, end, row }
        })
        .collect()
}

/// Draws the lines, each from its label's row downward, then the labels on white, for a line may pass behind one.
fn draw_marks(canvas: &mut Canvas, axes: &Axes, labels: &[Label]) {
    let frame = axes.frame;
    let top = |label: &Label| frame.y + label.row as f64 * LABEL_ROW;
    for label in labels {
        let x = frame.x + label.at;
        canvas.line((x, top(label)), (x, frame.bottom()), Stroke::dashed(GREY, 1.2));
    }
    for label in labels {
        let (start, long) = (frame.x + label.start, label.end - label.start);
        let ground = Rect { x: start - 1.0, y: top(label) + 2.0, width: long + 2.0, height: LABEL_ROW - 2.0 };
        canvas.rect(ground, Some(WHITE), None);
        let style = TextStyle::plain(label.size);
        canvas.text(start, ground.center().1 + style.middle_to_baseline(), &label.text, style);
    }
}
