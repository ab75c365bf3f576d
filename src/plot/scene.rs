//! Hands a figure's shapes to kuva; the only file that makes its drawing primitives.
//!
//! The ready-made plots of kuva place their own margins, so that panels would not line up; its primitives leave the layout to
//! us.

use super::canvas::{Canvas, Rect, Shape, Stroke};
use super::palette::Rgb;
use super::text::Anchor;
use kuva::render::color::Color;
use kuva::render::render::{PathData, Primitive, Scene, TextAnchor};

/// The shapes on a white page.
pub(super) fn scene(canvas: &Canvas) -> Scene {
    let mut scene = Scene::new(canvas.width, canvas.height);
    scene.font_family = Some("DejaVu Sans, Verdana, sans-serif".into());
    canvas.shapes.iter().for_each(|shape| add(&mut scene, shape));
    scene
}

fn add(scene: &mut Scene, shape: &Shape) {
    match shape {
        Shape::Rect { area, fill, stroke } => scene.add(Primitive::Rect {
            x: area.x,
            y: area.y,
            width: area.width,
            height: area.height,
            fill: fill.map_or(Color::None, color),
            stroke: stroke.map(|s| color(s.color)),
            stroke_width: stroke.map(|s| s.width),
            opacity: None,
        }),
        Shape::Cells(cells) => add_cells(scene, cells),
        // dashes are cut here: kuva's rasteriser measures them in pixels instead of drawing units
        Shape::Line { points, stroke } if stroke.dash.is_empty() => add_line(scene, points, *stroke),
        Shape::Line { points, stroke } => {
            dashes(points, stroke.dash).iter().for_each(|dash| add_line(scene, dash, *stroke));
        }
        Shape::Circle { center, radius, fill, stroke } => scene.add(Primitive::Circle {
            cx: center.0,
            cy: center.1,
            r: *radius,
            fill: color(*fill),
            fill_opacity: None,
            stroke: stroke.map(|s| color(s.color)),
            stroke_width: stroke.map(|s| s.width),
        }),
        Shape::Polygon { corners, fill, stroke } => {
            let steps: Vec<String> = corners.iter().map(|(x, y)| format!("{x:.2} {y:.2}")).collect();
            scene.add(Primitive::Path(Box::new(PathData {
                d: format!("M {} Z", steps.join(" L ")),
                fill: Some(color(*fill)),
                stroke: stroke.map_or(Color::None, |s| color(s.color)),
                stroke_width: stroke.map_or(0.0, |s| s.width),
                opacity: None,
                stroke_dasharray: None,
            })));
        }
        Shape::Text { at, content, style } => scene.add(Primitive::Text {
            x: at.0,
            y: at.1,
            // kuva reads `$…$` as mathematics; a name that holds dollars means them.
            content: content.replace('$', "\\$"),
            size: style.size,
            anchor: match style.anchor {
                Anchor::Start => TextAnchor::Start,
                Anchor::Middle => TextAnchor::Middle,
                Anchor::End => TextAnchor::End,
            },
            rotate: style.upward.then_some(-90.0),
            bold: false,
            color: Some(color(style.color)),
        }),
    }
}

fn add_cells(scene: &mut Scene, cells: &[(Rect, Rgb)]) {
    scene.add(Primitive::GroupStart {
        transform: None,
        title: None,
        extra_attrs: Some(r#"shape-rendering="crispEdges""#.into()),
    });
    let column = |f: fn(&Rect) -> f64| cells.iter().map(|(area, _)| f(area)).collect();
    scene.add(Primitive::RectBatch {
        x: column(|a| a.x),
        y: column(|a| a.y),
        w: column(|a| a.width),
        h: column(|a| a.height),
        fills: cells.iter().map(|&(_, fill)| color(fill)).collect(),
    });
    scene.add(Primitive::GroupEnd);
}

/// Adds a line that is not interrupted.
fn add_line(scene: &mut Scene, points: &[(f64, f64)], stroke: Stroke) {
    let (stroke, stroke_width) = (color(stroke.color), stroke.width);
    scene.add(match *points {
        [(x1, y1), (x2, y2)] => Primitive::Line { x1, y1, x2, y2, stroke, stroke_width, stroke_dasharray: None },
        _ => Primitive::PolyLine { points: points.to_vec(), stroke, stroke_width, stroke_dasharray: None },
    });
}

fn color(Rgb(r, g, b): Rgb) -> Color {
    Color::Rgb(r, g, b)
}

/// Cuts a line through points into the dashes of a pattern, which starts with a dash at the first point.
fn dashes(points: &[(f64, f64)], pattern: &[f64]) -> Vec<Vec<(f64, f64)>> {
    let mut lengths = pattern.iter().copied().cycle();
    let mut left = lengths.next().unwrap_or(f64::INFINITY);
    let mut dash: Option<Vec<(f64, f64)>> = points.first().map(|&start| vec![start]);
    let mut cut = Vec::new();
    for pair in points.windows(2) {
        let (from, to) = (pair[0], pair[1]);
        let (dx, dy) = (to.0 - from.0, to.1 - from.1);
        let length = dx.hypot(dy);
        if length == 0.0 {
            continue;
        }
        let mut gone = 0.0;
        while length - gone > left {
            gone += left;
            let turn = (from.0 + gone / length * dx, from.1 + gone / length * dy);
            dash = match dash.take() {
                Some(mut finished) => {
                    finished.push(turn);
                    cut.push(finished);
                    None
                }
                None => Some(vec![turn]),
            };
            left = lengths.next().unwrap_or(f64::INFINITY);
        }
        left -= length - gone;
        if let Some(open) = &mut dash {
            open.push(to);
        }
    }
    cut.extend(dash.filter(|open| open.len() > 1));
    cut
}

#[cfg(test)]
mod tests {
    use super::super::Figure;
    use super::super::palette::INK;
    use super::super::text::TextStyle;
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
    fn dashes_run_on_round_corners_and_follow_their_pattern() {
        // Along an L of twice 10 units with a period of 11: dashes at 0–6, 8–9, 11–17 and 19–20.
        let ell = [(0.0, 0.0), (10.0, 0.0), (10.0, 10.0)];
        let ends = |dash: &Vec<(f64, f64)>| (dash[0], dash[dash.len() - 1]);
        let found: Vec<_> = dashes(&ell, &[6.0, 2.0, 1.0, 2.0]).iter().map(ends).collect();
        let expected = [(0.0, 0.0, 6.0, 0.0), (8.0, 0.0, 9.0, 0.0), (10.0, 1.0, 10.0, 7.0), (10.0, 9.0, 10.0, 10.0)];
        assert_eq!(found, expected.map(|(x0, y0, x1, y1)| ((x0, y0), (x1, y1))));
        // At 0–7 and 9–16, which turns.
        assert_eq!(dashes(&ell, &[7.0, 2.0])[1], [(9.0, 0.0), (10.0, 0.0), (10.0, 6.0)]);
    }

    #[test]
    fn a_solid_line_through_points_is_one_path() {
        let svg = svg(|c| c.polyline(&[(0.0, 0.0), (9.0, 3.0), (20.0, 1.0)], Stroke::solid(INK, 1.0)));
        assert_eq!(svg.matches("<path").count(), 1, "{svg}");
        assert!(!svg.contains("<line"), "{svg}");
    }

    #[test]
    fn dollars_stay_dollars() {
        let svg = svg(|c| c.text(1.0, 9.0, r"$5 to \$x^2$", TextStyle::plain(10)));
        assert!(svg.contains(r">$5 to \$x^2$</text>"));
    }
}
