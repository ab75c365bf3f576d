use super::*;
use crate::compare::cell::Outcome;
use crate::compare::synthetic;
use crate::search::{Search, SearchEnd};
use serde_json::Value;

fn quick() -> ReportOptions {
    let mut options = ReportOptions { title: "A < B & C".into(), ..Default::default() };
    options.scores.n_draws = 50;
    options
}

/// Two tasks, two seeds each; the third method fails on the first.
fn report() -> Report {
    let mut runs: Vec<Run> = [("obqa", 1), ("arc", 0), ("obqa", 0), ("arc", 1)]
        .map(|(task, seed)| synthetic::run(task, seed, &["map", "<b>laplace</b>", "swag"]))
        .into();
    runs[2].cells[2].outcome = Outcome::Failed("needs 3 | 4 <snapshots>".into());
    Report::new(runs, quick()).unwrap()
}

#[test]
fn runs_are_grouped_by_task_and_sorted_by_seed() {
    let report = report();
    let order: Vec<_> = report.runs.iter().map(|run| (run.info.task.as_str(), run.info.seed)).collect();
    assert_eq!(order, [("obqa", 0), ("obqa", 1), ("arc", 0), ("arc", 1)]);
    assert_eq!((report.protocol.as_str(), report.groups.len()), ("clean", 2));
    let info = &report.runs[0].info;
    assert_eq!((info.n_calibration, info.n_sets, info.n_test), (30, 31, 90));
}

/// Equal but for the last digits of numbers, which serde_json's faster parser may change.
fn near(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => {
            let (a, b) = (a.as_f64().unwrap(), b.as_f64().unwrap());
            (a - b).abs() <= 1e-14 * a.abs()
        }
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| near(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| near(a, b)))
        }
        (a, b) => a == b,
    }
}

#[test]
fn json_read_back_is_the_same_report_with_the_same_tables() {
    let report = report();
    let json = report.json().unwrap();
    let read = Report::from_json(&json).unwrap();
    let value = |report: &Report| serde_json::to_value(report).unwrap();
    assert!(near(&value(&read), &value(&report)));
    assert_eq!(read.markdown(), report.markdown());
    let mut changed = report.clone();
    changed.groups[0].rows[0].numbers[0].1.mean += 1e-9;
    assert!(!near(&value(&changed), &value(&report)));
    let version = |n: u64| format!("\"format_version\":{n}");
    let other = json.replacen(&version(REPORT_FORMAT), &version(7), 1);
    let refusal = Report::from_json(&other).map(|_| ()).unwrap_err().to_string();
    assert!(refusal.contains(&format!("must be {REPORT_FORMAT}, got 7")), "{refusal}");
    assert!(Report::from_json("{}").is_err());
}

#[test]
fn a_failed_method_is_a_row_that_says_why() {
    let report = report();
    let row = report.runs[0].rows.last().unwrap();
    assert_eq!((row.name.as_str(), row.cost), ("swag", None));
    assert_eq!(row.outcome, RowOutcome::Failed("needs 3 | 4 <snapshots>".into()));
    assert!(!report.runs[0].paired.as_ref().unwrap().names.contains(&"swag".to_string()));
    assert!(report.html().unwrap().contains("failed: needs 3 | 4 &lt;snapshots&gt;"));
    assert!(report.markdown().contains(r"| swag | failed: needs 3 \| 4 &lt;snapshots> |"));
}

#[test]
fn the_page_escapes_names_and_fetches_nothing() {
    let html = report().html().unwrap();
    assert!(html.contains("<title>A &lt; B &amp; C</title>"));
    assert!(html.contains("&lt;b&gt;laplace&lt;") && !html.contains("<b>laplace"));
    // the prompt of the run
    assert!(html.contains("Question: 1 &lt; 2?"));
    for fetched in ["<link", "<img", "@import", "url(", "src=", "fetch(", "import("] {
        assert!(!html.contains(fetched), "{fetched}");
    }
    assert_eq!(html.matches("<script").count(), 1);
    assert!(html.contains("content=\"default-src 'none'; "));
    assert_eq!(html.matches("http").count(), 1 + html.matches("http://www.w3.org/2000/svg").count());
}

#[test]
fn the_page_says_what_a_reader_must_know() {
    let html = report().html().unwrap();
    for expected in [
        "Protocol <strong>clean</strong>",
        "0123456789abcdef",
        "A (token 7), B (token 7), C (token 7)",
        "300 training, 30 held-out for calibrators, 31 held-out for sets, 90 test, 40 of “foreign”",
        "train 00ff",
        "30 labels for the calibrator",
        "Over the seeds 0, 1",
        "energy: FPR@95",
        "LAC: coverage",
    ] {
        assert!(html.contains(expected), "{expected}");
    }
    // a run has the matrix of five metrics, one of them shown
    assert_eq!(html.matches(" checked>").count(), 4);
    // of several tasks the first screen shows the best of each
    let answer = html.split_once("id=\"answer\"").unwrap().1.split_once("</section>").unwrap().0;
    assert!(answer.contains("obqa") && answer.contains("arc") && answer.matches("class=\"mark").count() == 2 * 2);
    assert_eq!(html.matches("<p class=\"answer\">").count(), 2);
}

