//! `compare` over kinds of data, and what it refuses.

use crate::program::{Said, model, program, questions, said};
use std::path::Path;

fn compare(train: &Path, out: &Path, words: &[&str]) -> Said {
    let mut program = program(["compare", "--json"]);
    program.args(words).arg("--model").arg(model()).arg("--train").arg(train).arg("--test").arg(train);
    program.arg("--out").arg(out);
    said(program)
}

#[test]
fn preferences_are_compared_as_questions_with_two_answers() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("comparison");
    let pairs = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/documented/preferences.jsonl");
    let words = ["--methods", "mle,kronecker-loo,ensemble", "--members", "2", "--n-train", "24", "--n-held-out", "8"];
    let words = [&words[..], &["--learning-rate", "2e-3", "--seeds", "0,1"]].concat();
    // the parts of two processes, then the report
    for part in 0..2 {
        let shard = format!("{part}/2");
        let told = compare(&pairs, &out, &[&words[..], &["--shard", &shard]].concat()).well().json();
        assert_eq!((&told["seeds"], &told["shard"]), (&[part].as_slice().into(), &format!("{part}-of-2").into()));
    }
    let told = compare(&pairs, &out, &words).well().json();
    let names: Vec<&str> = told["rows"].as_array().unwrap().iter().map(|row| row["name"].as_str().unwrap()).collect();
    assert!(names.len() >= 6 && names.contains(&"maximum likelihood") && names.contains(&"deep ensemble"), "{names:?}");
    assert!(
        told["rows"].as_array().unwrap().iter().all(|row| row["failures"].as_array().unwrap().is_empty()),
        "{told}"
    );
    // two answers: chance is ln 2
    let nll = told["rows"][0]["scores"]["nll"]["value"].as_f64().unwrap();
    assert!(nll > 0.0 && nll < 1.0, "{nll}");
    assert!(out.join("report.html").exists());
}

#[test]
fn what_cannot_be_compared_and_flags_without_meaning_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("comparison");
    let numbers = dir.path().join("numbers.jsonl");
    std::fs::write(&numbers, "{\"text\": \"a cat\", \"label\": 0.5}\n{\"text\": \"a dog\", \"label\": 1.5}\n").unwrap();
    compare(&numbers, &out, &[]).refused(&["values", "preferences can be compared"]);
    compare(&questions(), &out, &["--everything"]).refused(&["choices", "--everything"]);
    let labels = dir.path().join("labels.jsonl");
    std::fs::write(&labels, "{\"text\": \"a cat\", \"label\": 0}\n{\"text\": \"a dog\", \"label\": 1}\n").unwrap();
    compare(&labels, &out, &["--form", "continuation"]).refused(&["labels", "--form"]);
}
