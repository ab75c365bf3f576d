//! Maps numbers to positions inside a frame and draws the frame, its grid, ticks and names.

use super::canvas::{Canvas, Rect, Stroke};
use super::palette::{FAINT, INK};
use super::text::{Anchor, TextStyle, fit, width};

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
/// Share of a range left free at either end.
const FREE: f64 = 0.03;

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

    /// Draws the vertical grid lines, to lie under the data.
    pub fn draw_upright_grid(&self, canvas: &mut Canvas, n_ticks: usize) {
        for (value, _) in ticks(self.x, n_ticks) {
            let x = self.px(value);
            canvas.line((x, self.frame.y), (x, self.frame.bottom()), Stroke::solid(FAINT, 0.8));
        }
    }

    /// Draws the frame, to lie over the data.
    pub fn draw_frame(&self, canvas: &mut Canvas) {
        canvas.rect(self.frame, None, Some(Stroke::solid(INK, 1.0)));
    }

    /// Draws the ticks below the frame; their labels and the axis name only where there is a name, which may be empty.
    pub fn draw_x(&self, canvas: &mut Canvas, n_ticks: usize, name: Option<&str>) {
        self.draw_below(canvas, ticks(self.x, n_ticks), name);
    }

    /// Does what [`Self::draw_x`] does where `x` holds decimal logarithms: the labels are the numbers themselves.
    pub fn draw_log_x(&self, canvas: &mut Canvas, n_ticks: usize, name: Option<&str>) {
        self.draw_below(canvas, log_ticks(self.x, n_ticks), name);
    }

    fn draw_below(&self, canvas: &mut Canvas, ticks: Vec<(f64, String)>, name: Option<&str>) {
        let bottom = self.frame.bottom();
        for (value, label) in ticks {
            let x = self.px(value);
            let length = if label.is_empty() { TICK / 2.0 } else { TICK };
            canvas.line((x, bottom), (x, bottom + length), Stroke::solid(INK, 1.0));
            if name.is_some() && !label.is_empty() {
                let style = TextStyle::plain(TICK_SIZE).anchored(Anchor::Middle);
                canvas.text(x, bottom + 15.0, &label, style);
            }
        }
        if let Some(name) = name.filter(|name| !name.is_empty()) {
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
        if let Some(name) = name.filter(|name| !name.is_empty()) {
            let x = left - room_beside(self.y, n_ticks) + MARGIN;
            canvas.text(x, self.frame.y - NAME_DROP, name, TextStyle::plain(NAME_SIZE));
        }
    }
}

/// Shortens the name of an axis to its room.
pub(super) fn shortened(name: &str, room: f64) -> String {
    fit(name, NAME_SIZE, NAME_SIZE, room).0
}

/// Finds the smallest and the largest value, apart also where all are equal up to rounding errors.
pub(super) fn range_of(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let widest = (f64::INFINITY, f64::NEG_INFINITY);
    let (low, high) = values.fold(widest, |(low, high), value| (low.min(value), high.max(value)));
    let size = low.abs().max(high.abs());
    let margin = if high - low > 1e-12 * size { 0.0 } else { 0.5 * size.max(1e-3) };
    (low - margin, high + margin)
}