#[cfg(feature = "plot")]
#[test]
fn pictures_are_inside_and_of_every_kind() {
    let html = report().html().unwrap();
    for heading in ["Reliability", "Risk and coverage", "Entropy of right, wrong and foreign answers"] {
        assert_eq!(html.matches(&format!("<h4>{heading}</h4>")).count(), 4, "{heading}");
    }
    assert_eq!(html.matches("<h4>Scores with their intervals</h4>").count(), 2);
    // Run obqa 0 has 4 rows, the others 6: 1 + 3·2 of reliability, 4 of risk, 4 of entropy; 2 forests.
    assert_eq!(html.matches("<svg ").count(), 7 + 4 + 4 + 2);
    assert_eq!(html.matches("<table class=\"matrix\">").count(), 5 * 4);
    assert!(!html.contains("@font-face"));
}

#[cfg(feature = "plot")]
#[test]
fn a_forest_has_every_row_and_seed_and_the_least_nll_first() {
    let report = report();
    let group = &report.groups[0];
    let [plot] = &report.forest_plots(group)[..] else { panic!("one plot shows six rows") };
    assert_eq!(plot.series, ["seed 0", "seed 1"]);
    let mean = |name: &String| {
        let row = group.rows.iter().find(|row| row.name == *name).unwrap();
        row.numbers.iter().find(|(number, _)| number == "NLL").unwrap().1.mean
    };
    let means: Vec<f64> = plot.rows.iter().map(mean).collect();
    assert!(means.len() == 6 && means.is_sorted(), "{means:?}");
    let labels: Vec<&str> = plot.panels.iter().map(|panel| panel.label.as_str()).collect();
    assert_eq!(labels, ["NLL in nats", "ECE", "accuracy"]);
    // its method failed for seed 0
    let swag = plot.rows.iter().position(|name| name == "swag").unwrap();
    let (row, summary) = report.runs[1].answered().find(|(row, _)| row.name == "swag").unwrap();
    for panel in &plot.panels {
        assert!(panel.estimates[swag][0].is_none(), "{}", row.name);
    }
    assert_eq!(plot.panels[0].estimates[swag][1], Some(summary.scores.nll));
    assert_eq!(plot.panels[2].estimates[swag][1], Some(summary.scores.accuracy));
}

#[test]
fn the_reference_comes_first_whatever_the_order_of_the_cells() {
    let runs = || vec![synthetic::run("obqa", 0, &["laplace", "maximum likelihood"])];
    let first = |options| Report::new(runs(), options).unwrap().runs[0].rows[0].method.clone();
    assert_eq!(first(quick()), "maximum likelihood");
    assert_eq!(first(ReportOptions { reference: Some("laplace".into()), ..quick() }), "laplace");
}

#[test]
fn seeds_with_test_items_of_their_own_are_said_to_be_so() {
    let report = |hashes: [&str; 2]| {
        let runs = [0, 1].map(|seed| {
            let mut run = synthetic::run("obqa", seed, &["map", "laplace"]);
            run.setting.identity = std::mem::take(&mut run.setting.identity).with("test data", hashes[seed as usize]);
            run
        });
        Report::new(runs.into(), quick()).unwrap()
    };
    let (same, own) = (report(["a", "a"]), report(["a", "b"]));
    assert!(same.groups[0].same_test_items && same.markdown().contains("All seeds have the same test items"));
    assert!(!own.groups[0].same_test_items && own.markdown().contains("Each seed has test items of its own"));
}

