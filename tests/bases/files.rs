//! Files that are not what their names say, and tokenizers whose files disagree.

use super::{WEIGHTS, copy, fixture, load, refused, tiny};
use crate::support::root;
use bayes_lora::data::{Task, Tokenizer};
use bayes_lora::lora::load_peft;
use bayes_lora::models::Pretrained;
use burn::tensor::DType;
use std::path::Path;
use tempfile::TempDir;

const POINTER: &[u8] = b"version https://git-lfs.github.com/spec/v1\n\
    oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n";
const PAGE: &[u8] = b"\n<!DOCTYPE html>\n<html><head><title>Sign in</title></head><body></body></html>";

/// What stands in for a file, and what the message must say.
const MISTAKEN: [(&[u8], &[&str]); 3] =
    [(POINTER, &["Git LFS pointer", "12345 bytes", "git lfs pull"]), (PAGE, &["web page"]), (b"", &["empty"])];

fn put(dir: &Path, name: &str, content: &[u8]) {
    std::fs::write(dir.join(name), content).unwrap();
}

#[test]
fn weights_of_a_base_and_of_an_adapter_that_are_no_weights_are_named_for_what_they_are() {
    for (content, parts) in MISTAKEN {
        let parts = [&[WEIGHTS], parts].concat();
        let dir = tiny();
        put(dir.path(), WEIGHTS, content);
        refused(load(dir.path(), DType::F32), &parts);

        let adapter = copy(&fixture("tiny_llama/adapter"));
        put(adapter.path(), "adapter_model.safetensors", content);
        let (lm, _) = load(tiny().path(), DType::F32).unwrap();
        refused(load_peft(lm, adapter.path()), &parts[1..]);
    }
    let dir = tiny();
    for (content, part) in [
        (&b"GGUF\x03\0\0\0\0\0\0\0"[..], "from_gguf"),
        (b"PK\x03\x04\0\0\x08\x08\0\0", "pickle"),
        (&[0; 64], "eight zeros"),
        (b"Entry not found", "no safetensors file: its first eight bytes promise a header of"),
    ] {
        put(dir.path(), WEIGHTS, content);
        refused(load(dir.path(), DType::F32), &[WEIGHTS, part]);
    }
}

#[test]
fn configurations_tokenizers_and_tasks_that_are_none_are_named_for_what_they_are() {
    for (content, parts) in MISTAKEN {
        let dir = tiny();
        put(dir.path(), "config.json", content);
        refused(Pretrained::from_dir(dir.path()), &[&["config.json"], parts].concat());

        let dir = tokenizer_files();
        put(dir.path(), "tokenizer.json", content);
        refused(Tokenizer::from_dir(dir.path()), &[&["tokenizer.json"], parts].concat());
        let dir = tokenizer_files();
        put(dir.path(), "tokenizer_config.json", content);
        refused(Tokenizer::from_dir(dir.path()), &[&["tokenizer_config.json"], parts].concat());

        put(dir.path(), "train.jsonl", content);
        refused(Task::from_jsonl(dir.path().join("train.jsonl")), &[&["train.jsonl"], parts].concat());
    }
}

/// The tokenizer of stories260K.
fn tokenizer_files() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for name in ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "config.json"] {
        std::fs::copy(root().join("assets/stories260K").join(name), dir.path().join(name)).unwrap();
    }
    dir
}

#[test]
fn a_list_of_chat_templates_without_a_default_matters_only_to_who_asks_for_chat() {
    let dir = tokenizer_files();
    let expected = Tokenizer::from_dir(dir.path()).unwrap().encode("One day", true).unwrap();
    let config = r#"{"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "add_bos_token": true, "chat_template": [
        {"name": "rag", "template": "{% for m in messages %}<|{{m.role}}|>{{m.content}}{% endfor %}"},
        {"name": "tool_use", "template": "X"}]}"#;
    put(dir.path(), "tokenizer_config.json", config.as_bytes());
    let tokenizer = Tokenizer::from_dir(dir.path()).unwrap();
    assert_eq!(tokenizer.encode("One day", true).unwrap(), expected);
    refused(tokenizer.chat_prompt("Is it?"), &["0 of the 2", "`default`", "rag", "tool_use"]);
}

#[test]
fn a_chat_template_that_two_files_say_differently_is_refused_to_who_asks_for_chat() {
    let dir = tokenizer_files();
    let config = r#"{"bos_token": "<s>", "add_bos_token": true, "chat_template": "{{ messages[0].content }}"}"#;
    put(dir.path(), "tokenizer_config.json", config.as_bytes());
    put(dir.path(), "chat_template.jinja", b"{{ messages[0].content }}\n");
    assert_eq!(Tokenizer::from_dir(dir.path()).unwrap().chat_prompt("Is it?").unwrap(), "Is it?");
    put(dir.path(), "chat_template.jinja", b"{{ messages[0].content }}!");
    let tokenizer = Tokenizer::from_dir(dir.path()).unwrap();
    assert!(tokenizer.encode("One day", true).is_ok());
    refused(tokenizer.chat_prompt("Is it?"), &["chat_template.jinja", "tokenizer_config.json", "differ"]);
}

#[test]
fn a_special_token_that_two_files_name_differently_is_refused() {
    let dir = tokenizer_files();
    put(dir.path(), "special_tokens_map.json", br#"{"bos_token": "</s>"}"#);
    refused(Tokenizer::from_dir(dir.path()), &["bos_token", "`<s>`", "`</s>`", "special_tokens_map.json"]);
}
