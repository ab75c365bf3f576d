//! Lays out one method's reliability diagram and, below it, its confidence histogram.

use super::bin::{Filled, PLOT, check_unit};
use crate::error::{Error, Result};
use crate::metrics::Reliability;
use crate::number::significant;
use crate::plot::axes::{Axes, BELOW, room_beside};
use crate::plot::canvas::{Canvas, Rect, Stroke};
use crate::plot::key::{Entry, Key, ROW, Symbol, draw_bar, draw_interval};
use crate::plot::palette::{GREY, INK, VERMILLION, WHITE};
use crate::plot::text::{Anchor, TextStyle, fit, width};
use serde::Serialize;

/// Room between panels.
pub(super) const GAP: f64 = 26.0;
/// Height of the panels with their own keys.
pub(super) const HEIGHT: f64 = HISTOGRAM_TOP + HISTOGRAM + BELOW + ROW + 8.0;
const TOP: f64 = 54.0;
const HISTOGRAM: f64 = 104.0;
const HISTOGRAM_TOP: f64 = TOP + PLOT + 26.0;
const TICKS: usize = 5;
const SHARE_TICKS: usize = 4;
/// Sizes of the counts over the histogram's bars.
const COUNT_SIZES: std::ops::RangeInclusive<u32> = 7..=9;

/// The line of perfect calibration.
pub(super) fn diagonal() -> Stroke {
    Stroke::dashed(GREY, 1.2)
}

/// What is written of one method.
#[derive(Serialize)]
pub(super) struct PanelData<'a> {
    title: &'a str,
    /// Mean over all items.
    mean_confidence: f64,
    /// Mean over all items.
    accuracy: f64,
    reliability: &'a Reliability,
}

/// One method, checked.
pub(super) struct Panel<'a> {
    title: &'a str,
    reliability: &'a Reliability,
    bins: Vec<Filled>,
    mean_confidence: f64,
    accuracy: f64,
}

/// What the panels of a figure have in common.
pub(super) struct Shared {
    /// Upper end of the histograms.
    top: f64,
    /// Room left of the first panel.
    pub room: f64,
}

impl Shared {
    pub fn of(panels: &[Panel]) -> Self {
        let bins = || panels.iter().flat_map(|p| &p.bins);
        let tallest = bins().map(|b| b.share).fold(0.0, f64::max);
        let headroom = panels.iter().map(|p| p.count_style().1).fold(0.0, f64::max);
        let top = tallest * HISTOGRAM / (HISTOGRAM - headroom);
        let room = room_beside((0.0, 1.0), TICKS).max(room_beside((0.0, top), SHARE_TICKS));
        Self { top, room }
    }
}

impl<'a> Panel<'a> {
    pub fn new(title: &'a str, reliability: &'a Reliability) -> Result<Self> {
        let n = reliability.n_items;
        if n == 0 {
            return Err(Error::empty(format!("reliability of `{title}`")));
        }
        let counts = reliability.bins.iter().map(|b| b.count);
        let found = counts.fold(0, usize::saturating_add);
        if found != n {
            return Err(Error::Count { what: format!("items in the bins of `{title}`"), expected: n, found });
        }
        check_unit(title, "ECE", reliability.ece)?;
        let mut bins = Vec::new();
        for (i, bin) in reliability.bins.iter().enumerate() {
            bins.extend(Filled::new(bin, n, &format!("`{title}`, bin {i}"))?);
        }
        let mean = |value: fn(&Filled) -> f64| bins.iter().map(|b| b.share * value(b)).sum();
        Ok(Self { title, reliability, mean_confidence: mean(|b| b.confidence), accuracy: mean(|b| b.accuracy), bins })
    }

