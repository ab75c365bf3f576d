//! Draws the symbols of a figure and the key that explains them.

use super::canvas::{Canvas, Rect, Stroke};
use super::palette::{BLUE, CLASSES, CURVES, INK, PALE_BLUE, WHITE};
use super::text::{TextStyle, fit, width};

/// Height of one row of a key.
pub(super) const ROW: f64 = 17.0;
const SIZE: u32 = 10;
const SPACE: f64 = 5.0;
const BETWEEN: f64 = 16.0;
/// Dashes of the curves, so short that the key shows each pattern whole, with gaps that PNG's round ends leave open.
const DASHES: [&[f64]; CURVES.len()] =
    [&[], &[6.5, 3.8], &[1.2, 3.6], &[10.0, 3.8, 1.2, 3.8], &[14.0, 4.5], &[7.0, 3.6, 1.2, 3.6, 1.2, 3.6]];

/// What is drawn before an explanation.
#[derive(Debug, Clone, Copy)]
pub(super) enum Symbol {
    Line(Stroke),
    Bar,
    PointWithInterval,
    Class(usize),
    Curve(usize),
    Estimate(usize),
}

impl Symbol {
    fn width(self) -> f64 {
        match self {
            Self::Line(_) | Self::Estimate(_) => 22.0,
            Self::Curve(_) => 38.0,
            Self::Bar | Self::PointWithInterval | Self::Class(_) => 12.0,
        }
    }
}

/// One line of explanation.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub symbol: Symbol,
    pub label: String,
}

impl Entry {
    pub fn new(symbol: Symbol, label: impl Into<String>) -> Self {
        Self { symbol, label: label.into() }
    }
}

/// The entries set in as many centred rows as they need.
#[derive(Debug)]
pub(super) struct Key {
    rows: Vec<Vec<(Symbol, String, u32, f64)>>,
}

impl Key {
    /// Breaks the entries into rows at most `room` wide; a label wider than that is shortened.
    pub fn new(entries: &[Entry], room: f64) -> Self {
        let mut rows: Vec<Vec<(Symbol, String, u32, f64)>> = Vec::new();
        let mut used = f64::INFINITY;
        for entry in entries {
            let (label, size) = fit(&entry.label, SIZE, SIZE - 2, room - entry.symbol.width() - SPACE);
            let own = entry.symbol.width() + SPACE + width(&label, size);
            let item = (entry.symbol, label, size, own);
            match rows.last_mut() {
                Some(row) if used + BETWEEN + own <= room => {
                    used += BETWEEN + own;
                    row.push(item);
                }
                _ => {
                    used = own;
                    rows.push(vec![item]);
                }
            }
        }
        Self { rows }
    }

    /// Height of all rows.
    pub fn height(&self) -> f64 {
        self.rows.len() as f64 * ROW
    }

    /// Draws the rows from `top` downward, each centred at `middle`.
    pub fn draw(&self, canvas: &mut Canvas, middle: f64, top: f64) {
        for (i, row) in self.rows.iter().enumerate() {
            let y = top + (i as f64 + 0.5) * ROW;
            let total: f64 = row.iter().map(|(_, _, _, own)| own).sum();
            let mut x = middle - (total + BETWEEN * (row.len() - 1) as f64) / 2.0;
            for (symbol, label, size, own) in row {
                draw_symbol(canvas, *symbol, x, y);
                let style = TextStyle::plain(*size);
                canvas.text(x + symbol.width() + SPACE, y + style.middle_to_baseline(), label, style);
                x += own + BETWEEN;
            }
        }
    }
}

fn draw_symbol(canvas: &mut Canvas, symbol: Symbol, x: f64, y: f64) {
    let middle = x + symbol.width() / 2.0;
    match symbol {
        Symbol::Line(stroke) => canvas.line((x, y), (x + symbol.width(), y), stroke),
        Symbol::Curve(curve) => canvas.line((x, y), (x + symbol.width(), y), curve_stroke(curve)),
        Symbol::Bar => draw_bar(canvas, Rect { x: middle - 6.0, y: y - 5.0, width: 12.0, height: 10.0 }),
        Symbol::PointWithInterval => draw_interval(canvas, middle, y, Some((y - 6.0, y + 6.0))),
        Symbol::Estimate(series) => draw_estimate(canvas, series, (middle, y), (x, x + symbol.width())),
        Symbol::Class(class) => draw_class_mark(canvas, class, (middle, y)),
    }
}

/// Draws the bar of one bin.
pub(super) fn draw_bar(canvas: &mut Canvas, area: Rect) {
    canvas.rect(area, Some(PALE_BLUE), Some(Stroke::solid(BLUE, 0.8)));
}

