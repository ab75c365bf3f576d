//! The page of a report: its size, what it says first, and how a browser shows it.

use bayes_lora::compare::{Outcome, Report, ReportOptions, Run, read_runs};
use std::path::Path;
use std::process::Command;

/// The cells of the full comparison: more than eighteen methods, three seeds.
fn full() -> Vec<Run> {
    read_runs(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/results/compare_quick")).unwrap()
}

fn page(runs: Vec<Run>) -> String {
    let mut options = ReportOptions::default().with_title("Areas & <methods>");
    // a page says the same things of fewer draws
    options.scores.n_draws = 100;
    Report::new(runs, options).unwrap().html().unwrap()
}

const TRAP: &str = "\"'><img src=x onerror=\"throw 1\"></td></pre><script>throw 2</script>{{ 1/0 }}";

/// Two tasks in whose every text a trap lies; one method failed.
fn hostile() -> Vec<Run> {
    let mut runs = full();
    for run in &mut runs {
        run.cells.truncate(5);
        let setting = &mut run.setting;
        for text in [&mut setting.task, &mut setting.model, &mut setting.recipe, &mut setting.prompt_hash] {
            text.push_str(TRAP);
        }
        setting.prompt_example.push_str(TRAP);
        setting.protocol.push_str(TRAP);
        setting.crate_version.push_str(TRAP);
        setting.classes[0].name.push_str(TRAP);
        setting.shifted[0].name.push_str(TRAP);
        for cell in &mut run.cells {
            cell.method.push_str(TRAP);
            cell.description.push_str(TRAP);
            cell.sharing = Some(TRAP.into());
            if let Outcome::Answered(answered) = &mut cell.outcome {
                answered.machine = Some(TRAP.into());
                answered.found.insert(TRAP.into(), 1.0);
            }
        }
        run.cells[3].outcome = Outcome::Failed(TRAP.into());
    }
    let mut other = runs[0].clone();
    other.setting.task = "another task".into();
    runs.push(other);
    runs
}

#[test]
fn the_page_of_the_full_comparison_is_below_two_megabytes() {
    let runs = full();
    assert!(runs.len() == 3 && runs.iter().all(|run| run.cells.len() >= 18));
    let html = page(runs);
    assert!(html.len() < 2_000_000, "{} bytes", html.len());
}

#[test]
fn the_page_says_first_which_row_is_best_and_by_how_much() {
    let html = page(full());
    let answer = html.split_once("id=\"answer\"").unwrap().1.split_once("</section>").unwrap().0;
    for expected in [
        "<strong>deep ensemble + temperature</strong> has the least NLL: 0.867 nats per item, the mean over 3 seeds.",
        "It is clearly better than maximum likelihood: its NLL is 0.223 nats lower on average.",
        "In the least certain seed it is 0.173 nats lower (95 % interval [",
        "P(better) &gt;0.99).",
        "It is not clearly better than the next, checkpoint ensemble + temperature (P(better) 0.98",
        "40 of 45 rows are clearly better than maximum likelihood.",
        "Of the rows that do not, Laplace function space, matched prior, leave-one-out temperature has the least NLL: 0.883.",
        "NLL minus that of maximum likelihood, with 95 % intervals, a line for each seed",
    ] {
        assert!(answer.contains(expected), "{expected}: {answer}");
    }
    assert!(html.find("id=\"answer\"").unwrap() < html.find("<nav").unwrap());
}

#[test]
fn no_text_of_a_run_becomes_markup() {
    let html = page(hostile());
    assert_eq!(html.matches("<script").count(), 1);
    assert!(!html.contains("<img") && !html.contains("onerror=\""));
    assert!(html.contains("&lt;img src=x onerror=&quot;throw 1&quot;&gt;"));
    // a template in a text is text
    assert!(html.contains("{{ 1/0 }}") || html.contains("{{ 1&#x2f;0 }}"));
}

#[test]
#[ignore = "needs python3 and chromium, which .ci/run installs"]
fn the_pages_hold_in_a_browser() {
    let dir = tempfile::tempdir().unwrap();
    // pages and pictures of their first screens stay where a directory is named
    let kept = std::env::var_os("BAYES_LORA_TEST_SHOTS").map(std::path::PathBuf::from);
    let dir = kept.as_deref().unwrap_or(dir.path());
    let one = full().into_iter().take(1).collect();
    let pages = [("full", page(full())), ("one-seed", page(one)), ("hostile", page(hostile()))].map(|(name, html)| {
        let path = dir.join(format!("{name}.html"));
        std::fs::write(&path, html).unwrap();
        path
    });
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/report_page.py");
    let status = Command::new("python3").arg(script).args(pages).arg("--shots").arg(dir).status().unwrap();
    assert!(status.success(), "{status}");
}
