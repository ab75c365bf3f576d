//! Lays out the rows, their marks in every panel, and the key.

use super::{ForestPanel, ForestPlot};
use crate::error::Result;
use crate::metrics::Estimate;
use crate::plot::axes::{Axes, BELOW, MARGIN, NAME_DROP, NAME_SIZE, TICK_SIZE, freed, range_of, shortened};
use crate::plot::canvas::{Canvas, Rect, Stroke};
use crate::plot::key::{Entry, Key, Symbol, draw_estimate};
use crate::plot::palette::FAINT;
use crate::plot::text::{Anchor, TextStyle, fit, width};
use crate::plot::{Figure, check_range};

/// Most room for the name of a row.
const NAME_ROOM: f64 = 280.0;
const PANEL: f64 = 210.0;
const GAP: f64 = 22.0;
const TOP: f64 = 26.0;
/// Height of a row beyond its marks.
const ROW_FREE: f64 = 8.0;
/// Height of a mark.
const MARK: f64 = 8.0;
const TICKS: usize = 5;
const SPACE: f64 = 6.0;

impl ForestPlot {
    /// Draws the plot.
    ///
    /// # Errors
    /// [`Error`](crate::error::Error)`::Empty` without rows, series or panels or for a panel without a number; `Config` beyond 60 rows, twelve
    /// series or four panels, or for a number that is not finite; `Count` where a panel does not have an estimate for
    /// each row and series.
    pub fn figure(&self) -> Result<Figure> {
        self.check()?;
        Figure::of("forest plot", layout(self)?, self)
    }
}

/// Lays out a checked plot.
fn layout(plot: &ForestPlot) -> Result<Canvas> {
    let ranges = plot.panels.iter().map(range).collect::<Result<Vec<_>>>()?;
    let names: Vec<(String, u32)> =
        plot.rows.iter().map(|name| fit(name, TICK_SIZE, TICK_SIZE - 1, NAME_ROOM)).collect();
    let left = MARGIN + names.iter().map(|(name, size)| width(name, *size)).fold(0.0, f64::max) + SPACE;
    let row = ROW_FREE + MARK * plot.series.len() as f64;
    let height = row * plot.rows.len() as f64;
    let page = left + plot.panels.len() as f64 * (PANEL + GAP) - GAP + 2.0 * MARGIN;
    let entries = plot.series.iter().enumerate().map(|(i, name)| Entry::new(Symbol::Estimate(i), name));
    let entries: Vec<Entry> = if plot.series.len() > 1 { entries.collect() } else { Vec::new() };
    let key = Key::new(&entries, page - 2.0 * MARGIN);
    let key_top = TOP + height + BELOW - NAME_DROP;
    let mut canvas = Canvas::new(page, key_top + key.height() + MARGIN);

    let middle = |i: usize| TOP + (i as f64 + 0.5) * row;
    for (i, (name, size)) in names.iter().enumerate() {
        let style = TextStyle::plain(*size).anchored(Anchor::End);
        canvas.text(left - SPACE, middle(i) + style.middle_to_baseline(), name, style);
    }
    for (p, (panel, x)) in plot.panels.iter().zip(ranges).enumerate() {
        let frame = Rect { x: left + p as f64 * (PANEL + GAP), y: TOP, width: PANEL, height };
        let axes = Axes { frame, x, y: (0.0, 1.0) };
        let style = TextStyle::plain(NAME_SIZE).anchored(Anchor::Middle);
        canvas.text(frame.center().0, TOP - NAME_DROP, &shortened(&panel.label, PANEL), style);
        for i in 1..plot.rows.len() {
            let y = TOP + i as f64 * row;
            canvas.line((frame.x, y), (frame.right(), y), Stroke::solid(FAINT, 0.8));
        }
        axes.draw_upright_grid(&mut canvas, TICKS);
        for (i, estimates) in panel.estimates.iter().enumerate() {
            let first = middle(i) - MARK * (plot.series.len() - 1) as f64 / 2.0;
            for (s, estimate) in estimates.iter().enumerate() {
                let Some(Estimate { value, low, high }) = estimate else { continue };
                let whiskers = (axes.px(*low), axes.px(*high));
                draw_estimate(&mut canvas, s, (axes.px(*value), first + MARK * s as f64), whiskers);
            }
        }
        axes.draw_frame(&mut canvas);
        axes.draw_x(&mut canvas, TICKS, Some(""));
    }
    key.draw(&mut canvas, page / 2.0, key_top);
    Ok(canvas)
}

fn range(panel: &ForestPanel) -> Result<(f64, f64)> {
    let numbers = panel.estimates.iter().flatten().flatten().flat_map(|e| [e.value, e.low, e.high]);
    let range = freed(range_of(numbers));
    check_range(&format!("numbers of panel `{}`", panel.label), range)?;
    Ok(range)
}