/// Draws a point and the whiskers of its interval (top and bottom position).
pub(super) fn draw_interval(canvas: &mut Canvas, x: f64, y: f64, whiskers: Option<(f64, f64)>) {
    if let Some((top, bottom)) = whiskers {
        let stroke = Stroke::solid(INK, 1.2);
        canvas.line((x, top), (x, bottom), stroke);
        for end in [top, bottom] {
            canvas.line((x - 3.0, end), (x + 3.0, end), stroke);
        }
    }
    canvas.circle((x, y), 3.0, BLUE, Some(Stroke::solid(INK, 0.8)));
}

/// Draws a point and its level interval in the colour of its series; the points of a second round of colours are hollow.
pub(super) fn draw_estimate(canvas: &mut Canvas, series: usize, center: (f64, f64), (low, high): (f64, f64)) {
    let stroke = Stroke::solid(CURVES[series % CURVES.len()], 1.3);
    let fill = if series < CURVES.len() { stroke.color } else { WHITE };
    canvas.line((low, center.1), (high, center.1), stroke);
    canvas.circle(center, 2.4, fill, Some(stroke));
}

/// The line of a curve: colour and dashes both tell it, so that grey print keeps it apart.
pub(super) fn curve_stroke(curve: usize) -> Stroke {
    // the second round of colours has other dashes, and so on
    let dash = (curve + curve / CURVES.len()) % DASHES.len();
    Stroke { color: CURVES[curve % CURVES.len()], width: 1.7, dash: DASHES[dash] }
}

/// Draws the mark of a class: colour and shape both tell it, and a white rim sets it off from any ground.
pub(super) fn draw_class_mark(canvas: &mut Canvas, class: usize, center: (f64, f64)) {
    let fill = CLASSES[class % CLASSES.len()];
    let edge = Some(Stroke::solid(INK, 0.8));
    let around = |offsets: &[(f64, f64)], scale: f64| -> Vec<(f64, f64)> {
        offsets.iter().map(|(dx, dy)| (center.0 + scale * dx, center.1 + scale * dy)).collect()
    };
    let corners: &[(f64, f64)] = match class % 4 {
        0 => {
            canvas.circle(center, 4.4, WHITE, None);
            return canvas.circle(center, 3.2, fill, edge);
        }
        1 => &[(-2.9, -2.9), (2.9, -2.9), (2.9, 2.9), (-2.9, 2.9)],
        2 => &[(0.0, -4.0), (3.7, 2.7), (-3.7, 2.7)],
        _ => &[(0.0, -4.2), (4.2, 0.0), (0.0, 4.2), (-4.2, 0.0)],
    };
    canvas.polygon(&around(corners, 1.4), WHITE, None);
    canvas.polygon(&around(corners, 1.0), fill, edge);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(n: usize) -> Vec<Entry> {
        (0..n).map(|i| Entry::new(Symbol::Class(i), format!("class {i}"))).collect()
    }

    #[test]
    fn entries_share_a_row_while_there_is_room() {
        assert_eq!(Key::new(&entries(3), 1000.0).height(), ROW);
        assert_eq!(Key::new(&entries(3), 80.0).height(), 3.0 * ROW);
        assert_eq!(Key::new(&[], 80.0).height(), 0.0);
    }

    #[test]
    fn the_key_shows_the_dashes_of_every_curve_whole() {
        for (i, pattern) in DASHES.iter().enumerate() {
            assert!(!DASHES[..i].contains(pattern), "{pattern:?}");
            assert!(pattern.iter().sum::<f64>() <= Symbol::Curve(i).width(), "{pattern:?}");
        }
    }

    #[test]
    fn no_two_curves_have_colour_and_dashes_in_common() {
        let n = CURVES.len() * DASHES.len();
        let strokes: Vec<_> = (0..n).map(curve_stroke).collect();
        for (i, a) in strokes.iter().enumerate() {
            assert!(strokes[..i].iter().all(|b| (a.color, a.dash) != (b.color, b.dash)), "{i}");
        }
    }

    #[test]
    fn rows_stay_within_their_room() {
        let long = Entry::new(Symbol::Bar, "a label that is far too long for its row");
        let key = Key::new(&[entries(2), vec![long]].concat(), 150.0);
        for row in &key.rows {
            let total: f64 = row.iter().map(|(_, _, _, own)| own).sum();
            assert!(total + BETWEEN * (row.len() - 1) as f64 <= 150.0, "{row:?}");
        }
    }
}
