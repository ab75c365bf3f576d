//! Names the colours of the figures: Okabe and Ito's for classes, viridis for maps.

use kuva::plot::ColorMap;

/// An opaque colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rgb(pub u8, pub u8, pub u8);

pub(super) const WHITE: Rgb = Rgb(255, 255, 255);
/// Text and frames.
pub(super) const INK: Rgb = Rgb(34, 34, 34);
/// Text of second rank and the line of perfect calibration.
pub(super) const GREY: Rgb = Rgb(105, 105, 105);
/// Grid lines.
pub(super) const FAINT: Rgb = Rgb(226, 226, 226);
/// Okabe and Ito's blue, for accuracy.
pub(super) const BLUE: Rgb = Rgb(0, 114, 178);
/// A tint of that blue, for the area of a bar.
pub(super) const PALE_BLUE: Rgb = Rgb(186, 216, 235);
/// Okabe and Ito's vermillion, for confidence.
pub(super) const VERMILLION: Rgb = Rgb(213, 94, 0);

/// Okabe and Ito's palette, ordered so that the first classes stand out best from viridis.
pub(super) const CLASSES: [Rgb; 8] = [
    VERMILLION,
    Rgb(86, 180, 233),
    Rgb(204, 121, 167),
    Rgb(230, 159, 0),
    Rgb(0, 0, 0),
    Rgb(240, 228, 66),
    BLUE,
    Rgb(0, 158, 115),
];

/// Okabe and Ito's palette, ordered so that the first curves stand out best from white, without the colours too light
/// for a line.
pub(super) const CURVES: [Rgb; 6] =
    [BLUE, VERMILLION, Rgb(0, 158, 115), Rgb(204, 121, 167), Rgb(230, 159, 0), Rgb(0, 0, 0)];

/// The colour of a probability that the row wins: vermillion at 0, white at ½, blue at 1, all light enough for dark text.
pub(super) fn diverging(t: f64) -> Rgb {
    let strength = 0.75 * (2.0 * t.clamp(0.0, 1.0) - 1.0);
    let Rgb(r, g, b) = if strength < 0.0 { VERMILLION } else { BLUE };
    let blend = |end: u8| (255.0 + strength.abs() * (f64::from(end) - 255.0)).round() as u8;
    Rgb(blend(r), blend(g), blend(b))
}

/// The colour of `t` ∈ [0, 1] on the viridis scale (dark blue to yellow); values outside take the nearest end.
pub(super) fn viridis(t: f64) -> Rgb {
    let (r, g, b) = ColorMap::Viridis.map_rgb(t.clamp(0.0, 1.0)).unwrap_or_default();
    Rgb(r, g, b)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Relative luminance without gamma, enough to compare.
    fn luminance(Rgb(r, g, b): Rgb) -> f64 {
        0.2126 * f64::from(r) + 0.7152 * f64::from(g) + 0.0722 * f64::from(b)
    }

    #[test]
    fn viridis_grows_lighter_and_stops_at_its_ends() {
        let steps: Vec<f64> = (0..=20).map(|i| luminance(viridis(f64::from(i) / 20.0))).collect();
        assert!(steps.windows(2).all(|w| w[0] < w[1]), "{steps:?}");
        assert_eq!(viridis(-3.0), viridis(0.0));
        assert_eq!(viridis(7.0), viridis(1.0));
    }

    #[test]
    fn the_diverging_scale_is_white_in_the_middle_and_light_enough_for_ink() {
        assert_eq!(diverging(0.5), WHITE);
        assert_eq!(diverging(-1.0), diverging(0.0));
        let steps: Vec<f64> = (0..=10).map(|i| luminance(diverging(f64::from(i) / 10.0))).collect();
        assert!(steps[..6].windows(2).all(|w| w[0] < w[1]), "{steps:?}");
        assert!(steps[5..].windows(2).all(|w| w[0] > w[1]), "{steps:?}");
        // Text keeps a third of the range of luminances from its ground.
        assert!(steps.iter().all(|l| l - luminance(INK) > 85.0), "{steps:?}");
        assert_ne!(diverging(0.2), diverging(0.8));
    }

    #[test]
    fn class_colours_differ() {
        for (i, a) in CLASSES.iter().enumerate() {
            assert!(!CLASSES[..i].contains(a), "{a:?}");
        }
    }

    #[test]
    fn curve_colours_differ_from_each_other_and_from_white() {
        for (i, a) in CURVES.iter().enumerate() {
            assert!(!CURVES[..i].contains(a), "{a:?}");
            assert!(CLASSES.contains(a), "{a:?}");
            assert!(luminance(*a) < 0.7 * luminance(WHITE), "{a:?}");
        }
    }
}
