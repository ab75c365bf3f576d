//! What is refused, and with which exit code.

use crate::program::{damaged, model, predict, program, said, short_questions, trained};
use std::path::Path;

#[test]
fn questions_that_are_asked_in_another_way_are_refused_unless_the_user_insists() {
    let dir = tempfile::tempdir().unwrap();
    let questions = short_questions(dir.path(), 3);
    let other = ["--prompt", "question"];
    said(predict(&questions, &other)).refused(&["question_area", "question_answer", "--insist"]);
    let insisted = said(predict(&questions, &["--prompt", "question", "--insist"])).well();
    assert_eq!(insisted.out.lines().count(), 3);
    // the same way in other words
    let same = said(predict(&questions, &["--prompt", "area", "--max-tokens", "16", "--classes", "A,B,C,D"])).well();
    assert_eq!(same.out, said(predict(&questions, &[])).well().out);
    let classes = said(predict(&questions, &["--classes", "D,C,B,A"]));
    classes.refused(&["the class tokens", "`A`", "`D`"]);
}

#[test]
fn flags_that_nothing_would_read_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let questions = short_questions(dir.path(), 3);
    said(predict(&questions, &["--draws", "4"])).refused(&["--draws", "--method sampled"]);
    said(predict(&questions, &["--everything"])).refused(&["choices", "--everything"]);
    let drawn = said(predict(&questions, &["--method", "sampled", "--draws", "2"])).well().out;
    assert!(drawn.contains("sampled-2"), "{drawn}");
    let mut train = program(["train", "--no-posterior", "--prior", "10"]);
    train.arg("--model").arg(model()).arg("--train").arg(&questions).arg("--out").arg(dir.path().join("out"));
    let refusal = said(train);
    assert!(refusal.code == Some(2) && refusal.words.contains("--no-posterior"), "{}", refusal.words);
}

#[test]
fn damage_is_refused_and_another_adapter_too() {
    let dir = tempfile::tempdir().unwrap();
    let questions = short_questions(dir.path(), 3);
    let answer = |adapter: &Path| {
        let mut program = program(["predict"]);
        program.arg("--model").arg(model()).arg("--adapter").arg(adapter).arg("--data").arg(&questions);
        said(program)
    };
    let (posterior, adapter) = (dir.path().join("posterior"), dir.path().join("adapter"));
    damaged(trained(), "posterior.safetensors", &posterior);
    answer(&posterior).refused(&["posterior.safetensors: ", "damaged"]);
    damaged(trained(), "adapter_model.safetensors", &adapter);
    answer(&adapter).refused(&["about the adapter at which it was fitted"]);
}

#[test]
fn a_wrong_command_line_ends_with_2_and_a_wrong_line_with_1_and_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let questions = short_questions(dir.path(), 3);
    for wrong in [&["--methods", "map"][..], &["--method", "best"], &["--shard", "3/3"], &["--draws", "few"]] {
        let said = said(predict(&questions, wrong));
        assert_eq!(said.code, Some(2), "{wrong:?}: {}", said.words);
    }
    assert_eq!(said(program(["predict"])).code, Some(2));
    let text = std::fs::read_to_string(&questions).unwrap();
    std::fs::write(&questions, format!("{text}{{\"id\": \"x\", \"question\": \"?\", \"choices\": [\"one\"]}}\n"))
        .unwrap();
    said(predict(&questions, &[])).refused(&["short-3.jsonl:4", "at least 2"]);
    std::fs::write(&questions, "").unwrap();
    said(predict(&questions, &[])).refused(&["short-3.jsonl"]);
    said(predict(&dir.path().join("none.jsonl"), &[])).refused(&["none.jsonl"]);
}
