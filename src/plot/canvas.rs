//! Collects the shapes of a figure; the only file that makes kuva's drawing primitives.
//!
//! Positions are in drawing units from the top left corner, y downward. The ready-made plots of kuva place their own
//! margins, so that panels would not line up; its primitives leave the layout to us.

use super::palette::Rgb;
use super::text::{Anchor, TextStyle, printable};
use kuva::render::color::Color;
use kuva::render::render::{PathData, Primitive, Scene, TextAnchor};

/// An axis-aligned rectangle.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Rect {
    pub x: f64,
    pub y: f64,
    pub width: f64,
    pub height: f64,
}

impl Rect {
    pub fn right(&self) -> f64 {
        self.x + self.width
    }

    pub fn bottom(&self) -> f64 {
        self.y + self.height
    }

    pub fn center(&self) -> (f64, f64) {
        (self.x + self.width / 2.0, self.y + self.height / 2.0)
    }
}

/// How a line is drawn.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stroke {
    pub color: Rgb,
    pub width: f64,
    /// Lengths of dash and gap.
    pub dash: Option<(f64, f64)>,
}

impl Stroke {
    pub fn solid(color: Rgb, width: f64) -> Self {
        Self { color, width, dash: None }
    }

    pub fn dashed(color: Rgb, width: f64) -> Self {
        Self { color, width, dash: Some((5.0, 4.0)) }
    }
}

/// The shapes drawn so far, later ones over earlier ones.
#[derive(Debug)]
pub(super) struct Canvas {
    scene: Scene,
}

impl Canvas {
    /// A white page.
    pub fn new(width: f64, height: f64) -> Self {
        let mut scene = Scene::new(width, height);
        scene.font_family = Some("DejaVu Sans, Verdana, sans-serif".into());
        Self { scene }
    }

    pub fn into_scene(self) -> Scene {
        self.scene
    }

    pub fn rect(&mut self, area: Rect, fill: Option<Rgb>, stroke: Option<Stroke>) {
        self.scene.add(Primitive::Rect {
            x: area.x,
            y: area.y,
            width: area.width,
            height: area.height,
            fill: fill.map_or(Color::None, color),
            stroke: stroke.map(|s| color(s.color)),
            stroke_width: stroke.map(|s| s.width),
            opacity: None,
        });
    }

    /// Draws many filled cells without outlines, their edges unblurred so that neighbours leave no seam.
    pub fn cells(&mut self, cells: &[(Rect, Rgb)]) {
        self.scene.add(Primitive::GroupStart {
            transform: None,
            title: None,
            extra_attrs: Some(r#"shape-rendering="crispEdges""#.into()),
        });
        let column = |f: fn(&Rect) -> f64| cells.iter().map(|(area, _)| f(area)).collect();
        self.scene.add(Primitive::RectBatch {
            x: column(|a| a.x),
            y: column(|a| a.y),
            w: column(|a| a.width),
            h: column(|a| a.height),
            fills: cells.iter().map(|&(_, fill)| color(fill)).collect(),
        });
        self.scene.add(Primitive::GroupEnd);
    }

    /// Dashes are cut here: kuva's rasteriser measures them in pixels instead of drawing units.
    pub fn line(&mut self, from: (f64, f64), to: (f64, f64), stroke: Stroke) {
        let Some((dash, gap)) = stroke.dash else {
            return self.segment(from, to, stroke);
        };
        let (dx, dy) = (to.0 - from.0, to.1 - from.1);
        let length = dx.hypot(dy);
        let at = |distance: f64| {
            let t = (distance / length).min(1.0);
            (from.0 + t * dx, from.1 + t * dy)
        };
        let n_dashes = (length / (dash + gap)).ceil() as usize;
        for i in 0..n_dashes {
            let start = i as f64 * (dash + gap);
            self.segment(at(start), at(start + dash), stroke);
        }
    }

    fn segment(&mut self, from: (f64, f64), to: (f64, f64), stroke: Stroke) {
        self.scene.add(Primitive::Line {
            x1: from.0,
            y1: from.1,
            x2: to.0,
            y2: to.1,
            stroke: color(stroke.color),
            stroke_width: stroke.width,
            stroke_dasharray: None,
        });
    }

    pub fn circle(&mut self, center: (f64, f64), radius: f64, fill: Rgb, stroke: Option<Stroke>) {
        self.scene.add(Primitive::Circle {
            cx: center.0,
            cy: center.1,
            r: radius,
            fill: color(fill),
            fill_opacity: None,
            stroke: stroke.map(|s| color(s.color)),
            stroke_width: stroke.map(|s| s.width),
        });
    }

    pub fn polygon(&mut self, corners: &[(f64, f64)], fill: Rgb, stroke: Option<Stroke>) {
        let steps: Vec<String> = corners.iter().map(|(x, y)| format!("{x:.2} {y:.2}")).collect();
        self.scene.add(Primitive::Path(Box::new(PathData {
            d: format!("M {} Z", steps.join(" L ")),
            fill: Some(color(fill)),
            stroke: stroke.map_or(Color::None, |s| color(s.color)),
            stroke_width: stroke.map_or(0.0, |s| s.width),
            opacity: None,
            stroke_dasharray: None,
        })));
    }

    /// Sets one line of text with its baseline at `y`.
    pub fn text(&mut self, x: f64, y: f64, content: &str, style: TextStyle) {
        self.scene.add(Primitive::Text {
            x,
            y,
            // kuva reads `$…$` as mathematics; a name that holds dollars means them.
            content: printable(content).replace('$', "\\$"),
            size: style.size,
            anchor: match style.anchor {
                Anchor::Start => TextAnchor::Start,
                Anchor::Middle => TextAnchor::Middle,
                Anchor::End => TextAnchor::End,
            },
            rotate: style.upward.then_some(-90.0),
            bold: false,
            color: Some(color(style.color)),
        });
    }
}

fn color(Rgb(r, g, b): Rgb) -> Color {
    Color::Rgb(r, g, b)
}

#[cfg(test)]
mod tests {
    use super::super::Figure;
    use super::super::palette::INK;
    use super::*;

    fn svg(draw: impl FnOnce(&mut Canvas)) -> String {
        let mut canvas = Canvas::new(100.0, 100.0);
        draw(&mut canvas);
        Figure::new(canvas, &()).unwrap().shapes()
    }

    #[test]
    fn dashes_end_at_the_end_of_the_line() {
        // 20 units at a period of 9: dashes at 0–5, 9–14 and 18–20.
        let svg = svg(|c| c.line((0.0, 7.0), (20.0, 7.0), Stroke::dashed(INK, 1.0)));
        assert_eq!(svg.matches("<line").count(), 3);
        assert!(svg.contains(r#"x1="18" y1="7" x2="20" y2="7""#), "{svg}");
    }

    #[test]
    fn a_dashed_line_without_length_draws_nothing() {
        let svg = svg(|c| c.line((5.0, 5.0), (5.0, 5.0), Stroke::dashed(INK, 1.0)));
        assert!(!svg.contains("<line") && !svg.contains("NaN"));
    }

    #[test]
    fn dollars_stay_dollars() {
        let svg = svg(|c| c.text(1.0, 9.0, r"$5 to \$x^2$", TextStyle::plain(10)));
        assert!(svg.contains(r">$5 to \$x^2$</text>"));
    }
}
