//! Measures and shortens the text of a figure, in the font that figures carry.

use super::palette::{INK, Rgb};

/// Which point of a line of text its position names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

/// How a line of text is set.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct TextStyle {
    pub size: u32,
    pub anchor: Anchor,
    pub color: Rgb,
    /// Reads from bottom to top.
    pub upward: bool,
}

impl TextStyle {
    /// Dark horizontal text that starts at its position.
    pub fn plain(size: u32) -> Self {
        Self { size, anchor: Anchor::Start, color: INK, upward: false }
    }

    pub fn anchored(self, anchor: Anchor) -> Self {
        Self { anchor, ..self }
    }

    pub fn colored(self, color: Rgb) -> Self {
        Self { color, ..self }
    }

    pub fn upward(self) -> Self {
        Self { upward: true, ..self }
    }

    /// How far below a line's middle its baseline lies: half the height of a capital.
    pub fn middle_to_baseline(self) -> f64 {
        0.365 * f64::from(self.size)
    }
}

/// Advance widths of DejaVu Sans for the printable ASCII characters, in thousandths of the font size.
#[rustfmt::skip]
const ADVANCES: [u16; 95] = [
    318, 401, 460, 838, 636, 950, 780, 275, 390, 390, 500, 838, 318, 361, 318, 337, 636, 636, 636, 636, 636, 636, 636,
    636, 636, 636, 337, 337, 838, 838, 838, 531, 1000, 684, 686, 698, 770, 632, 575, 775, 752, 295, 295, 656, 557, 863,
    748, 787, 603, 787, 695, 635, 611, 732, 684, 989, 685, 611, 685, 390, 337, 390, 838, 500, 500, 613, 635, 550, 635,
    615, 352, 635, 634, 278, 278, 579, 278, 974, 634, 612, 635, 635, 411, 521, 392, 634, 592, 818, 592, 592, 525, 636,
    337, 636, 838,
];

/// Width of a line of text in drawing units; characters that are neither ASCII nor in tick labels count as a full em,
/// which reserves enough.
pub(super) fn width(text: &str, size: u32) -> f64 {
    let advance = |c: char| match c {
        '·' => 318,
        '−' => 838,
        '⁻' => 528,
        '⁰' | '¹' | '²' | '³' | '⁴'..='⁹' => 401,
        c => (c as usize).checked_sub(32).and_then(|i| ADVANCES.get(i)).map_or(1000, |&advance| u64::from(advance)),
    };
    let thousandths: u64 = text.chars().map(advance).sum();
    thousandths as f64 * f64::from(size) / 1000.0
}

/// What stands between a method and what is put behind it. Such an ending tells rows apart and is not cut off.
const BEHIND: &str = " + ";

/// Shrinks, then shortens with an ellipsis, until the text is at most `room` wide; answers the size to set it in.
///
/// An ending after the last ` + ` is kept where it takes no more than half the room.
pub(super) fn fit(text: &str, size: u32, smallest: u32, room: f64) -> (String, u32) {
    let text = printable(text);
    if let Some(size) = (smallest..=size).rev().find(|&s| width(&text, s) <= room) {
        return (text, size);
    }
    let ending = text.rfind(BEHIND).map_or("", |at| &text[at..]);
    let ending = if width(ending, smallest) <= room / 2.0 { ending } else { "" };
    let mut kept = text[..text.len() - ending.len()].to_string();
    while !kept.is_empty() && width(&kept, smallest) + width("…", smallest) + width(ending, smallest) > room {
        kept.pop();
    }
    (format!("{}…{ending}", kept.trim_end()), smallest)
}

/// Replaces what XML cannot hold or what would break the line.
pub(super) fn printable(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\u{fffe}' | '\u{ffff}' => '\u{fffd}',
            c if c.is_control() => ' ',
            c => c,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn widths_are_those_of_the_font() {
        assert_eq!(width("", 10), 0.0);
        assert_eq!(width("0.5", 1000), 636.0 + 318.0 + 636.0);
        assert_eq!(width("~", 1000), 838.0);
        assert_eq!(width("2·10⁻³", 1000), 636.0 + 318.0 + 2.0 * 636.0 + 528.0 + 401.0);
        assert_eq!(width("₁", 1000), 1000.0);
    }

    #[test]
    fn text_that_fits_is_kept_whole() {
        assert_eq!(fit("Laplace", 13, 10, 300.0), ("Laplace".into(), 13));
    }

    #[test]
    fn text_shrinks_before_it_is_cut() {
        let room = width("maximum likelihood", 11);
        assert_eq!(fit("maximum likelihood", 13, 10, room), ("maximum likelihood".into(), 11));
        let (cut, size) = fit("maximum likelihood", 13, 10, 60.0);
        assert!(cut.starts_with("max") && cut.ends_with('…') && size == 10, "{cut}");
        assert!(width(&cut, size) <= 60.0);
    }

    #[test]
    fn what_is_put_behind_a_method_is_kept() {
        let (cut, size) = fit("Laplace, Kronecker factors, all adapters + temperature", 11, 9, 170.0);
        assert!(cut.starts_with("Laplace, ") && cut.ends_with("… + temperature"), "{cut}");
        assert!(width(&cut, size) <= 170.0);
        // an ending that would leave no room for the rest is cut like any text
        let (cut, size) = fit("a + an ending that is far too long for its room", 11, 9, 80.0);
        assert!(cut.starts_with("a + an") && cut.ends_with('…') && width(&cut, size) <= 80.0, "{cut}");
    }

    #[test]
    fn control_characters_become_spaces() {
        assert_eq!(printable("a\nb\u{0}c\u{ffff}"), "a b c\u{fffd}");
    }
}
