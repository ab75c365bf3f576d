//! Writes a figure as an SVG element for a page: few bytes, and colours that the page may choose.
//!
//! Shapes of one look share an element. A shape joins an earlier one of its look where nothing that was drawn in between lies
//! in its place, so that what covers what stays as it was drawn.

use super::canvas::{Canvas, Rect, Shape, Stroke};
use super::palette::{BLUE, FAINT, GREY, INK, PALE_BLUE, Rgb, WHITE};
use super::text::{Anchor, TextStyle, width};
use std::fmt::Write;

/// Colours that a page may replace, by the name of its property.
const NAMED: [(Rgb, &str); 7] = [
    (WHITE, "page"),
    (INK, "ink"),
    (GREY, "soft"),
    (FAINT, "line"),
    (Rgb(0, 0, 0), "black"),
    (BLUE, "blue"),
    (PALE_BLUE, "pale-blue"),
];

/// Looks further back than this are not joined.
const REACH: usize = 12;

/// What shapes of one element have in common.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Look {
    Outline { fill: Option<Rgb>, stroke: Option<Stroke>, crisp: bool },
    Text(TextStyle),
}

/// Shapes of one look.
struct Run {
    look: Look,
    content: String,
    /// What each shape covers.
    areas: Vec<Rect>,
}

/// Writes the element.
pub(super) fn element(canvas: &Canvas) -> String {
    let (w, h) = (canvas.width, canvas.height);
    let runs = runs(&canvas.shapes);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {w} {h}\" width=\"{w}\" height=\"{h}\" \
         font-family=\"DejaVu Sans,Verdana,sans-serif\">"
    );
    for Run { look, content, .. } in runs {
        // writing to a string cannot fail
        let _ = match look {
            Look::Outline { fill, stroke, crisp } => {
                let fill = fill.map_or("none".into(), paint);
                let stroke = stroke.map_or(String::new(), |stroke| outline(&stroke));
                let crisp = if crisp { " shape-rendering=\"crispEdges\"" } else { "" };
                write!(out, "<path fill=\"{fill}\"{stroke}{crisp} d=\"{content}\"/>")
            }
            Look::Text(style) => {
                let anchor = match style.anchor {
                    Anchor::Start => "",
                    Anchor::Middle => " text-anchor=\"middle\"",
                    Anchor::End => " text-anchor=\"end\"",
                };
                write!(out, "<g fill=\"{}\" font-size=\"{}\"{anchor}>{content}</g>", paint(style.color), style.size)
            }
        };
    }
    out.push_str("</svg>");
    out
}

fn paint(color: Rgb) -> String {
    let Rgb(r, g, b) = color;
    match NAMED.iter().find(|(named, _)| *named == color) {
        Some((_, name)) => format!("var(--plot-{name},#{r:02x}{g:02x}{b:02x})"),
        None => format!("#{r:02x}{g:02x}{b:02x}"),
    }
}

fn outline(stroke: &Stroke) -> String {
    let mut text = format!(" stroke=\"{}\"", paint(stroke.color));
    if stroke.width != 1.0 {
        let _ = write!(text, " stroke-width=\"{}\"", stroke.width);
    }
    if !stroke.dash.is_empty() {
        let lengths: Vec<String> = stroke.dash.iter().map(f64::to_string).collect();
        let _ = write!(text, " stroke-dasharray=\"{}\"", lengths.join(" "));
    }
    text
}

fn runs(shapes: &[Shape]) -> Vec<Run> {
    let mut runs = Vec::new();
    for shape in shapes {
        match shape {
            Shape::Rect { area, fill, stroke } => {
                let look = Look::Outline { fill: *fill, stroke: *stroke, crisp: false };
                join(&mut runs, look, *area, &rectangle(area));
            }
            Shape::Cells(cells) => {
                for (area, fill) in cells {
                    let look = Look::Outline { fill: Some(*fill), stroke: None, crisp: true };
                    join(&mut runs, look, *area, &rectangle(area));
                }
            }
            Shape::Line { points, stroke } => {
                let look = Look::Outline { fill: None, stroke: Some(*stroke), crisp: false };
                join(&mut runs, look, around(points), &path(points));
            }
            Shape::Circle { center: (x, y), radius, fill, stroke } => {
                let look = Look::Outline { fill: Some(*fill), stroke: *stroke, crisp: false };
                let ends = [(x - radius, y - radius), (x + radius, y + radius)];
                join(&mut runs, look, around(&ends), &circle((*x, *y), *radius));
            }
            Shape::Polygon { corners, fill, stroke } => {
                let look = Look::Outline { fill: Some(*fill), stroke: *stroke, crisp: false };
                join(&mut runs, look, around(corners), &(path(corners) + "z"));
            }
            Shape::Text { at, content, style } => {
                join(&mut runs, Look::Text(*style), taken(*at, content, style), &text(*at, content, style));
            }
        }
    }
    runs
}

