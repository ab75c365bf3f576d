use super::*;

fn grid() -> Grid {
    Grid { x: (-2.0, 2.0), y: (0.0, 3.0), n_x: 4, n_y: 3 }
}

fn regions() -> Regions {
    let points = [LabelledPoint { x: -1.0, y: 1.0, class: 0 }, LabelledPoint { x: 1.0, y: 2.0, class: 1 }];
    Regions::new(grid(), "confidence")
        .with_panel("MLE", (0..12).map(|i| f64::from(i) / 12.0).collect())
        .with_points(&points, &["no", "yes"])
}

fn refusal(change: impl FnOnce(&mut Regions)) -> String {
    let mut regions = regions();
    change(&mut regions);
    regions.figure().unwrap_err().to_string()
}

#[test]
fn centres_run_along_x_then_up() {
    let centres = grid().centres();
    assert_eq!(centres.len(), 12);
    assert_eq!(centres[0], [-1.5, 0.5]);
    assert_eq!(centres[1], [-0.5, 0.5]);
    assert_eq!(centres[4], [-1.5, 1.5]);
    assert_eq!(centres[11], [1.5, 2.5]);
}

#[test]
fn the_first_value_is_drawn_at_the_bottom_left() {
    // Darkest everywhere but in the first cell.
    let mut values = vec![0.0; 12];
    values[0] = 1.0;
    let svg = Regions::new(grid(), "q").with_panel("", values).figure().unwrap().shapes();
    let cells: Vec<&str> = svg.split("<rect ").filter(|s| s.contains("fill=\"#fde725\"")).collect();
    // The lightest colour: one cell, drawn last but for the bar, whose top it is.
    assert_eq!(cells.len(), 2, "{cells:?}");
    let number = |cell: &str, name: &str| -> f64 {
        let (_, rest) = cell.split_once(&format!("{name}=\"")).unwrap();
        rest.split_once('"').unwrap().0.parse().unwrap()
    };
    let cell = cells[0];
    // The panel is 280 by 210 and ends at 260; a cell is a quarter wide and a third high, and half a unit reaches under
    // its neighbours.
    assert_eq!((number(cell, "width"), number(cell, "height")), (70.5, 70.5));
    assert_eq!(number(cell, "y") + 70.5, 260.0);
    let dark = svg.split("<rect ").filter(|s| s.contains("fill=\"#440154\""));
    let left = dark.map(|s| number(s, "x")).fold(f64::INFINITY, f64::min);
    assert_eq!(number(cell, "x"), left);
}

#[test]
fn equal_neighbours_become_one_rectangle() {
    let svg = |values| {
        let regions = Regions::new(grid(), "q").with_panel("", values).with_scale(0.0, 1.0);
        regions.figure().unwrap().shapes().matches("<rect").count()
    };
    let distinct = svg((0..12).map(|i| f64::from(i) / 12.0).collect());
    assert_eq!(distinct - svg(vec![0.3; 12]), 12 - 3);
}

#[test]
fn points_outside_the_grid_are_kept_but_not_drawn() {
    let marks = |regions: &Regions| regions.figure().unwrap().shapes().matches("<circle").count();
    let mut regions = regions();
    let before = marks(&regions);
    regions.points.push(LabelledPoint { x: 2.5, y: 1.0, class: 0 });
    assert_eq!(marks(&regions), before);
    assert_eq!(regions.figure().unwrap().data()["points"].as_array().unwrap().len(), 3);
}

#[test]
fn the_written_data_read_back_as_the_same_regions() {
    let regions = regions().with_scale(0.5, 1.0).with_axis_names("width", "height");
    let figure = regions.figure().unwrap();
    assert_eq!(figure.data()["kind"], "regions");
    assert_eq!(serde_json::from_value::<Regions>(figure.data().clone()).unwrap(), regions);
}

#[test]
fn titles_classes_axes_and_quantity_are_in_the_picture() {
    let svg = regions().figure().unwrap().shapes();
    for expected in [">MLE<", ">no<", ">yes<", ">x₁<", ">x₂<", ">confidence<"] {
        assert!(svg.contains(expected), "{expected}");
    }
    assert!(!svg.contains("NaN"));
}

#[test]
fn a_constant_panel_has_a_scale() {
    for constant in [0.0, -4.0, 1e-9] {
        let figure = Regions::new(grid(), "q").with_panel("", vec![constant; 12]).figure();
        assert!(!figure.unwrap().shapes().contains("NaN"), "{constant}");
    }
}

#[test]
fn inconsistent_input_is_refused_with_its_numbers() {
    assert_eq!(refusal(|m| m.panels.clear()), "list of panels is empty");
    assert_eq!(refusal(|m| m.grid.n_x = 5), "values of panel `MLE`: expected 15, found 12");
    assert!(refusal(|m| m.grid.n_y = 0).contains("is empty"));
    assert!(refusal(|m| m.grid.x = (1.0, 1.0)).contains("1 to 1"));
    assert!(refusal(|m| m.scale = Some((1.0, f64::NAN))).contains("1 to NaN"));
    assert!(refusal(|m| m.panels[0].values[3] = f64::NAN).contains("1 of 12 values"));
    assert!(refusal(|m| m.points[1].y = f64::INFINITY).contains("1 of 4 values"));
    assert_eq!(refusal(|m| m.points[1].class = 2), "item `point 1`: label 2 is out of range for 2 classes");
    assert!(refusal(|m| m.class_names = vec![String::new(); 9]).contains("got 9"));
}
