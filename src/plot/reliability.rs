//! Draws reliability diagrams: is a confidence of 80 % right eight times in ten?

mod bin;
mod panel;

use super::canvas::Canvas;
use super::key::{Entry, Key, Symbol};
use super::{Figure, check_panels};
use crate::error::Result;
use crate::metrics::Reliability;
use bin::PLOT;
use panel::{GAP, Panel, PanelData, Shared};
use serde::Serialize;

/// The numbers written beside the picture.
#[derive(Serialize)]
struct Data<'a> {
    kind: &'static str,
    panels: Vec<PanelData<'a>>,
}

/// Draws one panel for each `(title, reliability)`, one to four, left to right.
///
/// Each panel shows one method. Above, per confidence bin, the accuracy (bar), and at the bin's mean confidence the
/// same accuracy with its 95 % Wilson interval; the dashed diagonal is perfect calibration, a point below it is
/// overconfidence. Below, the share of items in each bin with their number, the accuracy and the mean confidence of all
/// items. Empty bins stay empty.
///
/// DeGroot and Fienberg (1983), The Statistician 32; Guo et al. (2017), arXiv 1706.04599, §2.
///
/// ```
/// use bayes_lora::metrics::Reliability;
/// use bayes_lora::plot::reliability_diagram;
/// use ndarray::Array2;
///
/// // Two answers in three are right, whatever the confidence …
/// let labels: Vec<usize> = (0..300).map(|i| usize::from(i % 3 == 0)).collect();
/// let sure = Array2::from_shape_fn((300, 2), |(i, c)| {
///     let p = 0.5 + i as f64 / 600.0;
///     if c == 0 { p } else { 1.0 - p }
/// });
/// // … as this one says.
/// let modest = Array2::from_shape_fn((300, 2), |(_, c)| if c == 0 { 2.0 / 3.0 } else { 1.0 / 3.0 });
///
/// let before = Reliability::new(sure.view(), &labels, 15)?;
/// let after = Reliability::new(modest.view(), &labels, 15)?;
/// let figure = reliability_diagram(&[("maximum likelihood", &before), ("Laplace", &after)])?;
///
/// let dir = std::env::temp_dir().join(format!("bayes-lora-reliability-{}", std::process::id()));
/// figure.save(&dir, "reliability")?;
/// # std::fs::remove_dir_all(&dir).ok();
/// # Ok::<(), bayes_lora::error::Error>(())
/// ```
///
/// The panels share their axes, so that heights compare across methods.
///
/// # Errors
/// [`Error`](crate::error::Error)`::Empty` without panels or items, `Config` beyond four panels or for a number outside
/// [0, 1], `Count` where the bins do not add up to the items, `Format` for a filled bin without accuracy.
pub fn reliability_diagram(panels: &[(&str, &Reliability)]) -> Result<Figure> {
    check_panels(panels.len())?;
    let panels =
        panels.iter().map(|&(title, reliability)| Panel::new(title, reliability)).collect::<Result<Vec<_>>>()?;
    let shared = Shared::of(&panels);
    let width = shared.room + panels.len() as f64 * (PLOT + GAP);
    let key = Key::new(
        &[
            Entry::new(Symbol::Bar, "accuracy of the bin"),
            Entry::new(Symbol::PointWithInterval, "at its mean confidence, 95 % Wilson interval"),
            Entry::new(Symbol::Line(panel::diagonal()), "perfect calibration"),
        ],
        width - GAP,
    );
    let mut canvas = Canvas::new(width, panel::HEIGHT + key.height() + 8.0);
    for (i, panel) in panels.iter().enumerate() {
        let left = shared.room + i as f64 * (PLOT + GAP);
        panel.draw(&mut canvas, left, i == 0, &shared);
    }
    key.draw(&mut canvas, width / 2.0, panel::HEIGHT);
    Figure::new(canvas, &Data { kind: "reliability", panels: panels.iter().map(Panel::data).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use crate::metrics::ReliabilityBin;

    /// Ten bins of equal width with these counts; a bin's accuracy is its lower edge.
    fn reliability(counts: [usize; 10]) -> Reliability {
        let bins = counts.iter().enumerate().map(|(i, &count)| {
            let lower = i as f64 / 10.0;
            let filled = |value: f64| (count > 0).then_some(value);
            ReliabilityBin {
                lower,
                upper: (i + 1) as f64 / 10.0,
                count,
                mean_confidence: filled(lower + 0.05),
                accuracy: filled(lower),
                accuracy_low: filled((lower - 0.1).max(0.0)),
                accuracy_high: filled(lower + 0.1),
            }
        });
        Reliability { bins: bins.collect(), ece: 0.05, n_items: counts.iter().sum() }
    }

    const SOME: [usize; 10] = [0, 0, 0, 0, 0, 12, 0, 30, 58, 400];

    #[test]
    fn titles_counts_ece_and_means_are_readable_in_the_picture() {
        let (a, b) = (reliability(SOME), Reliability { ece: 4e-4, ..reliability([3, 0, 0, 0, 0, 0, 0, 0, 0, 1]) });
        let svg = reliability_diagram(&[("A & B", &a), ("Laplace", &b)]).unwrap().shapes();
        for expected in [
            ">A &amp; B<",
            ">Laplace<",
            ">ECE 0.05 · n = 500<",
            ">ECE 4.00e-4 · n = 4<",
            ">12<",
            ">30<",
            ">58<",
            ">400<",
            // (12 · 0.5 + 30 · 0.7 + 58 · 0.8 + 400 · 0.9) / 500
            ">accuracy 0.8668<",
            ">mean confidence 0.9168<",
        ] {
            assert!(svg.contains(expected), "{expected}");
        }
        assert!(!svg.contains("NaN"));
    }

    #[test]
    fn empty_bins_draw_nothing() {
        let points = |counts| {
            let r = reliability(counts);
            let svg = reliability_diagram(&[("", &r)]).unwrap().shapes();
            (svg.matches("<circle").count(), svg.matches("fill=\"#bad8eb\"").count())
        };
        // One circle and one bar in the key; a filled bin adds a circle above, and a bar above and below.
        assert_eq!(points([0, 0, 0, 0, 0, 0, 0, 0, 0, 9]), (2, 3));
        assert_eq!(points(SOME), (5, 9));
    }

    #[test]
    fn counts_turn_upright_where_they_are_wider_than_their_bins() {
        let upright = |counts| {
            let r = reliability(counts);
            let svg = reliability_diagram(&[("", &r)]).unwrap().shapes();
            svg.matches("rotate(-90").count()
        };
        assert_eq!(upright(SOME), 0);
        // A bin is 28 units wide, six digits of the smallest size 26.7, which leaves them no air.
        assert_eq!(upright([0, 0, 0, 0, 0, 12, 0, 30, 58, 123_456]), 4);
    }

    #[test]
    fn the_written_data_are_the_given_numbers() {
        let given = reliability(SOME);
        let figure = reliability_diagram(&[("MLE", &given)]).unwrap();
        let panel = &figure.data()["panels"][0];
        assert_eq!(panel["title"], "MLE");
        let read: Reliability = serde_json::from_value(panel["reliability"].clone()).unwrap();
        assert_eq!(read.n_items, given.n_items);
        assert_eq!(read.bins[7].accuracy, Some(0.7));
        assert_eq!(read.bins[0].accuracy, None);
    }

    #[test]
    fn one_to_four_panels_are_drawn_and_no_others() {
        let r = reliability(SOME);
        for n in 1..=4 {
            let figure = reliability_diagram(&vec![("x", &r); n]).unwrap();
            assert!(figure.size().0 > 280.0 * n as f64);
        }
        assert!(matches!(reliability_diagram(&[]).unwrap_err(), Error::Empty { .. }));
        let error = reliability_diagram(&[("x", &r); 5]).unwrap_err();
        assert_eq!(error.to_string(), "panels: must be at most 4, got 5");
    }

    #[test]
    fn inconsistent_input_is_refused_with_its_numbers() {
        let refusal = |change: fn(&mut Reliability)| {
            let mut r = reliability(SOME);
            change(&mut r);
            reliability_diagram(&[("MLE", &r)]).unwrap_err().to_string()
        };
        assert_eq!(refusal(|r| r.n_items = 7), "items in the bins of `MLE`: expected 7, found 500");
        assert!(refusal(|r| r.bins[7].accuracy = None).contains("`MLE`, bin 7: holds 30 items"));
        assert!(refusal(|r| r.bins[7].accuracy = Some(1.2)).contains("got 1.2"));
        assert!(refusal(|r| r.bins[7].mean_confidence = Some(f64::NAN)).contains("got NaN"));
        assert!(refusal(|r| r.bins[7].lower = 0.9).contains("lower"));
        assert!(refusal(|r| r.ece = f64::INFINITY).contains("ECE"));
        assert!(refusal(|r| *r = reliability([0; 10])).contains("is empty"));
    }
}
