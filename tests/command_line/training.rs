//! `train` and `fit`.

use crate::program::{ASKED, bytes, fit, model, predict, program, questions, said, short_questions, train, trained};
use std::process::Stdio;

#[test]
fn what_a_fresh_process_answers_is_what_a_fit_on_the_same_adapter_answers() {
    let dir = tempfile::tempdir().unwrap();
    let questions = short_questions(dir.path(), 300);
    let answers = said(predict(&questions, &["--quiet"])).well().out;
    assert_eq!(answers.lines().count(), 300);

    let again = dir.path().join("again.safetensors");
    let said_of_fit = said(fit(&["--json"], &again)).well();
    assert_eq!(said_of_fit.json()["items"], 64);
    let posterior = again.to_str().unwrap();
    assert_eq!(said(predict(&questions, &["--posterior", posterior])).well().out, answers);

    // the same lines through a pipe, without their answers
    let text = String::from_utf8(bytes(&questions)).unwrap();
    let lines: Vec<String> = text
        .lines()
        .map(|line| {
            let mut item: serde_json::Value = serde_json::from_str(line).unwrap();
            item.as_object_mut().unwrap().remove("answer");
            item.to_string()
        })
        .collect();
    let bare = dir.path().join("bare.jsonl");
    std::fs::write(&bare, lines.join("\n")).unwrap();
    let mut stream = predict("-".as_ref(), &[]);
    stream.stdin(Stdio::from(std::fs::File::open(&bare).unwrap()));
    let streamed = said(stream).well();
    assert_eq!(streamed.out, answers);
    assert!(
        streamed.words.contains("300 lines answered") && !streamed.words.contains("accuracy"),
        "{}",
        streamed.words
    );
}

#[test]
fn the_settings_beside_a_result_repeat_it_to_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let (settings, again) = (trained().join("run.toml"), dir.path().join("again"));
    let mut repeated = program(["train", "--config"]);
    repeated.arg(&settings).arg("--out").arg(&again);
    said(repeated).well();
    for file in ["adapter_model.safetensors", "posterior.safetensors", "adapter_config.json"] {
        assert!(bytes(trained().join(file)) == bytes(again.join(file)), "{file}");
    }
    let files: Vec<String> =
        std::fs::read_dir(&again).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(files.len(), 4, "{files:?}");
}

#[test]
fn a_directory_for_unfinished_work_keeps_what_others_have_there() {
    let dir = tempfile::tempdir().unwrap();
    let (scratch, out) = (dir.path().join("scratch"), dir.path().join("again.safetensors"));
    std::fs::create_dir(&scratch).unwrap();
    std::fs::write(scratch.join("thesis.tex"), "years of work").unwrap();
    said(fit(&["--unfinished", scratch.to_str().unwrap()], &out)).well();
    let left: Vec<_> = std::fs::read_dir(&scratch).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["thesis.tex"]);
}

#[test]
fn without_a_posterior_the_trained_adapter_answers_alone_where_that_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let adapter = dir.path().join("adapter");
    let mut train = program(["train", "--no-posterior", "--json", "--epochs", "1", "--rank", "2", "--n-train", "16"]);
    train.args(ASKED).arg("--model").arg(model()).arg("--train").arg(questions()).arg("--out").arg(&adapter);
    let made = said(train).well().json();
    assert_eq!((&made["posterior"], &made["items"]), (&serde_json::Value::Null, &16.into()));
    assert!(!adapter.join("posterior.safetensors").exists() && !adapter.join("unfinished").exists());

    let questions = short_questions(dir.path(), 4);
    let answer = |more: &[&str]| {
        let mut program = program(["predict"]);
        program.args(more).args(ASKED).arg("--model").arg(model()).arg("--adapter").arg(&adapter);
        program.arg("--data").arg(&questions);
        said(program)
    };
    answer(&[]).refused(&["there is no posterior", "--method map"]);
    let answers = answer(&["--method", "map", "--task", "choices"]).well();
    assert!(answers.out.lines().count() == 4 && answers.out.contains("\"method\":\"map\""), "{}", answers.out);
}

#[test]
fn a_training_that_is_interrupted_keeps_its_work_and_goes_on_to_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("adapter");
    // long enough to be met in the middle
    let long = |out: &std::path::Path| {
        let mut program = program(["train", "--no-posterior", "--epochs", "6", "--rank", "4", "--n-train", "128"]);
        program.args(ASKED).arg("--model").arg(model()).arg("--train").arg(questions()).arg("--out").arg(out);
        program
    };
    let child = long(&out).spawn().unwrap();
    while !out.join("unfinished").exists() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let signal = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(signal.success());
    let ended = child.wait_with_output().unwrap();
    let words = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(ended.status.code(), Some(130), "{words}");
    assert!(words.contains("the same command goes on from there"), "{words}");
    said(long(&out)).well();
    let undisturbed = dir.path().join("undisturbed");
    said(long(&undisturbed)).well();
    let file = "adapter_model.safetensors";
    assert!(bytes(out.join(file)) == bytes(undisturbed.join(file)));
    assert!(!out.join("unfinished").exists());
    // a second training in the same place takes it
    train(&out).well();
}