/// Widens a range by some room at either end.
pub(super) fn freed((low, high): (f64, f64)) -> (f64, f64) {
    let free = FREE * (high - low);
    (low - free, high + free)
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
    if !(span >= f64::MIN_POSITIVE && span.is_finite()) {
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
    // Exponents where plain numbers would be long: of large values, and of small ones in small steps.
    let largest = low.abs().max(high.abs());
    let plain = largest < 1e7 && step < 1e6 && (step >= 1e-4 || (step >= 1e-9 && largest >= 1e-2));
    let (first, last) = ((low / step - 1e-9).ceil(), (high / step + 1e-9).floor());
    (0..=most)
        .map(|i| first + i as f64)
        .take_while(|&multiple| multiple <= last)
        .map(|multiple| {
            let value = multiple * step;
            (value, label(value, step, plain.then_some(decimals)))
        })
        .collect()
}

/// Chooses the ticks of a logarithmic axis, where range and positions are decimal logarithms: at most `most + 1` with
/// labels, and between powers of ten small ones, whose labels are empty.
///
/// Labels stand at multiples of 1, 2 and 5 of the powers of ten; where these are too many, at the powers, or at every
/// so many of them; where they are fewer than three, at round numbers.
pub(super) fn log_ticks((low, high): (f64, f64), most: usize) -> Vec<(f64, String)> {
    if !(high > low && high - low < 1e3) {
        return Vec::new();
    }
    let powers = low.floor() as i32..=high.ceil() as i32;
    let inside: Vec<(i32, i32, f64)> = powers
        .flat_map(|power| (1..=9).map(move |m| (m, power, f64::from(power) + f64::from(m).log10())))
        .filter(|(_, _, at)| (low - 1e-9..=high + 1e-9).contains(at))
        .collect();
    let chosen =
        |m: i32, power: i32, multiples: &[i32], stride: i32| multiples.contains(&m) && power.rem_euclid(stride) == 0;
    let count = |multiples: &[i32], stride: i32| {
        inside.iter().filter(|&&(m, power, _)| chosen(m, power, multiples, stride)).count()
    };
    let (multiples, stride): (&[i32], i32) = match count(&[1, 2, 5], 1) {
        // Round numbers crowd towards the right: few of them leave room for their labels.
        0..3 => {
            let numbers = ticks((10f64.powf(low), 10f64.powf(high)), most.min(5));
            return numbers.into_iter().map(|(value, label)| (value.log10(), label)).collect();
        }
        n if n <= most + 1 => (&[1, 2, 5], 1),
        _ => (&[1], (1..).find(|&stride| count(&[1], stride) <= most + 1).unwrap_or(i32::MAX)),
    };
    let plain = low > -3.0 - 1e-9 && high < 5.0;
    inside
        .into_iter()
        .filter(|&(m, _, _)| stride == 1 || m == 1)
        .map(|(m, power, at)| {
            let named = chosen(m, power, multiples, stride);
            (at, if named { power_label(m, power, plain) } else { String::new() })
        })
        .collect()
}

/// Writes a multiple of a power of ten, plainly or as `2·10⁻³`.
fn power_label(multiple: i32, power: i32, plain: bool) -> String {
    if plain {
        let decimals = (-power).max(0) as usize;
        return format!("{:.decimals$}", f64::from(multiple) * 10f64.powi(power));
    }
    let raised = |c| match c {
        '-' => '⁻',
        '1' => '¹',
        '2' => '²',
        '3' => '³',
        // The others have neighbouring codes, from ⁰ on.
        digit => char::from_u32('⁰' as u32 + digit.to_digit(10).unwrap_or(0)).unwrap_or(digit),
    };
    let factor = if multiple == 1 { String::new() } else { format!("{multiple}·") };
    format!("{factor}10{}", power.to_string().chars().map(raised).collect::<String>())
}

/// Writes a tick's value with these decimals, or with an exponent where none are given.
fn label(value: f64, step: f64, decimals: Option<usize>) -> String {
    let text = if let Some(decimals) = decimals {
        // Adding zero turns −0 into 0.
        format!("{:.decimals$}", value + 0.0)
    } else if value == 0.0 {
        "0".into()
    } else {
        // As many digits as tell it from the next tick.
        let order = |x: f64| (x.abs() * (1.0 + 1e-9)).log10().floor();
        let digits = (order(value) - order(step)).clamp(0.0, 17.0) as usize;
        let text = format!("{value:.digits$e}");
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
        assert_eq!(labels(0.51232, 0.51238, 3), ["0.51232", "0.51234", "0.51236", "0.51238"]);
        assert_eq!(labels(23_456_700.0, 23_456_900.0, 2), ["2.34567e7", "2.34568e7", "2.34569e7"]);
    }

    #[test]
    fn an_empty_range_has_no_ticks() {
        assert!(ticks((1.0, 1.0), 5).is_empty());
        assert!(ticks((f64::MIN, f64::MAX), 5).is_empty());
        assert!(ticks((0.0, 5e-324), 5).is_empty());
        assert!(log_ticks((1.0, 1.0), 5).is_empty());
        assert!(log_ticks((0.0, f64::INFINITY), 5).is_empty());
    }

    /// Labels of a logarithmic axis from `low` to `high` with the numbers at which they stand.
    fn log_labels(low: f64, high: f64) -> Vec<(f64, String)> {
        let ticks = log_ticks((low.log10(), high.log10()), 8);
        ticks.into_iter().filter(|(_, label)| !label.is_empty()).map(|(at, label)| (10f64.powf(at), label)).collect()
    }

    #[test]
    fn logarithmic_labels_are_steps_then_powers_then_every_so_many_powers() {
        let labels = |low, high| log_labels(low, high).into_iter().map(|(_, label)| label).collect::<Vec<_>>();
        assert_eq!(labels(0.1, 10.0), ["0.1", "0.2", "0.5", "1", "2", "5", "10"]);
        assert_eq!(labels(2e-6, 1e-4), ["2·10⁻⁶", "5·10⁻⁶", "10⁻⁵", "2·10⁻⁵", "5·10⁻⁵", "10⁻⁴"]);
        assert_eq!(labels(1e-3, 1e3), ["0.001", "0.01", "0.1", "1", "10", "100", "1000"]);
        assert_eq!(labels(1e-4, 1e3), ["10⁻⁴", "10⁻³", "10⁻²", "10⁻¹", "10⁰", "10¹", "10²", "10³"]);
        assert_eq!(labels(1e-6, 1e6), ["10⁻⁶", "10⁻⁴", "10⁻²", "10⁰", "10²", "10⁴", "10⁶"]);
        assert_eq!(labels(2.1, 4.4), ["2.5", "3.0", "3.5", "4.0"]);
    }

    #[test]
    fn logarithmic_labels_stand_at_their_numbers_and_powers_are_divided() {
        for (value, label) in log_labels(0.003, 400.0) {
            assert!((label.parse::<f64>().unwrap() / value - 1.0).abs() < 1e-12, "{label} at {value}");
        }
        // From 0.001 to 1000: nine steps a decade, and the last power.
        assert_eq!(log_ticks((-3.0, 3.0), 8).len(), 6 * 9 + 1);
    }

    #[test]
    fn logarithmic_labels_do_not_touch() {
        const FRAME: f64 = 400.0;
        for start in [-300.0, -12.3, -4.0, -3.0, -0.31, 0.0, 0.7, 2.2, 90.0] {
            for span in (1..=160).map(|i| 0.1 * 1.06f64.powi(i)).take_while(|span| start + span < 300.0) {
                let found: Vec<_> =
                    log_ticks((start, start + span), 8).into_iter().filter(|t| !t.1.is_empty()).collect();
                assert!((2..=9).contains(&found.len()), "{start} {span} {found:?}");
                for pair in found.windows(2) {
                    let apart = (pair[1].0 - pair[0].0) / span * FRAME;
                    let long = (width(&pair[0].1, TICK_SIZE) + width(&pair[1].1, TICK_SIZE)) / 2.0;
                    assert!(apart > long, "{start} {span} {pair:?}: {apart} for {long}");
                }
            }
        }
    }

    #[test]
    fn a_range_spans_its_values_and_is_never_empty() {
        assert_eq!(range_of([3.0, -1.0, 2.0].into_iter()), (-1.0, 3.0));
        assert_eq!(range_of([4.0, 4.0].into_iter()), (2.0, 6.0));
        assert_eq!(range_of([0.0].into_iter()), (-0.0005, 0.0005));
        let noise = range_of([0.3, 0.3 + 1e-16].into_iter());
        assert!(noise.1 - noise.0 > 0.2, "{noise:?}");
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
