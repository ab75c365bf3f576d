//! Draws histograms of one number over groups of items, a panel for each method: the entropy where an answer is right, where

use super::axes::{Axes, BELOW, MARGIN, NAME_SIZE, room_beside, shortened};
use super::canvas::{Canvas, Rect};
use super::key::{Entry, Key, Symbol, curve_stroke};
use super::palette::{CURVES, GREY};
use super::text::{Anchor, TextStyle, fit};
use super::{Figure, check_range};
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};

/// Most panels of a figure.
const MAX_PANELS: usize = 24;
const COLUMNS: usize = 4;
const WIDTH: f64 = 252.0;
const HEIGHT: f64 = 116.0;
const GAP: f64 = 28.0;
/// Room above the first row, for the name of the vertical axis.
const HEAD: f64 = 24.0;
/// Room above a frame, for title and numbers of items.
const TOP: f64 = 38.0;
/// Room below a frame but the last, for tick labels.
const TICK_ROOM: f64 = 22.0;
const X_TICKS: usize = 5;
const Y_TICKS: usize = 4;

/// One method's counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistogramPanel {
    /// Written over the panel.
    pub title: String,
    /// `[n_groups][n_bins]`
    pub counts: Vec<Vec<usize>>,
}

/// One to 24 panels of histograms with common bins, of one to six groups each.
///
///
/// A method that knows what it does not know keeps the groups apart. Each group's shares sum to 1, so that groups of unequal
/// size compare; all panels have the same axes.
///
/// ```
/// use bayes_lora::plot::Histograms;
///
/// let figure = Histograms::new("entropy in nats", vec![0.0, 0.35, 0.7], ["right", "wrong", "foreign"])
///     .with_panel("maximum likelihood", vec![vec![90, 10], vec![15, 5], vec![30, 20]])
///     .with_panel("Laplace", vec![vec![80, 20], vec![5, 15], vec![5, 45]])
///     .figure()?;
/// assert!(figure.svg_without_font().contains("foreign (n = 50)"));
/// # Ok::<(), bayes_lora::error::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Histograms {
    /// Name of the horizontal axis.
    pub x_label: String,
    /// `[n_bins + 1]`, ascending.
    pub edges: Vec<f64>,
    /// A name for each group, each with a colour and a dash pattern of its own.
    pub groups: Vec<String>,
    /// Four in a row.
    pub panels: Vec<HistogramPanel>,
}

impl Histograms {
    /// Starts a figure without panels.
    pub fn new(
        x_label: impl Into<String>,
        edges: Vec<f64>,
        groups: impl IntoIterator<Item = impl Into<String>>,
    ) -> Self {
        let groups = groups.into_iter().map(Into::into).collect();
        Self { x_label: x_label.into(), edges, groups, panels: Vec::new() }
    }

    /// Adds a panel with the counts `[n_groups][n_bins]`.
    pub fn with_panel(mut self, title: impl Into<String>, counts: Vec<Vec<usize>>) -> Self {
        self.panels.push(HistogramPanel { title: title.into(), counts });
        self
    }

    /// Draws the panels; a group without items draws nothing.
    ///
    /// # Errors
    /// [`Error::Empty`] without panels or groups, or where no panel holds an item; [`Error::Config`] beyond 24 panels or six
    /// groups and for edges that are not finite and ascending; [`Error::Count`] where groups or bins are missing.
    pub fn figure(&self) -> Result<Figure> {
        self.check()?;
        Figure::of("histograms", self.draw(), self)
    }

    fn check(&self) -> Result<()> {
        if self.panels.is_empty() {
            return Err(Error::empty("list of panels"));
        }
        if self.panels.len() > MAX_PANELS {
            return Err(Error::config("panels", format!("at most {MAX_PANELS}"), self.panels.len()));
        }
        if self.groups.is_empty() {
            return Err(Error::empty("list of groups"));
        }
        if self.groups.len() > CURVES.len() {
            return Err(Error::config(
                "groups",
                format!("at most {} (a colour each)", CURVES.len()),
                self.groups.len(),
            ));
        }
        if self.edges.len() < 2 {
            return Err(Error::config("number of edges", "at least 2", self.edges.len()));
        }
        self.edges.windows(2).try_for_each(|pair| check_range("edges of a bin", (pair[0], pair[1])))?;
        for HistogramPanel { title, counts } in &self.panels {
            if counts.len() != self.groups.len() {
                let what = format!("groups of panel `{title}`");
                return Err(Error::Count { what, expected: self.groups.len(), found: counts.len() });
            }
            for (group, counts) in self.groups.iter().zip(counts) {
                if counts.len() + 1 != self.edges.len() {
                    let what = format!("bins of `{group}` in panel `{title}`");
                    return Err(Error::Count { what, expected: self.edges.len() - 1, found: counts.len() });
                }
            }
        }
        if self.panels.iter().all(|panel| panel.counts.iter().flatten().all(|count| *count == 0)) {
            return Err(Error::empty("set of counted items"));
        }
        Ok(())
    }