#[cfg(feature = "plot")]
#[test]
fn a_report_of_more_rows_and_seeds_than_a_picture_shows_is_still_one() {
    let names: Vec<String> = (0..52).map(|i| format!("method {i}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut runs = vec![synthetic::run("wide", 0, &names)];
    runs.extend((0..13).map(|seed| synthetic::run("long", seed, &["map"])));
    // the last seed stands alone in its plot, and did not answer
    runs[13].cells[0].outcome = Outcome::Failed("no memory".into());
    let report = Report::new(runs, quick()).unwrap();
    let plots: Vec<usize> = report.groups.iter().map(|group| report.forest_plots(group).len()).collect();
    assert_eq!(plots, [2, 1]);
    assert!(report.html().is_ok());
}

#[test]
fn seconds_have_their_machine_and_several_are_told_apart() {
    let mut run = synthetic::run("obqa", 0, &["map", "laplace", "swag"]);
    let note = |run: &Run| Report::new(vec![run.clone()], quick()).unwrap().markdown();
    assert!(note(&run).contains("Seconds of the rows are those of a machine whose name was not kept."));
    let mut on = |cell: usize, machine: &str| {
        let Outcome::Answered(answered) = &mut run.cells[cell].outcome else { panic!("it answered") };
        answered.machine = Some(machine.into());
        note(&run)
    };
    on(0, "old");
    on(1, "new");
    let several = on(2, "old");
    assert!(
        several.contains(
            "Seconds of the rows are of several machines, not to be compared: old (map, swag); new (laplace)."
        )
    );
    assert!(on(1, "old").contains("Seconds of the rows are those of old."));
}

#[test]
fn without_held_out_labels_the_tables_say_so() {
    let mut run = synthetic::run("obqa", 0, &["map", "laplace"]);
    run.setting.held_out.clear();
    for cell in &mut run.cells {
        let Outcome::Answered(answered) = &mut cell.outcome else { panic!("it answered") };
        answered.held_out = None;
    }
    let report = Report::new(vec![run], quick()).unwrap();
    let text = report.markdown();
    assert!(text.contains("There are no held-out labels"));
    assert!(!text.contains("Sets of classes") && !text.contains("+ temperature"));
    // one seed has no spread
    assert!(!text.contains("Over the seeds"));
}

#[test]
fn methods_that_read_held_out_items_are_named_beside_the_sets() {
    let mut run = synthetic::run("obqa", 0, &["map", "tuned"]);
    run.cells[1].extra_data = crate::compare::cell::ExtraData::Labelled(61);
    let report = Report::new(vec![run], quick()).unwrap();
    let text = report.markdown();
    assert!(text.contains("these have read items besides the training data: tuned."), "{text}");
    assert!(text.contains("61 labelled items, 30 labels for the calibrator"));
}

#[test]
fn one_method_has_no_pairs_and_no_answers_at_all_are_still_a_report() {
    let report = Report::new(vec![synthetic::run("obqa", 0, &["map"])], {
        ReportOptions { temperature: crate::compare::MethodSelection::None, ..quick() }
    });
    let report = report.unwrap();
    assert!(report.runs[0].paired.is_none() && !report.markdown().contains("Differences"));
    let mut run = synthetic::run("obqa", 0, &["map"]);
    run.cells[0].outcome = Outcome::Failed("no memory".into());
    let report = Report::new(vec![run], quick()).unwrap();
    assert!(report.html().unwrap().contains("failed: no memory"));
}

#[test]
fn save_leaves_the_three_files_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let inner = dir.path().join("a/b");
    let report = report();
    let files = report.save(&inner).unwrap();
    let mut names: Vec<_> =
        std::fs::read_dir(&inner).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["report.html", "report.json", "report.md"]);
    assert_eq!(std::fs::read_to_string(files.markdown).unwrap(), report.markdown());
    assert_eq!(std::fs::read_to_string(files.json).unwrap(), report.json().unwrap());
}

#[test]
fn the_seeds_table_counts_seeds_orders_columns_and_names_failures() {
    let report = report();
    let table = tables::of_seeds(&report.groups[0], &report.options).unwrap();
    let columns: Vec<&str> = table.columns.iter().map(String::as_str).collect();
    assert_eq!(columns[0], "seeds");
    // the first row, a point, has no mutual information
    let at = |score: &str| columns.iter().position(|c| *c == format!("AUROC foreign, {score}")).unwrap();
    assert_eq!((at("mutual information"), at("energy")), (at("entropy") + 1, at("entropy") + 2));
    let cell = |row: usize, column: usize| table.rows[row].cells[column].text.as_str();
    // the rows of the first method are what every row is compared with
    let n = columns.len();
    assert_eq!(columns[n - 2..], ["P(NLL better than map)", "P(NLL better than map + temperature)"]);
    assert_eq!(cell(0, n - 2), "—");
    let (first, second) = cell(4, n - 2).split_once(" / ").unwrap();
    assert!(first == "—" && second != "—", "{first} {second}");
    assert_eq!((cell(0, 0), cell(0, at("mutual information"))), ("2 of 2", "—"));
    assert_eq!((table.rows[4].name.as_str(), cell(4, 0)), ("swag", "1 of 2"));
    assert!(table.note.ends_with("swag failed for seed 0: needs 3 | 4 <snapshots>."), "{}", table.note);
}

#[test]
fn a_search_that_ended_at_a_bound_is_told_beside_what_it_found_and_in_the_row_of_the_method_alone() {
    let mut run = synthetic::run("obqa", 0, &["map", "laplace"]);
    let Outcome::Answered(answered) = &mut run.cells[1].outcome else { panic!("it answered") };
    let search = Search::new("prior precision", 8.7e6, (1e-3, 8.7e6), SearchEnd::AtUpper);
    answered.searches = vec![search.with_meaning("the held-out items ask for the trained adapter alone")];
    // the cell is kept with its end
    let cell = serde_json::to_string(&run.cells[1]).unwrap();
    assert_eq!(serde_json::from_str::<crate::compare::Cell>(&cell).unwrap(), run.cells[1]);
    let report = Report::new(vec![run], quick()).unwrap();
    let told: Vec<(&str, bool)> = report.runs[0]
        .rows
        .iter()
        .map(|row| {
            (row.name.as_str(), row.caveat.as_ref().is_some_and(|text| text.contains("upper end of its search")))
        })
        .collect();
    assert_eq!(told.iter().filter(|(_, told)| *told).collect::<Vec<_>>(), [&("laplace", true)], "{told:?}");
    assert!(report.markdown().contains("prior precision 8.70e6 is at the upper end of its search"));
}
