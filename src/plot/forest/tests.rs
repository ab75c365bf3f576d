use super::*;

fn at(value: f64) -> Option<Estimate> {
    Some(Estimate { value, low: value - 0.5, high: value + 1.0 })
}

fn plot() -> ForestPlot {
    ForestPlot::new(["maximum likelihood", "A & B", "C"], ["seed 0", "seed 1"])
        .with_panel("NLL", vec![vec![at(1.0), at(2.0)], vec![at(3.0), at(4.0)], vec![at(0.0), None]])
        .with_panel("ECE", vec![vec![at(1.0), at(1.0)], vec![None, None], vec![at(1.0), None]])
}

/// The numbers of an attribute, in the order drawn.
fn attribute(svg: &str, element: &str, name: &str) -> Vec<f64> {
    let open = format!("<{element} ");
    let of_element = svg.split(&open).skip(1);
    let value = |shape: &str| {
        let start = shape.find(&format!("{name}=\""))? + name.len() + 2;
        shape[start..].split('"').next()?.parse().ok()
    };
    of_element.filter_map(value).collect()
}

#[test]
fn every_estimate_has_a_mark_and_rows_panels_and_series_have_their_names() {
    let svg = plot().figure().unwrap().shapes();
    // eight estimates, and a mark for each series in the key
    assert_eq!(attribute(&svg, "circle", "cx").len(), 8 + 2);
    for name in [">maximum likelihood<", ">A &amp; B<", ">C<", ">NLL<", ">ECE<", ">seed 0<", ">seed 1<"] {
        assert_eq!(svg.matches(name).count(), 1, "{name}: {svg}");
    }
}

#[test]
fn marks_lie_where_their_numbers_are_and_seeds_under_each_other() {
    let svg = plot().figure().unwrap().shapes();
    let (x, y) = (attribute(&svg, "circle", "cx"), attribute(&svg, "circle", "cy"));
    // 1, 2, 3, 4, 0 of the first panel
    let step = x[1] - x[0];
    assert!(step > 20.0);
    for (i, number) in [1.0, 2.0, 3.0, 4.0, 0.0].into_iter().enumerate() {
        // written to a hundredth
        assert!((x[i] - x[0] - (number - 1.0) * step).abs() < 0.05, "{x:?}");
    }
    assert!(y[0] < y[1] && y[1] < y[2] && y[2] < y[3] && y[3] < y[4], "{y:?}");
    // the second panel has the rows of the first at the same height
    assert_eq!((y[5], y[6], y[7]), (y[0], y[1], y[4]));
}

#[test]
fn intervals_span_from_low_to_high() {
    let svg = ForestPlot::new(["m"], ["s"]).with_panel("NLL", vec![vec![at(1.0)]]).figure().unwrap().shapes();
    let center = attribute(&svg, "circle", "cx")[0];
    let (from, to) = (attribute(&svg, "line", "x1"), attribute(&svg, "line", "x2"));
    let whisker = from.iter().zip(&to).find(|(from, to)| **from < center && **to > center).unwrap();
    assert!(((whisker.1 - center) / (center - whisker.0) - 2.0).abs() < 1e-3);
    // one series needs no key
    assert!(!svg.contains(">s<"));
}

#[test]
fn long_names_are_shortened_and_keep_their_endings() {
    let long = "a very long name of a method and of all its settings ".repeat(3);
    let rows = [format!("{long} + temperature"), long];
    let estimates = vec![vec![at(1.0)]; 2];
    let svg = ForestPlot::new(rows, ["s"]).with_panel("NLL", estimates).figure().unwrap().shapes();
    assert_eq!(svg.matches("… + temperature<").count(), 1);
    assert_eq!(svg.matches("…<").count(), 1);
}

#[test]
fn the_written_data_read_back_as_the_same_plot() {
    let figure = plot().figure().unwrap();
    assert_eq!(serde_json::from_value::<ForestPlot>(figure.data().clone()).unwrap(), plot());
}

#[test]
fn inconsistent_input_is_refused_with_its_numbers() {
    let refusal = |change: fn(&mut ForestPlot)| {
        let mut plot = plot();
        change(&mut plot);
        plot.figure().unwrap_err().to_string()
    };
    assert_eq!(refusal(|p| p.rows.clear()), "list of rows is empty");
    assert_eq!(refusal(|p| p.series.clear()), "list of series is empty");
    assert_eq!(refusal(|p| p.panels.clear()), "list of panels is empty");
    assert_eq!(refusal(|p| p.rows = vec!["x".into(); 61]), "rows: must be at most 60, got 61");
    assert_eq!(refusal(|p| p.series = vec!["x".into(); 13]), "series: must be at most 12, got 13");
    assert_eq!(refusal(|p| p.rows.truncate(2)), "rows of panel `NLL`: expected 2, found 3");
    assert_eq!(
        refusal(|p| p.panels[1].estimates[2].truncate(1)),
        "estimates of `C` in panel `ECE`: expected 2, found 1"
    );
    assert_eq!(refusal(|p| p.panels[1].estimates = vec![vec![None; 2]; 3]), "panel `ECE` is empty");
    assert!(refusal(|p| p.panels[0].estimates[1][0] = at(f64::NAN)).contains("`A & B` in panel `NLL`"));
}
