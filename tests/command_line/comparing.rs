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

/// Texts with a number, of which the word tells most.
fn numbers(path: &Path, n: usize, shift: usize) {
    let line = |k: usize| {
        let k = k + shift;
        let (animal, place) = (["cat", "dog"][k % 2], ["house", "garden", "park", "box"][k % 4]);
        let value = (k % 2) as f64 + 0.1 * ((k * 7) % 11) as f64;
        format!("{{\"text\": \"The {animal} {k} was in the {place}.\", \"label\": {value:.2}}}\n")
    };
    std::fs::write(path, (0..n).map(line).collect::<String>()).unwrap();
}

#[test]
fn numbers_are_compared_by_density_error_and_intervals_in_shards_that_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let (train, test, out) = (dir.path().join("numbers.jsonl"), dir.path().join("test.jsonl"), dir.path().join("out"));
    numbers(&train, 40, 0);
    numbers(&test, 20, 40);
    let compare = |words: &[&str]| {
        let mut program = program(["compare", "--json", "--methods", "mle,kronecker,ensemble", "--members", "2"]);
        program.args(["--learning-rate", "5e-3", "--n-held-out", "10", "--seeds", "0,1"]).args(words);
        program.arg("--model").arg(model()).arg("--train").arg(&train).arg("--test").arg(&test).arg("--out").arg(&out);
        said(program)
    };
    let told = compare(&["--shard", "1/2"]).well().json();
    assert_eq!(told["seeds"], serde_json::json!([1]));
    // a task has the name of its folder, too
    let task = std::fs::read_dir(&out).unwrap().next().unwrap().unwrap().path();
    let cell = task.join("seed-1/laplace-kronecker.json");
    let before = std::fs::read(&cell).unwrap();
    let told = compare(&[]).well().json();
    assert!(std::fs::read(&cell).unwrap() == before);
    assert_eq!((&told["n_test"], told["rows"].as_array().unwrap().len()), (&20.into(), 3));
    for row in told["rows"].as_array().unwrap() {
        let score = |name: &str| row["scores"][name]["value"].as_f64().unwrap();
        assert!(score("rmse") > 0.0 && score("crps") > 0.0 && score("crps") < score("rmse"), "{row}");
        assert!(score("inside_50") <= score("inside_90") && score("inside_90") <= score("inside_95"), "{row}");
        assert!(score("nll").is_finite() && row["scores"].get("accuracy").is_none(), "{row}");
    }
    assert!(told["best"]["name"].is_string());
    let page = std::fs::read_to_string(out.join("report.html")).unwrap();
    assert!(page.contains("RMSE") && page.contains("<svg"));
    compare(&["--methods", "mle,tfb"]).refused(&["`tfb`", "classes alone", "kronecker-matched"]);
    compare(&["--sets", "aps", "--vector-scaling"]).refused(&["values", "--sets", "--vector-scaling"]);
}

#[test]
fn what_cannot_be_compared_and_flags_without_meaning_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("comparison");
    let texts = dir.path().join("texts.jsonl");
    std::fs::write(&texts, "{\"text\": \"a cat\"}\n{\"text\": \"a dog\"}\n").unwrap();
    compare(&texts, &out, &[]).refused(&["texts", "preferences can be compared"]);
    compare(&questions(), &out, &["--everything"]).refused(&["choices", "--everything"]);
    let labels = dir.path().join("labels.jsonl");
    std::fs::write(&labels, "{\"text\": \"a cat\", \"label\": 0}\n{\"text\": \"a dog\", \"label\": 1}\n").unwrap();
    compare(&labels, &out, &["--form", "continuation"]).refused(&["labels", "--form"]);
}
