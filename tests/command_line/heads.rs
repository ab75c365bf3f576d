//! Preferences as texts and as chats, and adapters merged with their heads.

use crate::program::{model, program, said};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

fn write(dir: &Path, name: &str, lines: &[Value]) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, lines.iter().map(|line| format!("{line}\n")).collect::<String>()).unwrap();
    path
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(|entry| entry.unwrap()) {
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

fn train(model: &Path, file: &Path, out: &Path) {
    let mut train = program(["train", "--epochs", "1", "--rank", "2", "--quiet"]);
    train.arg("--model").arg(model).arg("--train").arg(file).arg("--out").arg(out);
    said(train).well();
}

fn answers(model: &Path, adapter: &Path, file: &Path) -> Vec<Value> {
    let mut predict = program(["predict", "--quiet"]);
    predict.arg("--model").arg(model).arg("--adapter").arg(adapter).arg("--data").arg(file);
    let out = said(predict).well().out;
    out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn config(dir: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(dir.join("config.json")).unwrap()).unwrap()
}

#[test]
fn a_question_with_a_choice_called_chosen_is_a_question() {
    let dir = tempfile::tempdir().unwrap();
    let pair = |k: usize| {
        let (good, bad) = ("The cat was happy.", "The cat was a box.");
        json!({"prompt": format!("Story {k}."), "chosen": good, "rejected": bad})
    };
    let pairs = write(dir.path(), "pairs.jsonl", &(0..8).map(pair).collect::<Vec<_>>());
    let adapter = dir.path().join("adapter");
    train(&model(), &pairs, &adapter);
    let question = json!({"id": "q", "question": "It was", "choices": ["chosen", "not chosen", "lost"]});
    let file = write(dir.path(), "questions.jsonl", &[question, pair(3)]);
    let answers = answers(&model(), &adapter, &file);
    assert_eq!(answers[0]["answers"], json!(["chosen", "not chosen", "lost"]));
    assert_eq!(answers[0]["rewards"].as_array().unwrap().len(), 3);
    assert_eq!(answers[1]["answers"].as_array().unwrap().len(), 2);
}

#[test]
fn preferences_may_be_chats_which_the_posterior_remembers() {
    let dir = tempfile::tempdir().unwrap();
    let chatty = dir.path().join("model");
    copy(&model(), &chatty);
    let template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}";
    std::fs::write(chatty.join("chat_template.jinja"), template).unwrap();
    let turn = |role: &str, content: &str| json!({"role": role, "content": content});
    let pair = |k: usize| {
        let prompt = turn("user", &format!("Tell me of cat {k}."));
        let [good, bad] = ["The cat was happy.", "Go away."].map(|said| turn("assistant", said));
        match k % 3 {
            0 => json!({"prompt": [prompt], "chosen": [good], "rejected": [bad]}),
            1 => json!({"prompt": prompt["content"], "chosen": [good], "rejected": [bad]}),
            _ => json!({"chosen": [prompt, good], "rejected": [prompt, bad]}),
        }
    };
    let pairs = write(dir.path(), "pairs.jsonl", &(0..9).map(pair).collect::<Vec<_>>());
    let adapter = dir.path().join("adapter");
    train(&chatty, &pairs, &adapter);
    let as_text = json!({"id": "q", "question": "Tell me of cat 1.", "choices": ["The cat was happy.", "Go away."]});
    let file = write(dir.path(), "asked.jsonl", &[pair(0), as_text]);
    let answers = answers(&chatty, &adapter, &file);
    assert_eq!(answers[0]["answers"].as_array().unwrap().len(), 2);
    assert_eq!(answers[1]["rewards"].as_array().unwrap().len(), 2);
    // a model without a template cannot ask so
    let mut refused = program(["train", "--quiet"]);
    refused.arg("--model").arg(model()).arg("--train").arg(&pairs).arg("--out").arg(dir.path().join("none"));
    said(refused).refused(&["chat template"]);
    let apart = json!({"chosen": [turn("user", "a"), turn("assistant", "b")], "rejected": [turn("user", "c"), turn("assistant", "d")]});
    let file = write(dir.path(), "apart.jsonl", &[pair(0), apart]);
    let mut refused = program(["train", "--quiet"]);
    refused.arg("--model").arg(&chatty).arg("--train").arg(file).arg("--out").arg(dir.path().join("none"));
    said(refused).refused(&["apart.jsonl:2", "no `prompt`"]);
}

#[test]
fn an_adapter_is_merged_with_the_head_of_its_labels_and_their_names() {
    let dir = tempfile::tempdir().unwrap();
    let line = |k: usize| {
        let (animal, label) = if k.is_multiple_of(2) { ("cat", "cats") } else { ("dog", "dogs") };
        json!({"text": format!("The {animal} was in the park."), "label": label})
    };
    let file = write(dir.path(), "labels.jsonl", &(0..8).map(line).collect::<Vec<_>>());
    let (adapter, merged) = (dir.path().join("adapter"), dir.path().join("merged"));
    train(&model(), &file, &adapter);
    let mut merge = program(["merge", "adapter", "--json"]);
    merge.arg("--model").arg(model()).arg("--adapter").arg(&adapter).arg("--out").arg(&merged);
    let report = said(merge).well().json();
    assert!(report["largest_difference"].as_f64().unwrap() < 1e-3, "{report}");
    assert_eq!(config(&merged)["id2label"], json!({"0": "cats", "1": "dogs"}));
    assert_eq!(config(&merged)["architectures"], json!(["LlamaForSequenceClassification"]));
    // its head is where the next training starts
    train(&merged, &file, &dir.path().join("further"));
}

#[test]
fn an_adapter_of_an_encoder_is_merged() {
    let dir = tempfile::tempdir().unwrap();
    let (base, merged) = (dir.path().join("base"), dir.path().join("merged"));
    for part in ["base", "tokenizer"] {
        copy(&fixtures().join("tiny_bert").join(part), &base);
    }
    let mut merge = program(["merge", "adapter", "--json"]);
    merge
        .arg("--model")
        .arg(&base)
        .arg("--adapter")
        .arg(fixtures().join("tiny_bert/adapter"))
        .arg("--out")
        .arg(&merged);
    let report = said(merge).well().json();
    assert!(
        report["modules"].as_u64().unwrap() > 0 && report["largest_difference"].as_f64().unwrap() < 1e-5,
        "{report}"
    );
    assert_eq!(config(&merged)["architectures"], json!(["BertForSequenceClassification"]));
    assert!(merged.join("tokenizer.json").is_file());
}