    fn draw(&self) -> Canvas {
        let shares = |counts: &Vec<usize>| -> Option<Vec<f64>> {
            let total: usize = counts.iter().sum();
            (total > 0).then(|| counts.iter().map(|count| *count as f64 / total as f64).collect())
        };
        let all = self.panels.iter().flat_map(|panel| &panel.counts).filter_map(shares).flatten();
        let y = (0.0, 1.06 * all.fold(0.0, f64::max));
        let x = (self.edges[0], self.edges[self.edges.len() - 1]);
        let left = room_beside(y, Y_TICKS);
        let columns = self.panels.len().min(COLUMNS);
        let rows = self.panels.len().div_ceil(COLUMNS);
        let width = left + columns as f64 * (WIDTH + GAP) - GAP + 2.0 * MARGIN;
        let names: Vec<Entry> = self.groups.iter().enumerate().map(|(i, name)| self.entry(i, name)).collect();
        let key = Key::new(&names, width - 2.0 * MARGIN);
        let row_height = TOP + HEIGHT + TICK_ROOM;
        let key_top = HEAD + rows as f64 * row_height + BELOW - TICK_ROOM;
        let mut canvas = Canvas::new(width, key_top + key.height() + 8.0);
        canvas.text(MARGIN, 15.0, "share of the group's items", TextStyle::plain(NAME_SIZE));
        for (i, panel) in self.panels.iter().enumerate() {
            let frame = Rect {
                x: left + (i % COLUMNS) as f64 * (WIDTH + GAP),
                y: HEAD + (i / COLUMNS) as f64 * row_height + TOP,
                width: WIDTH,
                height: HEIGHT,
            };
            let axes = Axes { frame, x, y };
            self.head(&mut canvas, panel, frame);
            axes.draw_grid(&mut canvas, Y_TICKS);
            for (group, shares) in panel.counts.iter().map(shares).enumerate() {
                canvas.polyline(&self.steps(&axes, &shares.unwrap_or_default()), curve_stroke(group));
            }
            axes.draw_frame(&mut canvas);
            let lowest = i + COLUMNS >= self.panels.len();
            let name = if lowest { shortened(&self.x_label, WIDTH) } else { String::new() };
            axes.draw_x(&mut canvas, X_TICKS, Some(&name));
            axes.draw_y(&mut canvas, Y_TICKS, i.is_multiple_of(COLUMNS).then_some(""));
        }
        key.draw(&mut canvas, width / 2.0, key_top);
        canvas
    }

    /// Number of a group's items where all panels have the same.
    fn common_size(&self, group: usize) -> Option<usize> {
        let mut sizes = self.panels.iter().map(|panel| panel.counts[group].iter().sum());
        let first = sizes.next()?;
        sizes.all(|size: usize| size == first).then_some(first)
    }

    fn entry(&self, group: usize, name: &str) -> Entry {
        let size = self.common_size(group).map_or(String::new(), |n| format!(" (n = {n})"));
        Entry::new(Symbol::Curve(group), format!("{name}{size}"))
    }

    /// Writes the title over a frame, and the numbers of items that differ from those of other panels.
    fn head(&self, canvas: &mut Canvas, panel: &HistogramPanel, frame: Rect) {
        let middle = frame.center().0;
        let (title, size) = fit(&panel.title, 12, 9, WIDTH + GAP - 8.0);
        canvas.text(middle, frame.y - 22.0, &title, TextStyle::plain(size).anchored(Anchor::Middle));
        let sizes = self.groups.iter().zip(&panel.counts).enumerate();
        let sizes = sizes.filter(|(group, _)| self.common_size(*group).is_none());
        let sizes: Vec<String> = sizes.map(|(_, (name, c))| format!("{name} {}", c.iter().sum::<usize>())).collect();
        let (sizes, size) = fit(&sizes.join(" · "), 9, 8, WIDTH + GAP - 8.0);
        let style = TextStyle::plain(size).anchored(Anchor::Middle).colored(GREY);
        canvas.text(middle, frame.y - 8.0, &sizes, style);
    }