/// Adds a shape to the last run of its look, unless something drawn since lies in its place.
fn join(runs: &mut Vec<Run>, look: Look, area: Rect, content: &str) {
    let edge = match look {
        Look::Outline { stroke: Some(stroke), .. } => stroke.width / 2.0,
        _ => 0.0,
    };
    let area =
        Rect { x: area.x - edge, y: area.y - edge, width: area.width + 2.0 * edge, height: area.height + 2.0 * edge };
    for run in runs.iter_mut().rev().take(REACH) {
        if run.look == look {
            run.content.push_str(content);
            run.areas.push(area);
            return;
        }
        if run.areas.iter().any(|other| meet(other, &area)) {
            break;
        }
    }
    runs.push(Run { look, content: content.into(), areas: vec![area] });
}

fn meet(a: &Rect, b: &Rect) -> bool {
    a.x < b.right() && b.x < a.right() && a.y < b.bottom() && b.y < a.bottom()
}

fn around(points: &[(f64, f64)]) -> Rect {
    let start = (f64::INFINITY, f64::INFINITY, f64::NEG_INFINITY, f64::NEG_INFINITY);
    let fold = |(l, t, r, b): (f64, f64, f64, f64), &(x, y): &(f64, f64)| (l.min(x), t.min(y), r.max(x), b.max(y));
    let (left, top, right, bottom) = points.iter().fold(start, fold);
    Rect { x: left, y: top, width: right - left, height: bottom - top }
}

/// The place of a text, with its ascenders and descenders.
fn taken((x, y): (f64, f64), content: &str, style: &TextStyle) -> Rect {
    let (long, high) = (width(content, style.size), f64::from(style.size));
    let start = match style.anchor {
        Anchor::Start => 0.0,
        Anchor::Middle => -long / 2.0,
        Anchor::End => -long,
    };
    match style.upward {
        false => Rect { x: x + start, y: y - high, width: long, height: 1.3 * high },
        true => Rect { x: x - high, y: y - start - long, width: 1.3 * high, height: long },
    }
}

