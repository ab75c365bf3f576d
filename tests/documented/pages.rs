//! Shell blocks that name models which do not ship run as they stand, on stand-ins under those names: what a page tells a reader to type is
//! what the program takes.

use crate::{checkout, said};
use serde_json::{Value, json};
use std::path::Path;

const OPENING: &str = "```sh";
const CLOSING: &str = "```";

/// The commands of a text's shell blocks that begin with one of these words, each with the lines that go on with it; scripts are none.
fn commands(text: &str, programs: &[&str]) -> Vec<String> {
    let (mut all, mut is_shell): (Vec<String>, bool) = (Vec::new(), false);
    let mut goes_on = false;
    for line in text.lines() {
        match line {
            OPENING => is_shell = true,
            // a script's end is that of its block, too
            CLOSING => is_shell = false,
            line if line.starts_with("#!") => is_shell = false,
            line if is_shell && goes_on => *all.last_mut().unwrap() += &format!("\n{line}"),
            line if is_shell => all.push(line.into()),
            _ => continue,
        }
        goes_on = is_shell && line.ends_with('\\');
    }
    let begins = |command: &String| programs.iter().any(|program| command.split_whitespace().next() == Some(program));
    all.into_iter().filter(begins).collect()
}

/// Runs them behind each other; each must end well.
fn run(page: &str, commands: &[String], n: usize, dir: &Path) {
    assert_eq!(commands.len(), n, "{page}: {commands:#?}");
    for command in commands {
        let said = said(command, dir);
        assert!(!said.contains("\nexit code ") && !said.starts_with("exit code "), "{page}: $ {command}\n{said}");
    }
}

/// The commands of a page, of which there are `n`, in a directory with what they name.
fn check(page: &str, n: usize, prepare: impl Fn(&Path)) -> tempfile::TempDir {
    let dir = checkout();
    prepare(dir.path());
    let text = std::fs::read_to_string(dir.path().join(page)).unwrap();
    run(page, &commands(&text, &["bayes-lora"]), n, dir.path());
    dir
}

