//! Maps numbers to positions inside a frame and draws the frame, its grid, ticks and names.

use super::canvas::{Canvas, Rect, Stroke};
use super::palette::{FAINT, INK};
use super::text::{Anchor, TextStyle, width};

/// Size of tick labels.
pub(super) const TICK_SIZE: u32 = 10;
/// Size of the names of axes.
pub(super) const NAME_SIZE: u32 = 11;
/// Room that tick labels and name take below a frame.
pub(super) const BELOW: f64 = 36.0;
/// How far above a frame the baseline of a name lies.
pub(super) const NAME_DROP: f64 = 10.0;
/// Room that tick labels leave at the edge of the page.
pub(super) const MARGIN: f64 = 8.0;
const TICK: f64 = 4.0;

/// A frame with the ranges of numbers that it spans.
#[derive(Debug, Clone, Copy)]
pub(super) struct Axes {
    pub frame: Rect,
    pub x: (f64, f64),
    pub y: (f64, f64),
}

impl Axes {
    /// Horizontal position of `x`.
    pub fn px(&self, x: f64) -> f64 {
        self.frame.x + (x - self.x.0) / (self.x.1 - self.x.0) * self.frame.width
    }

    /// Vertical position of `y`, which grows upward.
    pub fn py(&self, y: f64) -> f64 {
        self.frame.bottom() - (y - self.y.0) / (self.y.1 - self.y.0) * self.frame.height
    }

    /// Draws the horizontal grid lines, to lie under the data.
    pub fn draw_grid(&self, canvas: &mut Canvas, n_ticks: usize) {
        for (value, _) in ticks(self.y, n_ticks) {
            let y = self.py(value);
            canvas.line((self.frame.x, y), (self.frame.right(), y), Stroke::solid(FAINT, 0.8));
        }
    }

    /// Draws the frame, to lie over the data.
    pub fn draw_frame(&self, canvas: &mut Canvas) {
        canvas.rect(self.frame, None, Some(Stroke::solid(INK, 1.0)));
    }

    /// Draws the ticks below the frame; their labels and the axis name only where there is a name.
    pub fn draw_x(&self, canvas: &mut Canvas, n_ticks: usize, name: Option<&str>) {
        let bottom = self.frame.bottom();
        for (value, label) in ticks(self.x, n_ticks) {
            let x = self.px(value);
            canvas.line((x, bottom), (x, bottom + TICK), Stroke::solid(INK, 1.0));
            if name.is_some() {
                let style = TextStyle::plain(TICK_SIZE).anchored(Anchor::Middle);
                canvas.text(x, bottom + 15.0, &label, style);
            }
        }
        if let Some(name) = name {
            let style = TextStyle::plain(NAME_SIZE).anchored(Anchor::Middle);
            canvas.text(self.frame.center().0, bottom + 31.0, name, style);
        }
    }

    /// Draws the ticks left of the frame; their labels, and the axis name level above them, only where there is a name.
    pub fn draw_y(&self, canvas: &mut Canvas, n_ticks: usize, name: Option<&str>) {
        let left = self.frame.x;
        for (value, label) in ticks(self.y, n_ticks) {
            let y = self.py(value);
            canvas.line((left - TICK, y), (left, y), Stroke::solid(INK, 1.0));
            if name.is_some() {
                let style = TextStyle::plain(TICK_SIZE).anchored(Anchor::End);
                canvas.text(left - TICK - 3.0, y + style.middle_to_baseline(), &label, style);
            }
        }
        if let Some(name) = name {
            let x = left - room_beside(self.y, n_ticks) + MARGIN;
            canvas.text(x, self.frame.y - NAME_DROP, name, TextStyle::plain(NAME_SIZE));
        }
    }
}

/// Room that ticks, their labels and a margin take beside a frame that spans `range`.
pub(super) fn room_beside(range: (f64, f64), n_ticks: usize) -> f64 {
    widest_label(range, n_ticks) + TICK + 3.0 + MARGIN
}

/// Width of the widest tick label of a range.
pub(super) fn widest_label(range: (f64, f64), n_ticks: usize) -> f64 {
    ticks(range, n_ticks).iter().map(|(_, label)| width(label, TICK_SIZE)).fold(0.0, f64::max)
}