fn text((x, y): (f64, f64), content: &str, style: &TextStyle) -> String {
    let (x, y) = (decimal(tenths(x)), decimal(tenths(y)));
    let turned = if style.upward { format!(" transform=\"rotate(-90 {x} {y})\"") } else { String::new() };
    format!("<text x=\"{x}\" y=\"{y}\"{turned}>{}</text>", escaped(content))
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

fn tenths(value: f64) -> i64 {
    (10.0 * value).round() as i64
}

/// Writes tenths without zeros that say nothing.
fn decimal(tenths: i64) -> String {
    let (sign, size) = (if tenths < 0 { "-" } else { "" }, tenths.unsigned_abs());
    match (size / 10, size % 10) {
        (whole, 0) => format!("{sign}{whole}"),
        (0, tenth) => format!("{sign}.{tenth}"),
        (whole, tenth) => format!("{sign}{whole}.{tenth}"),
    }
}

/// A number behind another one: a minus parts them too.
fn next(tenths: i64) -> String {
    if tenths < 0 { decimal(tenths) } else { format!(" {}", decimal(tenths)) }
}

fn start(x: i64, y: i64) -> String {
    format!("M{}{}", decimal(x), next(y))
}

fn rectangle(area: &Rect) -> String {
    let (left, top) = (tenths(area.x), tenths(area.y));
    let (wide, high) = (tenths(area.right()) - left, tenths(area.bottom()) - top);
    format!("{}h{}v{}h{}z", start(left, top), decimal(wide), decimal(high), decimal(-wide))
}

fn circle((x, y): (f64, f64), radius: f64) -> String {
    let (r, across) = (decimal(tenths(radius)), 2 * tenths(radius));
    // clockwise, as rectangles: shapes of one element that overlap leave no hole
    let half = |way: i64| format!("a{r} {r} 0 1 1{} 0", next(way));
    format!("{}{}{}z", start(tenths(x) - tenths(radius), tenths(y)), half(across), half(-across))
}

/// Straight lines, each step from where the last one was rounded to, so that errors do not add up.
fn path(points: &[(f64, f64)]) -> String {
    let mut points = points.iter().map(|(x, y)| (tenths(*x), tenths(*y)));
    let Some(mut last) = points.next() else { return String::new() };
    let mut out = start(last.0, last.1);
    for point in points {
        out.push_str(&match (point.0 - last.0, point.1 - last.1) {
            (0, 0) => continue,
            (dx, 0) => format!("h{}", decimal(dx)),
            (0, dy) => format!("v{}", decimal(dy)),
            (dx, dy) => format!("l{}{}", decimal(dx), next(dy)),
        });
        last = point;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(draw: impl FnOnce(&mut Canvas)) -> String {
        let mut canvas = Canvas::new(100.0, 100.0);
        draw(&mut canvas);
        element(&canvas)
    }

    #[test]
    fn numbers_have_one_decimal_and_no_idle_zero() {
        let texts = [0, 4, -4, 30, -30, 1234, -1205].map(decimal);
        assert_eq!(texts, ["0", ".4", "-.4", "3", "-3", "123.4", "-120.5"]);
        assert_eq!((tenths(0.04), tenths(-0.06), tenths(9.96)), (0, -1, 100));
    }

    #[test]
    fn rounding_errors_of_a_long_line_do_not_add_up() {
        let points: Vec<(f64, f64)> = (0..=1000).map(|i| (0.033 * f64::from(i), 0.033 * f64::from(i))).collect();
        let d = path(&points);
        let (mut x, mut seen) = (0.0, 0);
        for step in d[1..].split(['l']).skip(1) {
            x += step.split(' ').next().unwrap().parse::<f64>().unwrap();
            seen += 1;
        }
        // 33 units in steps of a tenth
        assert!((x - 33.0).abs() < 1e-9 && seen == 330, "{x} {seen}");
    }

    #[test]
    fn shapes_of_one_look_share_an_element_unless_another_lies_between() {
        let square = |x: f64| Rect { x, y: 0.0, width: 10.0, height: 10.0 };
        let apart = drawn(|c| {
            c.rect(square(0.0), Some(BLUE), None);
            c.rect(square(20.0), Some(FAINT), None);
            c.rect(square(40.0), Some(BLUE), None);
        });
        assert_eq!(apart.matches("<path").count(), 2, "{apart}");
        assert!(apart.contains("d=\"M0 0h10v10h-10zM40 0h10v10h-10z\""), "{apart}");
        let covered = drawn(|c| {
            c.rect(square(0.0), Some(BLUE), None);
            c.rect(square(38.0), Some(FAINT), None);
            c.rect(square(40.0), Some(BLUE), None);
        });
        assert_eq!(covered.matches("<path").count(), 3, "{covered}");
        assert!(covered.find("M38").unwrap() < covered.find("M40").unwrap());
    }

    #[test]
    fn a_line_under_a_text_stays_under_it() {
        let svg = drawn(|c| {
            c.line((0.0, 50.0), (9.0, 50.0), Stroke::solid(INK, 1.0));
            c.text(20.0, 54.0, "over", TextStyle::plain(10));
            c.line((0.0, 52.0), (90.0, 52.0), Stroke::solid(INK, 1.0));
        });
        assert_eq!(svg.matches("<path").count(), 2, "{svg}");
    }

    #[test]
    fn dashes_are_the_readers_work_and_colours_can_be_replaced() {
        let svg = drawn(|c| {
            c.line((0.0, 7.0), (20.0, 7.0), Stroke::dashed(INK, 1.5));
            c.circle((5.0, 5.0), 3.0, Rgb(213, 94, 0), None);
        });
        let expected = "<path fill=\"none\" stroke=\"var(--plot-ink,#222222)\" stroke-width=\"1.5\" \
                        stroke-dasharray=\"5 4\" d=\"M0 7h20\"/>";
        assert!(svg.contains(expected), "{svg}");
        assert!(svg.contains("<path fill=\"#d55e00\" d=\"M2 5a3 3 0 1 1 6 0a3 3 0 1 1-6 0z\"/>"), "{svg}");
    }

    #[test]
    fn texts_are_escaped_and_turned() {
        let svg = drawn(|c| {
            c.text(1.0, 2.0, "a\"><script>'", TextStyle::plain(10));
            c.text(3.0, 4.5, "up", TextStyle::plain(10).upward());
        });
        assert!(svg.contains("a&quot;&gt;&lt;script&gt;&#39;</text>"), "{svg}");
        assert!(svg.contains("<text x=\"3\" y=\"4.5\" transform=\"rotate(-90 3 4.5)\">up</text>"), "{svg}");
    }
}
