//! `fit --shard` and `merge curvature`.

use crate::program::{ASKED, Said, fit, model, predict, program, questions, said, short_questions, trained};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What f32 sums over batches of other sizes may leave in a posterior.
const TOLERANCE: f64 = 1e-4;

fn shard_files(posterior: &Path, of: usize) -> Vec<PathBuf> {
    (0..of).map(|index| posterior.with_extension(format!("shard-{index}-of-{of}.safetensors"))).collect()
}

/// Sums shard `index` of `of`.
fn sum(structure: &str, (index, of): (usize, usize), posterior: &Path) -> std::process::Command {
    fit(&["--structure", structure, "--shard", &format!("{index}/{of}")], posterior)
}

fn merge(files: &[PathBuf], posterior: &Path, more: &[&str]) -> Said {
    let mut program = program(["merge", "curvature"]);
    program.args(files).arg("--model").arg(model()).arg("--adapter").arg(trained());
    program.arg("--posterior").arg(posterior).arg("--json").args(more);
    said(program)
}

fn numbers(value: &Value) -> Vec<f64> {
    match value {
        Value::Array(values) => values.iter().flat_map(numbers).collect(),
        other => other.as_f64().into_iter().collect(),
    }
}

fn assert_close(what: &str, found: &[f64], expected: &[f64]) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (a, b) in found.iter().zip(expected) {
        assert!((a - b).abs() <= TOLERANCE * b.abs().max(1.0), "{what}: {a} and {b}");
    }
}

/// Probabilities of a posterior's answers.
fn answers(questions: &Path, posterior: &Path) -> Vec<f64> {
    let said = said(predict(questions, &["--posterior", posterior.to_str().unwrap()])).well();
    let line = |line: &str| numbers(&serde_json::from_str::<Value>(line).unwrap()["probabilities"]);
    said.out.lines().flat_map(line).collect()
}

#[test]
fn four_processes_one_of_them_killed_twice_make_the_posterior_of_one() {
    let dir = tempfile::tempdir().unwrap();
    let asked = short_questions(dir.path(), 16);
    for (number, structure) in ["Kronecker", "core space", "function space"].into_iter().enumerate() {
        let at = |name: &str| dir.path().join(format!("{name}-{number}.safetensors"));
        let (alone, merged) = (at("alone"), at("merged"));
        let sums: Vec<_> = (0..4).map(|index| sum(structure, (index, 4), &merged).spawn().unwrap()).collect();
        for (index, mut child) in sums.into_iter().enumerate() {
            if index == 2 {
                std::thread::sleep(Duration::from_millis(100));
                child.kill().unwrap();
            }
            child.wait().unwrap();
        }
        let mut second = sum(structure, (2, 4), &merged).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(250));
        second.kill().unwrap();
        second.wait().unwrap();
        said(sum(structure, (2, 4), &merged)).well();

        let single = said(fit(&["--structure", structure, "--prior", "evidence", "--json"], &alone)).well().json();
        let joined = merge(&shard_files(&merged, 4), &merged, &["--prior", "evidence"]).well().json();
        for quantity in ["prior_precisions", "log_evidence", "effective_dimension"] {
            assert_close(&format!("{structure}: {quantity}"), &numbers(&joined[quantity]), &numbers(&single[quantity]));
        }
        assert_eq!(joined["items"], 64);
        assert_close(structure, &answers(&asked, &merged), &answers(&asked, &alone));
        // the parts are still there, and nothing else is
        assert!(shard_files(&merged, 4).iter().all(|file| file.is_file()));
    }
}

