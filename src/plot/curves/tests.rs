use super::draw::place_labels;
use super::*;
use std::collections::BTreeSet;

/// A valley over 0.01 to 100 whose lowest point is at 1.
fn valley(n: usize) -> Vec<(f64, f64)> {
    let at = |i: usize| 10f64.powf(-2.0 + 4.0 * i as f64 / (n - 1) as f64);
    (0..n).map(|i| (at(i), 0.4 + 0.1 * at(i).log10().powi(2))).collect()
}

fn chart() -> CurveChart {
    CurveChart::new("factor", "mean NLL").with_curve("A & B", valley(9)).with_curve("Laplace", valley(30))
}

fn shapes(chart: &CurveChart) -> String {
    let svg = chart.figure().unwrap().shapes();
    assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    svg
}

fn refusal(change: impl FnOnce(&mut CurveChart)) -> String {
    let mut chart = chart().with_mark(1.0, "chosen");
    change(&mut chart);
    chart.figure().unwrap_err().to_string()
}

/// The text of an attribute of one shape.
fn attribute<'a>(shape: &'a str, name: &str) -> &'a str {
    let (_, rest) = shape.split_once(&format!("{name}=\"")).unwrap();
    rest.split_once('"').unwrap().0
}

#[test]
fn names_of_curves_and_axes_marks_and_ticks_are_in_the_picture() {
    let svg = shapes(&chart().with_mark(3.0, "chosen"));
    for expected in
        [">A &amp; B<", ">Laplace<", ">factor<", ">mean NLL<", ">chosen<", ">0.01<", ">1<", ">100<", ">0.6<"]
    {
        assert!(svg.contains(expected), "{expected}");
    }
}

#[test]
fn a_linear_axis_places_numbers_as_they_are() {
    let points = |shift: f64| (0..=40).map(|i| (shift + f64::from(i) / 40.0, 0.1)).collect::<Vec<_>>();
    let linear =
        |shift| CurveChart::new("coverage", "risk").with_x_scale(AxisScale::Linear).with_curve("", points(shift));
    let svg = shapes(&linear(0.0));
    // On a logarithmic axis 0 has no place and 0.5 stands elsewhere.
    let at = |label: &str| -> f64 {
        let text = svg.split("<text ").filter(|text| text.contains("y=\"331\"")).find(|text| text.contains(label));
        attribute(text.unwrap(), "x").parse().unwrap()
    };
    let (low, middle, high) = (at(">0.2<"), at(">0.4<"), at(">0.8<"));
    assert!((high - middle - 2.0 * (middle - low)).abs() < 0.05, "{low} {middle} {high}");
    assert!(shapes(&linear(-0.5)).contains(">−0.2<"));
    let mut unplaced = linear(0.0);
    unplaced.curves[0].points[3].0 = f64::NAN;
    assert_eq!(unplaced.figure().unwrap_err().to_string(), "curve ``, point 3, x: must be finite, got NaN");
}

#[test]
fn a_mark_stands_over_its_number() {
    let dashes = |svg: &str| -> BTreeSet<String> {
        let grey = svg.split("<line ").filter(|line| line.contains("stroke=\"#696969\""));
        grey.map(|line| attribute(line, "x1").to_string()).collect()
    };
    assert!(dashes(&shapes(&chart())).is_empty());
    let svg = shapes(&chart().with_mark(10.0, "here"));
    let tick = svg.split("<text ").find(|text| text.contains(">10<")).unwrap();
    assert_eq!(dashes(&svg), BTreeSet::from([attribute(tick, "x").to_string()]));
    // Beyond the curves it stretches the axis.
    assert!(shapes(&chart().with_mark(1e4, "far")).contains(">10000<"));
}

#[test]
fn every_curve_has_its_colour_and_only_short_ones_have_dots() {
    let mut chart = CurveChart::new("", "");
    for i in 0..6 {
        chart = chart.with_curve(format!("curve {i}"), valley(5));
    }
    let svg = shapes(&chart);
    let dots: BTreeSet<&str> = svg.split("<circle ").skip(1).map(|dot| attribute(dot, "fill")).collect();
    assert_eq!((dots.len(), svg.matches("<circle ").count()), (6, 30));
    let one = |n| shapes(&CurveChart::new("", "").with_curve("", valley(n))).matches("<circle ").count();
    assert_eq!((one(20), one(21)), (20, 0));
}

