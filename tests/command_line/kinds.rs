//! Texts with labels and with numbers, by the same commands.

use crate::program::{model, program, questions, said};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Short stories that are about one of two animals, with what `label` makes of it.
fn stories(dir: &Path, name: &str, n: usize, label: impl Fn(usize) -> Value) -> PathBuf {
    let places = ["house", "garden", "park", "tree", "road", "box", "bed"];
    let line = |k: usize| {
        let animal = if k.is_multiple_of(2) { "cat" } else { "dog" };
        let text = format!("The {animal} was in the {}. The {animal} was happy.", places[k % places.len()]);
        format!("{}\n", json!({"text": text, "label": label(k)}))
    };
    let path = dir.join(format!("{name}.jsonl"));
    std::fs::write(&path, (0..n).map(line).collect::<String>()).unwrap();
    path
}

/// Trains on a file, answers it, and gives the answers and the summary.
fn learned(dir: &Path, file: &Path, more: &[&str]) -> (Vec<Value>, Value) {
    let (adapter, out) = (dir.join("adapter"), dir.join("answers.jsonl"));
    let mut train = program(["train", "--epochs", "8", "--learning-rate", "1e-2", "--rank", "4"]);
    train.args(more).arg("--model").arg(model()).arg("--train").arg(file).arg("--out").arg(&adapter);
    said(train).well();
    let mut predict = program(["predict", "--json"]);
    predict.arg("--model").arg(model()).arg("--adapter").arg(&adapter).arg("--data").arg(file).arg("--out").arg(&out);
    let summary = said(predict).well().json();
    let text = std::fs::read_to_string(out).unwrap();
    (text.lines().map(|line| serde_json::from_str(line).unwrap()).collect(), summary)
}

#[test]
fn labels_are_learned_and_their_names_are_remembered() {
    let dir = tempfile::tempdir().unwrap();
    let file = stories(dir.path(), "labels", 40, |k| json!(if k.is_multiple_of(2) { "cats" } else { "dogs" }));
    let (answers, summary) = learned(dir.path(), &file, &[]);
    assert_eq!(answers[0]["classes"], json!(["cats", "dogs"]));
    // the word itself stands in the text
    assert!(summary["classes"]["accuracy"]["value"].as_f64().unwrap() > 0.9, "{summary}");
}

#[test]
fn a_fit_centres_a_head_on_the_start_from_which_it_was_trained() {
    let dir = tempfile::tempdir().unwrap();
    let file = stories(dir.path(), "labels", 40, |k| json!(if k.is_multiple_of(2) { "cats" } else { "dogs" }));
    let adapter = dir.path().join("adapter");
    learned(dir.path(), &file, &["--seed", "3"]);
    let trained = std::fs::read(adapter.join("posterior.safetensors")).unwrap();
    let mut fit = program(["fit"]);
    fit.arg("--model").arg(model()).arg("--adapter").arg(&adapter).arg("--train").arg(&file);
    said(fit).well();
    assert!(trained == std::fs::read(adapter.join("posterior.safetensors")).unwrap());
}

#[test]
fn flags_that_mean_nothing_for_what_lines_hold_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let labels = stories(dir.path(), "labels", 4, |k| json!(k % 2));
    let out = dir.path().join("out");
    let train = |file: &Path, flags: &[&str]| {
        let mut train = program(["train"]);
        train.args(flags).arg("--model").arg(model()).arg("--train").arg(file).arg("--out").arg(&out);
        said(train)
    };
    train(&labels, &["--prompt", "area", "--noise-variance", "0.1"]).refused(&[
        "labels",
        "--prompt",
        "--noise-variance",
    ]);
    train(&questions(), &["--form", "continuation", "--classes", "A,B"]).refused(&["choices", "--classes"]);
    train(&questions(), &["--everything"]).refused(&["choices", "--everything"]);
}

#[test]
fn numbers_are_learned_with_the_noise_that_the_evidence_finds() {
    let dir = tempfile::tempdir().unwrap();
    let file = stories(dir.path(), "numbers", 40, |k| json!((k % 2) as f64 + 0.02 * (k % 5) as f64 - 0.5));
    let (answers, summary) = learned(dir.path(), &file, &[]);
    let error = summary["values"]["root_mean_squared_error"].as_f64().unwrap();
    // the numbers have a standard deviation of 0.5
    assert!(error < 0.25, "{summary}");
    let answer = &answers[0];
    let sd = answer["standard_deviation"].as_f64().unwrap();
    let parts = ["aleatoric", "epistemic"].map(|part| answer["uncertainty"][part].as_f64().unwrap());
    assert!((parts[0].hypot(parts[1]) / sd - 1.0).abs() < 1e-9, "{answer}");
    assert!(parts[0] > 0.0 && parts[0] < 0.5, "{answer}");
}