/// At most `most + 1` round numbers within a range, with their labels; multiples of 1, 2 or 5 times a power of ten.
pub(super) fn ticks((low, high): (f64, f64), most: usize) -> Vec<(f64, String)> {
    let span = high - low;
    if !(span > 0.0 && span.is_finite()) {
        return Vec::new();
    }
    let rough = span / most.max(1) as f64;
    let power = 10f64.powf(rough.log10().floor());
    // The tolerance keeps 0.2 for the range 0 to 1, whose quotient is a rounding error away from 5 steps.
    let step = [1.0, 2.0, 5.0, 10.0]
        .map(|m| m * power)
        .into_iter()
        .find(|step| step * (1.0 + 1e-9) >= rough)
        .unwrap_or(10.0 * power);
    let decimals = (-(step * (1.0 + 1e-9)).log10().floor()).max(0.0) as usize;
    let (first, last) = ((low / step - 1e-9).ceil(), (high / step + 1e-9).floor());
    (0..=most)
        .map(|i| first + i as f64)
        .take_while(|&multiple| multiple <= last)
        .map(|multiple| {
            let value = multiple * step;
            (value, label(value, step, decimals))
        })
        .collect()
}

/// Writes a tick's value with the decimals of its step, or with an exponent where that would be long.
fn label(value: f64, step: f64, decimals: usize) -> String {
    let text = if (1e-4..1e6).contains(&step) && value.abs() < 1e7 {
        // Adding zero turns −0 into 0.
        format!("{:.decimals$}", value + 0.0)
    } else if value == 0.0 {
        "0".into()
    } else {
        let text = format!("{value:.4e}");
        let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        format!("{}e{exponent}", mantissa.trim_end_matches('0').trim_end_matches('.'))
    };
    text.replace('-', "−")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(low: f64, high: f64, most: usize) -> Vec<String> {
        ticks((low, high), most).into_iter().map(|(_, l)| l).collect()
    }

    #[test]
    fn the_unit_interval_gets_fifths() {
        assert_eq!(labels(0.0, 1.0, 5), ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
    }

    #[test]
    fn ticks_are_round_inside_the_range_and_few() {
        assert_eq!(labels(-2.7, 3.1, 6), ["−2", "−1", "0", "1", "2", "3"]);
        assert_eq!(labels(0.0, 0.37, 3), ["0.0", "0.2"]);
        assert_eq!(labels(997.0, 1003.0, 3), ["998", "1000", "1002"]);
        for (low, high) in [(0.3, 0.31), (-1e9, 1e9), (0.0, 1e-7), (1e15, 1e15 + 2.0)] {
            let found = ticks((low, high), 5);
            assert!(!found.is_empty() && found.len() <= 6, "{low} {high} {found:?}");
            let slack = 1e-6 * (high - low);
            assert!(found.iter().all(|(v, _)| (low - slack..=high + slack).contains(v)), "{found:?}");
        }
    }

    #[test]
    fn very_small_and_large_steps_are_written_with_exponents() {
        assert_eq!(labels(0.0, 4e-7, 2), ["0", "2e−7", "4e−7"]);
        assert_eq!(labels(0.0, 4e9, 2), ["0", "2e9", "4e9"]);
    }

    #[test]
    fn an_empty_range_has_no_ticks() {
        assert!(ticks((1.0, 1.0), 5).is_empty());
        assert!(ticks((f64::MIN, f64::MAX), 5).is_empty());
    }

    #[test]
    fn corners_of_the_range_are_corners_of_the_frame() {
        let frame = Rect { x: 10.0, y: 20.0, width: 100.0, height: 50.0 };
        let axes = Axes { frame, x: (-1.0, 1.0), y: (0.0, 2.0) };
        assert_eq!((axes.px(-1.0), axes.py(0.0)), (10.0, 70.0));
        assert_eq!((axes.px(1.0), axes.py(2.0)), (110.0, 20.0));
        assert_eq!((axes.px(0.0), axes.py(1.0)), frame.center());
    }
}