#[test]
fn a_matched_prior_is_found_on_the_training_items() {
    let dir = tempfile::tempdir().unwrap();
    let merged = dir.path().join("merged.safetensors");
    let alone = dir.path().join("alone.safetensors");
    (0..2).for_each(|index| drop(said(sum("Kronecker", (index, 2), &merged)).well()));
    let train = questions();
    let data: Vec<&str> = ["--n-train", "64", "--train", train.to_str().unwrap()].into_iter().chain(ASKED).collect();
    let files = shard_files(&merged, 2);
    let joined = merge(&files, &merged, &data).well().json();
    let single = said(fit(&["--json"], &alone)).well().json();
    for quantity in ["prior_precisions", "temperature"] {
        assert_close(quantity, &numbers(&joined[quantity]), &numbers(&single[quantity]));
    }
    merge(&files, &merged, &[]).refused(&["training items", "--prior evidence"]);
    // other items than the sums are of
    let fewer: Vec<&str> = ["--n-train", "32", "--train", train.to_str().unwrap()].into_iter().chain(ASKED).collect();
    merge(&files, &merged, &fewer).refused(&["64 items", "32"]);
}

#[test]
fn shards_that_are_missing_doubled_or_foreign_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let (posterior, other) = (dir.path().join("p.safetensors"), dir.path().join("other.safetensors"));
    (0..3).for_each(|index| drop(said(sum("core space", (index, 3), &posterior)).well()));
    let files = shard_files(&posterior, 3);
    let evidence = ["--prior", "evidence"];
    let merged = |files: &[PathBuf]| merge(files, &posterior, &evidence);
    merged(&files[..2]).refused(&["2 of 3 shards", "missing are 2"]);
    let doubled = dir.path().join("copy.safetensors");
    std::fs::copy(&files[1], &doubled).unwrap();
    let all: Vec<PathBuf> = files.iter().cloned().chain([doubled]).collect();
    merged(&all).refused(&["copy.safetensors", "is part 1 of 3", "p.shard-1-of-3"]);

    let mut foreign = sum("core space", (2, 3), &other);
    foreign.args(["--seed", "1"]);
    said(foreign).well();
    let mixed = [&files[..2], &shard_files(&other, 3)[2..]].concat();
    merged(&mixed).refused(&["other.shard-2-of-3", "64 items with hash", "p.shard-0-of-3"]);
    merged(&[trained().join("posterior.safetensors")]).refused(&["posterior.safetensors", "bayes_lora_shard"]);
    let mut content = std::fs::read(&files[0]).unwrap();
    let end = content.len() - 5;
    content[end] ^= 1;
    std::fs::write(&files[0], content).unwrap();
    merged(&files).refused(&["p.shard-0-of-3", "damaged"]);
    said(fit(&["--structure", "EKFAC", "--shard", "0/2"], &posterior)).refused(&["EKFAC", "second pass"]);
    assert_eq!(said(fit(&["--shard", "2/2"], &posterior)).code, Some(2));
}

#[test]
fn flags_that_say_otherwise_than_the_sums_are_refused_with_both_values() {
    let dir = tempfile::tempdir().unwrap();
    let posterior = dir.path().join("p.safetensors");
    (0..2).for_each(|index| drop(said(sum("core space", (index, 2), &posterior)).well()));
    let files = shard_files(&posterior, 2);
    let merged = |words: &[&str]| merge(&files, &posterior, &[&["--prior", "evidence"], words].concat());
    merged(&["--structure", "Kronecker"]).refused(&["`--structure Kronecker`", "`core space`"]);
    merged(&["--fisher", "3"]).refused(&["`--fisher 3`", "`exact`"]);
    merged(&["--noise-variance", "0.5"]).refused(&["noise_variance 0.5", "categorical"]);
    merged(&["--prompt", "question"]).refused(&["question_answer", "question_area"]);
    merged(&["--everything"]).refused(&["--everything"]);
    merged(&["--n-train", "64"]).refused(&["--n-train", "--train"]);
    assert!(!posterior.exists());
    // what the fits were told may be said again
    let again = ["--structure", "core space", "--fisher", "exact", "--prompt", "area", "--max-tokens", "16"];
    assert_eq!(merged(&again).well().json()["structure"], "core space");
    let shard = |words: &[&str]| said(fit(&[&["--shard", "0/2"], words].concat(), &posterior)).code;
    assert_eq!(shard(&["--n-held-out", "8"]), Some(2), "no item is held out while sums are made");
}