#[test]
fn points_are_joined_in_ascending_order() {
    let mut reversed = chart();
    reversed.curves.iter_mut().for_each(|curve| curve.points.reverse());
    assert_eq!(shapes(&reversed), shapes(&chart()));
}

#[test]
fn labels_of_marks_stay_in_the_frame_and_do_not_overlap() {
    let range = (-2.0, 2.0);
    let label = "λ = 12.5, evidence";
    for distance in [0.0, 0.01, 0.2, 0.7] {
        for first in [-2.0, -0.5, 0.9] {
            let at = |i: i32| 10f64.powf((first + distance * f64::from(i)).min(2.0));
            let marks: Vec<Mark> = (0..6).map(|i| Mark { x: at(i), label: label.into() }).collect();
            let labels = place_labels(&CurveChart { marks, ..chart() }, range);
            for (i, a) in labels.iter().enumerate() {
                assert!(a.start >= 0.0 && a.end <= 420.0 && a.row < 6, "{first} {distance} {i}");
                for b in &labels[..i] {
                    let apart = a.row != b.row || a.end < b.start || b.end < a.start;
                    assert!(apart, "{first} {distance} {i}: {} to {}", a.start, a.end);
                }
            }
        }
    }
    let far = [0.1, 10.0].map(|x| Mark { x, label: "λ".into() });
    let far = CurveChart { marks: far.to_vec(), ..chart() };
    assert!(place_labels(&far, range).iter().all(|label| label.row == 0));
}

#[test]
fn the_written_data_read_back_as_the_same_chart() {
    let chart = chart().with_mark(0.3, "chosen");
    let figure = chart.figure().unwrap();
    assert_eq!(figure.data()["kind"], "curves");
    assert_eq!(serde_json::from_value::<CurveChart>(figure.data().clone()).unwrap(), chart);
}

#[test]
fn equal_and_extreme_values_are_drawn() {
    let points = [
        [(1.0, 0.5), (1.0, 0.5)],
        [(1.0, 0.0), (2.0, 0.0)],
        [(1e-300, -1e9), (1e300, 1e9)],
        [(5e-324, 0.0), (5e-324, 1.0)],
        [(f64::MAX, 0.0), (f64::MAX, 1.0)],
    ];
    for points in points {
        shapes(&CurveChart::new("x", "y").with_curve("", points.to_vec()).with_mark(points[0].0, ""));
    }
}

#[test]
fn long_names_are_shortened_within_the_page() {
    let long = "a very long name of something ".repeat(8);
    let short = CurveChart::new("x", "y").with_curve("c", valley(3));
    let chart = CurveChart::new(&long, &long).with_curve(&long, valley(3)).with_mark(1.0, &long);
    assert_eq!(chart.figure().unwrap().size().0, short.figure().unwrap().size().0);
    assert_eq!(shapes(&chart).matches("…<").count(), 4);
}

#[test]
fn inconsistent_input_is_refused_with_its_numbers() {
    assert_eq!(refusal(|c| c.curves.clear()), "list of curves is empty");
    assert_eq!(refusal(|c| c.curves[1].points.clear()), "curve `Laplace` is empty");
    assert_eq!(refusal(|c| c.curves[1].points.truncate(1)), "points of curve `Laplace`: must be at least 2, got 1");
    let many = refusal(|c| c.curves = vec![c.curves[0].clone(); 13]);
    assert_eq!(many, "curves: must be at most 12 (a colour and a dash pattern each), got 13");
    let flat = refusal(|c| c.size.1 = 5.0);
    assert_eq!(flat, "height of the frame: must be between 100 and 10000, got 5");
    assert_eq!(refusal(|c| c.marks = vec![c.marks[0].clone(); 7]), "marks: must be at most 6, got 7");
    for x in [0.0, -2.5, f64::NAN, f64::INFINITY] {
        let bound = format!("x: must be positive and finite on a logarithmic axis, got {x}");
        assert_eq!(refusal(|c| c.curves[1].points[3].0 = x), format!("curve `Laplace`, point 3, {bound}"));
        assert_eq!(refusal(|c| c.marks[0].x = x), format!("mark `chosen`, {bound}"));
    }
    let infinite = refusal(|c| c.curves[0].points[2].1 = f64::NEG_INFINITY);
    assert_eq!(infinite, "curve `A & B`, point 2, y: must be finite, got -inf");
    assert!(refusal(|c| c.curves[0].points[0].1 = f64::MAX).contains("y of the curves: must be a finite"));
}