fn copied(from: &str, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(from)).unwrap().map(Result::unwrap) {
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// The shipped model, with a token for each of ` A` to ` D` in place of its last four, and a chat template, as larger models have.
fn model(dir: &Path, name: &str) {
    let place = dir.join(name);
    copied("assets/stories260K", &place);
    let file = place.join("tokenizer.json");
    let mut tokenizer: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    let vocab = tokenizer["model"]["vocab"].as_object_mut().unwrap();
    let size = vocab.len() as u64;
    vocab.retain(|_, id| id.as_u64().unwrap() < size - 4);
    for (place, letter) in ["A", "B", "C", "D"].into_iter().enumerate() {
        vocab.insert(format!("▁{letter}"), (size - 4 + place as u64).into());
    }
    let merges = tokenizer["model"]["merges"].as_array_mut().unwrap();
    merges.extend(["A", "B", "C", "D"].map(|letter| json!(["▁", letter])));
    std::fs::write(&file, tokenizer.to_string()).unwrap();
    let template = "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{{ eos_token }}\
                    {% endgeneration %}{% else %}{{ m.content }}\n{% endif %}{% endfor %}";
    std::fs::write(place.join("chat_template.jinja"), template).unwrap();
}

/// The first lines of the questions on which the adapter of the fixtures was trained.
fn questions(dir: &Path, name: &str, lines: std::ops::Range<usize>) {
    let text = std::fs::read_to_string(dir.join("tests/fixtures/peft_areas/train.jsonl")).unwrap();
    let part: Vec<&str> = text.lines().skip(lines.start).take(lines.len()).collect();
    std::fs::write(dir.join(name), part.join("\n")).unwrap();
}

fn lines(dir: &Path, name: &str, lines: impl IntoIterator<Item = Value>) {
    std::fs::write(dir.join(name), lines.into_iter().map(|line| format!("{line}\n")).collect::<String>()).unwrap();
}

fn chats(dir: &Path, name: &str) {
    let turn = |role: &str, content: &str| json!({"role": role, "content": content});
    let chat = |asked: &str, said: &str| json!({"messages": [turn("user", asked), turn("assistant", said)]});
    lines(dir, name, [chat("Once upon a time", "there was a cat."), chat("One day", "a dog was sad.")]);
}

/// The adapter that PEFT trained, and what it was trained on.
fn adapter_of_pefts(dir: &Path) {
    model(dir, "SmolLM2-135M-Instruct");
    copied("tests/fixtures/peft_areas", &dir.join("my_adapter"));
    questions(dir, "train.jsonl", 0..12);
    questions(dir, "questions.jsonl", 12..20);
}

#[test]
fn the_front_page_puts_a_posterior_on_an_adapter_of_pefts() {
    let dir = check("README.md", 2, adapter_of_pefts);
    let answers = std::fs::read_to_string(dir.path().join("answers.jsonl")).unwrap();
    assert_eq!(answers.lines().count(), 8);
}

#[test]
fn an_adapter_that_one_has_gets_its_posterior_in_three_ways() {
    let dir = check("docs/start/your_adapter.md", 5, |dir| {
        adapter_of_pefts(dir);
        questions(dir, "held_out.jsonl", 20..30);
        chats(dir, "chats.jsonl");
        lines(dir, "texts.jsonl", [json!({"text": "Once upon a time there was a cat."})]);
    });
    assert!(dir.path().join("my_adapter/posterior.safetensors").exists());
}

#[test]
fn texts_are_labelled_by_an_encoder() {
    let dir = check("docs/start/classifier.md", 2, |dir| {
        let encoder = dir.join("all-MiniLM-L6-v2");
        copied("tests/fixtures/tiny_bert/base", &encoder);
        copied("tests/fixtures/tiny_bert/tokenizer", &encoder);
        let review = |(text, label): (&str, &str)| json!({"text": text, "label": label});
        lines(
            dir,
            "reviews.jsonl",
            [("good", "yes"), ("bad", "no"), ("good good", "yes"), ("bad bad", "no")].map(review),
        );
        lines(dir, "new_reviews.jsonl", [json!({"text": "good bad"})]);
    });
    let answers = std::fs::read_to_string(dir.path().join("answers.jsonl")).unwrap();
    assert!(answers.contains(r#""classes":["no","yes"]"#), "{answers}");
}

#[test]
fn chats_are_learned_scored_and_continued() {
    let dir = check("docs/start/text_model.md", 6, |dir| {
        model(dir, "SmolLM2-135M-Instruct");
        chats(dir, "chats.jsonl");
        chats(dir, "questions.jsonl");
        let record =
            |name: &str| json!({"prompt": "Once upon a time", "completion": format!(r#"{{"name": "{name}"}}"#)});
        lines(dir, "records.jsonl", [record("Tim"), record("Lily")]);
    });
    let scores = std::fs::read_to_string(dir.path().join("scores.jsonl")).unwrap();
    assert!(scores.contains("standard_deviation"), "{scores}");
}

#[test]
fn memory_is_estimated() {
    check("docs/guide/memory.md", 1, |dir| {
        model(dir, "DIR");
        questions(dir, "FILE", 0..8);
    });
}

#[test]
fn parts_of_a_fit_and_of_a_prediction_are_joined() {
    let prepare = |dir: &Path| {
        model(dir, "base");
        copied("tests/fixtures/peft_areas", &dir.join("my_adapter"));
        questions(dir, "train.jsonl", 0..6);
        questions(dir, "questions.jsonl", 12..17);
    };
    let page = "docs/guide/scale.md";
    let dir = check(page, 5, prepare);
    let text = std::fs::read_to_string(dir.path().join(page)).unwrap();
    let [join] = &commands(&text, &["paste"])[..] else { panic!("one line joins the answers") };
    let id = |line: &str| serde_json::from_str::<Value>(line).unwrap()["id"].clone();
    let joined: Vec<Value> = said(join, dir.path()).lines().map(id).collect();
    let asked = std::fs::read_to_string(dir.path().join("questions.jsonl")).unwrap();
    assert_eq!(joined, asked.lines().map(id).collect::<Vec<_>>());

    // the scripts that a scheduler starts, as it starts them
    let (dir, scheduled) =
        (checkout(), "export MODEL=base ADAPTER=my_adapter TRAIN=train.jsonl SLURM_ARRAY_TASK_COUNT=2");
    prepare(dir.path());
    let parts = [0, 1].map(|part| format!("{scheduled} SLURM_ARRAY_TASK_ID={part}; bash examples/scale/fit.sbatch"));
    run("fit.sbatch", &parts, 2, dir.path());
    run("merge.sbatch", &[format!("{scheduled}; bash examples/scale/merge.sbatch")], 1, dir.path());
    assert!(dir.path().join("my_adapter/posterior.safetensors").exists());
    let script = std::fs::read_to_string(dir.path().join("examples/scale/fit.sbatch")).unwrap();
    let of_page = text.split("The array's script, in full:").nth(1).and_then(|rest| rest.split("```").nth(1)).unwrap();
    let without_words = |script: &str| -> Vec<String> {
        script.lines().filter(|line| !line.is_empty() && !line.starts_with("# ")).map(String::from).collect()
    };
    assert_eq!(without_words(of_page.strip_prefix("sh\n").unwrap()), without_words(&script));
}

#[test]
fn commands_are_those_of_shell_blocks_with_the_lines_that_go_on() {
    let text = "```console\n$ a\n```\n\n```sh\na b \\\n  c\nb\na d   # said\n```\na e\n```sh\n#!/bin/sh\na f\n```\n";
    assert_eq!(commands(text, &["a"]), ["a b \\\n  c", "a d   # said"]);
}