    pub fn data(&self) -> PanelData<'a> {
        PanelData {
            title: self.title,
            mean_confidence: self.mean_confidence,
            accuracy: self.accuracy,
            reliability: self.reliability,
        }
    }

    /// Draws the panel with its frames' left edge at `left`; axis names only where it is the first.
    pub fn draw(&self, canvas: &mut Canvas, left: f64, first: bool, shared: &Shared) {
        let middle = left + PLOT / 2.0;
        let (title, size) = fit(self.title, 13, 10, PLOT + GAP - 8.0);
        let heading = TextStyle::plain(size).anchored(Anchor::Middle);
        canvas.text(middle, 21.0, &title, heading);
        let summary = format!("ECE {} · n = {}", significant(self.reliability.ece), self.reliability.n_items);
        let style = TextStyle::plain(11).anchored(Anchor::Middle).colored(GREY);
        canvas.text(middle, 39.0, &summary, style);
        self.draw_diagram(canvas, left, first.then_some("accuracy"));
        self.draw_histogram(canvas, left, first.then_some("share of items"), shared);
        let means = [
            Entry::new(Symbol::Line(accuracy_line()), format!("accuracy {}", significant(self.accuracy))),
            Entry::new(
                Symbol::Line(confidence_line()),
                format!("mean confidence {}", significant(self.mean_confidence)),
            ),
        ];
        Key::new(&means, PLOT + GAP).draw(canvas, middle, HISTOGRAM_TOP + HISTOGRAM + BELOW);
    }

    fn draw_diagram(&self, canvas: &mut Canvas, left: f64, name: Option<&str>) {
        let axes = axes(left, TOP, PLOT, 1.0);
        axes.draw_grid(canvas, TICKS);
        for bin in &self.bins {
            draw_bar(canvas, bin.bar(&axes, bin.accuracy));
        }
        canvas.line((axes.px(0.0), axes.py(0.0)), (axes.px(1.0), axes.py(1.0)), diagonal());
        axes.draw_frame(canvas);
        for bin in &self.bins {
            let whiskers = bin.interval.map(|(low, high)| (axes.py(high), axes.py(low)));
            draw_interval(canvas, axes.px(bin.confidence), axes.py(bin.accuracy), whiskers);
        }
        axes.draw_x(canvas, TICKS, None);
        axes.draw_y(canvas, TICKS, name);
    }

    fn draw_histogram(&self, canvas: &mut Canvas, left: f64, name: Option<&str>, shared: &Shared) {
        let axes = axes(left, HISTOGRAM_TOP, HISTOGRAM, shared.top);
        axes.draw_grid(canvas, SHARE_TICKS);
        for bin in &self.bins {
            draw_bar(canvas, bin.bar(&axes, bin.share));
        }
        for (mean, stroke) in [(self.accuracy, accuracy_line()), (self.mean_confidence, confidence_line())] {
            let x = axes.px(mean);
            canvas.line((x, axes.frame.y), (x, axes.frame.bottom()), stroke);
        }
        self.draw_counts(canvas, &axes);
        axes.draw_frame(canvas);
        axes.draw_x(canvas, TICKS, Some("confidence"));
        axes.draw_y(canvas, SHARE_TICKS, name);
    }

    /// Writes each bin's count over its bar, on white where a mean's line would cross it; bins so narrow that the
    /// numbers would touch each other or the frame keep only the first.
    fn draw_counts(&self, canvas: &mut Canvas, axes: &Axes) {
        let (style, _) = self.count_style();
        let size = f64::from(style.size);
        let mut taken = f64::NEG_INFINITY;
        for bin in &self.bins {
            let count = bin.count.to_string();
            let long = width(&count, style.size);
            let (w, h) = if style.upward { (size, long + 2.0) } else { (long, size) };
            let x = axes.px((bin.edges.0 + bin.edges.1) / 2.0);
            let top = axes.py(bin.share) - 2.0 - h;
            if x - w / 2.0 < taken || x + w / 2.0 > axes.frame.right() {
                continue;
            }
            taken = x + w / 2.0;
            let ground = Rect { x: x - w / 2.0, y: top, width: w, height: h };
            let crossed = |mean: f64| (axes.px(mean) - x).abs() < w / 2.0 + 1.0;
            if crossed(self.accuracy) || crossed(self.mean_confidence) {
                canvas.rect(ground, Some(WHITE), None);
            }
            if style.upward {
                canvas.text(x + style.middle_to_baseline(), top + h / 2.0, &count, style);
            } else {
                canvas.text(x, top + h / 2.0 + style.middle_to_baseline(), &count, style);
            }
        }
    }

    /// How the counts are set, level where they fit over their bars, else upright, and the height that they need.
    fn count_style(&self) -> (TextStyle, f64) {
        let (smallest, largest) = COUNT_SIZES.into_inner();
        let style = TextStyle::plain(largest).anchored(Anchor::Middle);
        let narrowest = self.bins.iter().map(Filled::pixels).fold(PLOT, f64::min);
        let longest = |size| {
            let widths = self.bins.iter().map(|b| width(&b.count.to_string(), size));
            widths.fold(0.0, f64::max)
        };
        if let Some(size) = (smallest..=largest).rev().find(|&s| longest(s) + 1.5 <= narrowest) {
            return (TextStyle { size, ..style }, f64::from(size) + 6.0);
        }
        let size = ((narrowest - 1.0) as u32).clamp(smallest, largest);
        (TextStyle { size, ..style.upward() }, longest(size) + 8.0)
    }
}

fn axes(left: f64, top: f64, height: f64, y_max: f64) -> Axes {
    Axes { frame: Rect { x: left, y: top, width: PLOT, height }, x: (0.0, 1.0), y: (0.0, y_max) }
}

fn accuracy_line() -> Stroke {
    Stroke::solid(INK, 1.4)
}

fn confidence_line() -> Stroke {
    Stroke::dashed(VERMILLION, 1.8)
}