    /// The corners of a line that goes along the tops of the bars.
    fn steps(&self, axes: &Axes, shares: &[f64]) -> Vec<(f64, f64)> {
        let mut corners = Vec::new();
        for (bin, share) in shares.iter().enumerate() {
            corners.extend([self.edges[bin], self.edges[bin + 1]].map(|edge| (axes.px(edge), axes.py(*share))));
        }
        corners
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn histograms() -> Histograms {
        Histograms::new("entropy", vec![0.0, 0.5, 1.0], ["right", "wrong"])
            .with_panel("A & B", vec![vec![3, 1], vec![0, 2]])
            .with_panel("C", vec![vec![4, 0], vec![0, 0]])
    }

    #[test]
    fn titles_sizes_groups_and_axes_are_in_the_picture() {
        let svg = histograms().figure().unwrap().shapes();
        for expected in
            [">A &amp; B<", ">C<", ">wrong 2<", ">wrong 0<", ">entropy<", ">right (n = 4)<", ">wrong<", ">0.5<"]
        {
            assert!(svg.contains(expected), "{expected}: {svg}");
        }
        assert!(!svg.contains("NaN"));
    }

    #[test]
    fn the_heights_of_the_steps_are_the_shares() {
        let axes = Axes { frame: Rect { x: 0.0, y: 0.0, width: 100.0, height: 100.0 }, x: (0.0, 1.0), y: (0.0, 1.0) };
        let steps = histograms().steps(&axes, &[0.75, 0.25]);
        assert_eq!(steps, [(0.0, 25.0), (50.0, 25.0), (50.0, 75.0), (100.0, 75.0)]);
    }

    #[test]
    fn panels_wrap_after_four_and_none_overlap() {
        let size = |n: usize| {
            let mut h = histograms();
            h.panels = vec![h.panels[0].clone(); n];
            h.figure().unwrap().size()
        };
        assert!(size(4).0 > size(3).0 && size(5).0 == size(4).0);
        assert_eq!(size(5).1 - size(4).1, TOP + HEIGHT + TICK_ROOM);
        assert_eq!(size(8).1, size(5).1);
    }

    #[test]
    fn long_names_are_shortened_within_the_page() {
        let long = "a very long name of a method and of all its settings ".repeat(3);
        let mut wide = histograms();
        wide.panels[0].title.clone_from(&long);
        wide.groups[1].clone_from(&long);
        wide.x_label = long;
        let svg = wide.figure().unwrap().shapes();
        // title, sizes of both panels, both names of the axis, the key
        assert_eq!(svg.matches("…<").count(), 6, "{svg}");
        assert_eq!(wide.figure().unwrap().size().0, histograms().figure().unwrap().size().0);
    }

    #[test]
    fn the_written_data_read_back_as_the_same_histograms() {
        let figure = histograms().figure().unwrap();
        assert_eq!(figure.data()["kind"], "histograms");
        assert_eq!(serde_json::from_value::<Histograms>(figure.data().clone()).unwrap(), histograms());
    }

    #[test]
    fn inconsistent_input_is_refused_with_its_numbers() {
        let refusal = |change: fn(&mut Histograms)| {
            let mut h = histograms();
            change(&mut h);
            h.figure().unwrap_err().to_string()
        };
        assert_eq!(refusal(|h| h.panels.clear()), "list of panels is empty");
        assert_eq!(refusal(|h| h.panels = vec![h.panels[0].clone(); 25]), "panels: must be at most 24, got 25");
        assert_eq!(refusal(|h| h.groups.truncate(1)), "groups of panel `A & B`: expected 1, found 2");
        assert_eq!(refusal(|h| h.edges.truncate(2)), "bins of `right` in panel `A & B`: expected 1, found 2");
        assert!(refusal(|h| h.edges[1] = 0.0).contains("edges of a bin"));
        assert!(refusal(|h| h.panels.iter_mut().for_each(|p| p.counts = vec![vec![0, 0]; 2])).contains("is empty"));
    }
}
