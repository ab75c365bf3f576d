//! `score` and `generate` into files: what they sum up, and what repeats them.

use crate::program::{model, program, said};
use serde_json::Value;
use std::path::Path;

fn run(words: &[&str], out: &Path) -> crate::program::Said {
    let mut program = program(words);
    program.arg("--model").arg(model()).arg("--out").arg(out);
    said(program)
}

fn lines(file: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(file).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn sum(lines: &[Value], field: &str) -> f64 {
    lines.iter().map(|line| line[field].as_f64().unwrap()).sum()
}

/// `OUT.run.toml` beside a result gives the same bytes again.
fn assert_repeated(command: &str, out: &Path) {
    let first = std::fs::read(out).unwrap();
    std::fs::remove_file(out).unwrap();
    let mut again = program([command, "--config"]);
    again.arg(format!("{}.run.toml", out.display()));
    said(again).well();
    assert!(first == std::fs::read(out).unwrap());
}

#[test]
fn scores_in_a_file_are_summed_up_as_json() {
    let dir = tempfile::tempdir().unwrap();
    let (data, out) = (dir.path().join("texts.jsonl"), dir.path().join("scores.jsonl"));
    let text = "{\"text\": \"Once upon a time there was a cat.\"}\n{\"text\": \"The dog was sad. The cat was not.\"}\n";
    std::fs::write(&data, text).unwrap();
    let words = ["score", "--json", "--quiet", "--max-tokens", "10", "--data", data.to_str().unwrap()];
    let told = run(&words, &out).well();
    let (told, scores) = (told.json(), lines(&out));
    let n_tokens: usize = scores.iter().map(|score| score["tokens"].as_array().unwrap().len()).sum();
    assert_eq!((told["texts"].as_u64(), told["tokens"].as_u64()), (Some(2), Some(n_tokens as u64)));
    let shortened = scores.iter().filter(|score| score["shortened"] == true).count();
    assert!(shortened > 0 && told["shortened"].as_u64() == Some(shortened as u64), "{told}");
    let all = sum(&scores, "log_likelihood");
    assert!((told["log_likelihood"].as_f64().unwrap() - all).abs() < 1e-9, "{told}");
    assert!((told["per_token"].as_f64().unwrap() - all / n_tokens as f64).abs() < 1e-9, "{told}");
    assert_eq!(told["out"].as_str(), out.to_str());
    assert_repeated("score", &out);
}

#[test]
fn answers_in_a_file_are_summed_up_as_json() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("answers.jsonl");
    let words =
        ["generate", "--json", "--prompt", "Once", "--prompt", "One day", "--max-new-tokens", "3", "--seed", "1"];
    let told = run(&[&words[..], &["--temperature", "0.8"]].concat(), &out).well().json();
    let answers = lines(&out);
    assert_eq!((&told["answers"], &told["tokens"], &told["cut"]), (&2.into(), &6.into(), &2.into()));
    let log = sum(&answers, "log_probability") / 6.0;
    assert!((told["mean_log_probability"].as_f64().unwrap() - log).abs() < 1e-12, "{told}");
    let entropy = answers.iter().map(|answer| 3.0 * answer["mean_entropy"].as_f64().unwrap()).sum::<f64>() / 6.0;
    assert!((told["mean_entropy"].as_f64().unwrap() - entropy).abs() < 1e-12, "{told}");
    assert!(told.get("mean_mutual_information").is_none(), "without a posterior: {told}");
    assert_repeated("generate", &out);
}

#[test]
fn flags_of_generation_that_would_change_nothing_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("answers.jsonl");
    let generate = |words: &[&str]| run(&[&["generate", "--prompt", "Once"], words].concat(), &out);
    generate(&["--draws", "4"]).refused(&["--draws", "no posterior"]);
    generate(&["--temperature", "0", "--top-k", "3"]).refused(&["--temperature 0", "--top-k"]);
    let data = dir.path().join("chat.jsonl");
    std::fs::write(&data, "{\"messages\": [{\"role\": \"user\", \"content\": \"Once\"}]}\n").unwrap();
    run(&["generate", "--raw", "--data", data.to_str().unwrap()], &out).refused(&["chat.jsonl:1", "--raw"]);
    // its fields in order, which a reader of structures would take
    std::fs::write(&data, "[\"a\", \"Once\", null]\n").unwrap();
    run(&["generate", "--data", data.to_str().unwrap()], &out).refused(&["chat.jsonl:1", "not a JSON object"]);
    assert!(!out.exists());
    let mut chat = program(["chat", "--json"]);
    chat.arg("--model").arg(model());
    said(chat).refused(&["--json"]);
}
