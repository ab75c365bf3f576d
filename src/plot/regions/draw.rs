//! Lays out the panels, the colour bar and the key of classes.

use super::{RegionPanel, Regions};
use crate::error::Result;
use crate::plot::axes::{
    Axes, BELOW, MARGIN, NAME_DROP, NAME_SIZE, TICK_SIZE, room_beside, shortened, ticks, widest_label,
};
use crate::plot::canvas::{Canvas, Rect, Stroke};
use crate::plot::key::{Entry, Key, Symbol, draw_class_mark};
use crate::plot::palette::{INK, Rgb, viridis};
use crate::plot::text::{Anchor, TextStyle, fit};
use crate::plot::{Figure, PNG_SCALE};

const WIDTH: f64 = 280.0;
const TOP: f64 = 50.0;
const BAR: f64 = 14.0;
const TICKS: usize = 5;
/// How far a cell reaches under its neighbours.
const UNDERLAP: f64 = 0.5;
/// Colours in the bar.
const STEPS: usize = 128;

impl Regions {
    /// Draws the regions.
    ///
    /// # Errors
    /// [`Error`](crate::error::Error)`::Empty` without panels or cells, `Config` beyond four panels or eight classes or for a range that
    /// does not ascend, `Count` where a panel's values do not match the grid, `NonFinite`, and
    /// `LabelOutOfRange` for a point whose class has no name.
    pub fn figure(&self) -> Result<Figure> {
        let scale = self.check()?;
        Figure::of("regions", layout(self, scale), self)
    }
}

/// Lays out checked regions, `scale` being the values of the darkest and the lightest colour.
fn layout(regions: &Regions, scale: (f64, f64)) -> Canvas {
    let (x, y) = (regions.grid.x, regions.grid.y);
    let height = WIDTH * ((y.1 - y.0) / (x.1 - x.0)).clamp(0.5, 1.2);
    let left = room_beside(y, TICKS);
    // Tick labels at the ends of neighbouring axes must not meet.
    let gap = (widest_label(x, TICKS) + 8.0).max(22.0);
    let right = left + regions.panels.len() as f64 * (WIDTH + gap);
    let width = right + BAR + room_beside(scale, TICKS);
    let classes: Vec<Entry> =
        regions.class_names.iter().enumerate().map(|(class, name)| Entry::new(Symbol::Class(class), name)).collect();
    let key = Key::new(&classes, right - left);
    let key_top = TOP + height + BELOW + 4.0;
    let mut canvas = Canvas::new(width, key_top + key.height() + 8.0);
    for (i, panel) in regions.panels.iter().enumerate() {
        let frame = Rect { x: left + i as f64 * (WIDTH + gap), y: TOP, width: WIDTH, height };
        draw_panel(&mut canvas, regions, panel, Axes { frame, x, y }, scale, i == 0);
    }
    let bar = Rect { x: right, y: TOP, width: BAR, height };
    draw_bar(&mut canvas, bar, scale, &regions.quantity, width);
    key.draw(&mut canvas, (left + right - gap) / 2.0, key_top);
    canvas
}

fn draw_panel(canvas: &mut Canvas, regions: &Regions, panel: &RegionPanel, axes: Axes, scale: (f64, f64), first: bool) {
    let frame = axes.frame;
    let (title, size) = fit(&panel.title, 13, 10, WIDTH + 12.0);
    let style = TextStyle::plain(size).anchored(Anchor::Middle);
    canvas.text(frame.center().0, 21.0, &title, style);
    canvas.cells(&cells(panel, regions.grid.n_x, regions.grid.n_y, frame, scale));
    for point in &regions.points {
        let inside = (axes.x.0..=axes.x.1).contains(&point.x) && (axes.y.0..=axes.y.1).contains(&point.y);
        if inside {
            draw_class_mark(canvas, point.class, (axes.px(point.x), axes.py(point.y)));
        }
    }
    axes.draw_frame(canvas);
    axes.draw_x(canvas, TICKS, Some(&shortened(&regions.axis_names[0], WIDTH)));
    let y_name = shortened(&regions.axis_names[1], WIDTH / 2.0);
    axes.draw_y(canvas, TICKS, first.then_some(&y_name));
}

/// The coloured rectangles of a panel; neighbours of one colour in a row are joined, which keeps the SVG small.
fn cells(panel: &RegionPanel, n_x: usize, n_y: usize, frame: Rect, scale: (f64, f64)) -> Vec<(Rect, Rgb)> {
    // Edges on whole pixels of the PNG: none is blurred, hence no seams.
    let pixels = f64::from(PNG_SCALE);
    let snap = |position: f64| (position * pixels).round() / pixels;
    let column = |i: usize| snap(frame.x + frame.width * i as f64 / n_x as f64);
    let row = |j: usize| snap(frame.bottom() - frame.height * j as f64 / n_y as f64);
    let mut cells: Vec<(Rect, Rgb)> = Vec::new();
    for (j, values) in panel.values.chunks(n_x).enumerate() {
        let (top, bottom) = (row(j + 1), row(j));
        let mut start = 0;
        let colors: Vec<Rgb> = values.iter().map(|v| viridis((v - scale.0) / (scale.1 - scale.0))).collect();
        for run in colors.chunk_by(|a, b| a == b) {
            let end = start + run.len();
            // Cells reach under the later ones to their right and above: an SVG's rounded numbers leave gaps otherwise.
            let under = |later: bool| if later { UNDERLAP } else { 0.0 };
            let (right, above) = (under(end < n_x), under(j + 1 < n_y));
            let area = Rect {
                x: column(start),
                y: top - above,
                width: column(end) - column(start) + right,
                height: bottom - top + above,
            };
            start = end;
            cells.push((area, run[0]));
        }
    }
    cells
}

/// Draws the colour bar with its ticks, and its name above, which ends at the right edge of the page.
fn draw_bar(canvas: &mut Canvas, bar: Rect, scale: (f64, f64), quantity: &str, page: f64) {
    let step = bar.height / STEPS as f64;
    let steps: Vec<(Rect, Rgb)> = (0..STEPS)
        .map(|i| {
            let area = Rect {
                y: bar.bottom() - (i + 1) as f64 * step,
                // Each reaches below the one before it, so that no gap shows.
                height: if i == 0 { step } else { 2.0 * step },
                ..bar
            };
            (area, viridis(i as f64 / (STEPS - 1) as f64))
        })
        .rev()
        .collect();
    canvas.cells(&steps);
    canvas.rect(bar, None, Some(Stroke::solid(INK, 1.0)));
    let axes = Axes { frame: bar, x: (0.0, 1.0), y: scale };
    let style = TextStyle::plain(TICK_SIZE);
    for (value, label) in ticks(scale, TICKS) {
        let y = axes.py(value);
        canvas.line((bar.right(), y), (bar.right() + 4.0, y), Stroke::solid(INK, 1.0));
        canvas.text(bar.right() + 7.0, y + style.middle_to_baseline(), &label, style);
    }
    let style = TextStyle::plain(NAME_SIZE).anchored(Anchor::End);
    let name = shortened(quantity, page / 2.0);
    canvas.text(page - MARGIN, bar.y - NAME_DROP, &name, style);
}
