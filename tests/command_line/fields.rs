//! Scores of the fields of answers in JSON.

use super::program::{model, program, said};
use serde_json::Value;
use std::path::{Path, PathBuf};

fn file(dir: &Path, name: &str, lines: &[Value]) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, lines.iter().map(|line| format!("{line}\n")).collect::<String>()).unwrap();
    path
}

fn record(id: &str, completion: &str) -> Value {
    serde_json::json!({"id": id, "prompt": "Who came in?", "completion": completion})
}

#[test]
fn every_field_of_an_answer_is_scored_and_an_answer_without_fields_is_refused_with_its_line() {
    let dir = tempfile::tempdir().unwrap();
    let lines = [record("a", r#" {"name": "Bo", "tags": ["guest", true]}"#), record("b", r#" {"name": "Lu"}"#)];
    let data = file(dir.path(), "records.jsonl", &lines);
    let adapter = dir.path().join("adapter");
    // an adapter on the output head among them
    let mut train = program(["train", "--epochs", "1", "--rank", "2", "--structure", "diagonal"]);
    train.args(["--targets", "q_proj,v_proj,lm_head"]);
    train.arg("--model").arg(model()).arg("--train").arg(&data).arg("--out").arg(&adapter);
    said(train).well();
    let score = |data: &Path, more: &[&str]| {
        let mut score = program(["score"]);
        score.args(more).arg("--model").arg(model()).arg("--adapter").arg(&adapter).arg("--data").arg(data);
        said(score)
    };
    let said = score(&data, &["--fields"]).well();
    let answers: Vec<Value> = said.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let fields = answers[0]["fields"].as_array().unwrap();
    let paths: Vec<&str> = fields.iter().map(|field| field["path"].as_str().unwrap()).collect();
    assert_eq!(paths, ["name", "tags[0]", "tags[1]"]);
    assert_eq!((&fields[0]["value"], &fields[2]["value"]), (&Value::from("Bo"), &Value::from(true)));
    for answer in &answers {
        let number = |value: &Value| value.as_f64().unwrap();
        let fields = answer["fields"].as_array().unwrap();
        let sum: f64 = fields.iter().map(|field| number(&field["log_likelihood"])).sum();
        // a network in f32 gives the whole by another sum than its tokens
        let whole = number(&answer["log_likelihood"]);
        assert!((sum + number(&answer["rest"]) - whole).abs() < 1e-9 * whole.abs());
        assert!(fields.iter().all(|field| number(&field["standard_deviation"]) > 0.0));
        assert!(fields.iter().all(|field| number(&field["tokens"][0]["entropy"]) > 0.0));
    }
    // without the flag nothing is said of fields
    assert!(!score(&data, &[]).well().out.contains("fields"));
    let wrong = file(dir.path(), "wrong.jsonl", &[record("a", " {\"a\": 1}"), record("b", " no idea")]);
    score(&wrong, &["--fields"]).refused(&["wrong.jsonl:2", "answer of text `b`", "no JSON", "line 1 column"]);
}
