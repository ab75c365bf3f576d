//! The hub: against a server that fails, truncates and stalls, a call ends in the right model or in a clear error, and the
//! cache holds nothing wrong.

mod failures;
mod hostile;
mod server;

use crate::support::{Fixture, device, logits, root};
use bayes_lora::data::Tokenizer;
use bayes_lora::error::Result;
use bayes_lora::hub::HubOptions;
use bayes_lora::models::{Pretrained, PromptClassifier};
use bayes_lora::progress::Control;
use ndarray::Array2;
use server::{COMMIT, Hub, ID, Seen, etag};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

// ---- material ---------------------------------------------------------------------------------------------------

const WEIGHTS: &str = "model.safetensors";

fn stories() -> PathBuf {
    root().join("assets/stories260K")
}

/// A hub with stories260K, and a directory for a cache.
fn hub() -> (Hub, TempDir) {
    (Hub::of(&[&stories()]), tempfile::tempdir().unwrap())
}

/// Impatient options.
fn options(hub: &Hub, cache: &TempDir) -> HubOptions {
    HubOptions::default()
        .with_endpoint(hub.endpoint.clone())
        .with_cache_dir(cache.path().join("hub"))
        .with_retries(3)
        .with_first_wait(Duration::from_millis(1))
        .with_stall_timeout(Duration::from_millis(400))
}

fn fetch(options: &HubOptions) -> Result<Pretrained> {
    Pretrained::from_hub_with(ID, options, &Control::silent())
}

/// Logits of the fixture's prompts, whose tokens every vocabulary here has.
fn answers(pretrained: &Pretrained) -> Array2<f64> {
    let data = Fixture::load("tiny_llama").train;
    logits(&PromptClassifier::new(pretrained.load(&device()).unwrap(), &data).unwrap(), &data)
}

fn assert_is(pretrained: &Pretrained, dir: &Path) {
    assert_eq!(answers(pretrained), answers(&Pretrained::from_dir(dir).unwrap()));
}

/// Names and contents of the blobs, without partial files.
fn blobs(cache: &TempDir) -> Vec<(String, Vec<u8>)> {
    let Ok(entries) = std::fs::read_dir(cache.path().join("hub/models--org--tiny/blobs")) else { return Vec::new() };
    let files = entries.map(|entry| entry.unwrap().path());
    let named =
        files.map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read(path).unwrap()));
    named.filter(|(name, _)| !name.ends_with(".incomplete")).collect()
}

/// Every blob is the content that its name says, every file of a snapshot is there, and nothing lies outside of the cache.
fn assert_not_poisoned(cache: &TempDir) {
    for (name, content) in blobs(cache) {
        let kind = if name.len() == 64 { WEIGHTS } else { "config.json" };
        assert_eq!(etag(kind, &content), name);
    }
    let snapshot = cache.path().join("hub/models--org--tiny/snapshots").join(COMMIT);
    for entry in std::fs::read_dir(snapshot).into_iter().flatten() {
        assert!(entry.unwrap().path().is_file());
    }
    let beside: Vec<_> = std::fs::read_dir(cache.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(beside.iter().all(|name| name == "hub"), "{beside:?}");
}

fn requests<'a>(seen: &'a [Seen], method: &str, name: &str) -> Vec<&'a Seen> {
    seen.iter().filter(|s| s.method == method && s.path.ends_with(&format!("/{name}"))).collect()
}

/// Bodies of the weights that were asked for.
fn bodies(seen: &[Seen]) -> Vec<&Seen> {
    requests(seen, "GET", WEIGHTS).into_iter().filter(|s| s.path.starts_with("/cdn/")).collect()
}

// ---- when all goes well -----------------------------------------------------------------------------------------

#[test]
fn a_model_from_the_hub_is_the_model_of_the_directory() {
    let (hub, cache) = hub();
    let pretrained = fetch(&options(&hub, &cache)).unwrap();
    assert_is(&pretrained, &stories());
    assert_eq!(Tokenizer::from_dir(pretrained.dir()).unwrap().vocab_size(), 512);
    assert_not_poisoned(&cache);
    let seen = hub.take_seen();
    assert_eq!(bodies(&seen).len(), 1);
    assert!(seen.iter().all(|s| s.authorization.is_none()), "a token went over plain http");
    // after the first file, all are of the commit that it was of
    let of_branch = seen.iter().filter(|s| s.path.contains("/main/"));
    let asked: Vec<_> = of_branch.map(|s| (s.method.as_str(), s.path.as_str())).collect();
    let first = "/org/tiny/resolve/main/config.json";
    assert_eq!(asked, [("HEAD", first), ("GET", first)]);
}

#[test]
fn a_token_is_neither_sent_over_plain_http_nor_printed() {
    const SECRET: &str = "hf_do_not_tell_anyone";
    let test = "hub::a_model_from_the_hub_is_the_model_of_the_directory";
    let run = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env("HF_TOKEN", SECRET)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&run.stdout).into_owned() + &String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success() && text.contains("1 passed"), "{text}");
    assert!(!text.contains(SECRET));
}

#[test]
fn shards_are_fetched_by_their_index() {
    let base = root().join("tests/fixtures/tiny_llama_variant/base");
    let hub = Hub::of(&[&base]);
    hub.put("tokenizer.json", std::fs::read(stories().join("tokenizer.json")).unwrap());
    let cache = tempfile::tempdir().unwrap();
    assert_is(&fetch(&options(&hub, &cache)).unwrap(), &base);
    assert_not_poisoned(&cache);
    assert_eq!(blobs(&cache).iter().filter(|(name, _)| name.len() == 64).count(), 3);
}

#[test]
fn a_second_call_takes_the_blobs_from_the_cache() {
    let (hub, cache) = hub();
    fetch(&options(&hub, &cache)).unwrap();
    hub.take_seen();
    assert_is(&fetch(&options(&hub, &cache)).unwrap(), &stories());
    let seen = hub.take_seen();
    assert!(seen.iter().all(|s| s.method == "HEAD"), "{seen:?}");
    // which commit `main` is, and whether there is a chat template by now
    let asked: Vec<_> = seen.iter().map(|s| s.path.rsplit('/').next().unwrap()).collect();
    assert_eq!(asked, ["config.json", "chat_template.jinja"]);
}

#[test]
fn a_pinned_commit_needs_no_request_once_it_is_there() {
    let (hub, cache) = hub();
    hub.put("chat_template.jinja", b"{{ messages }}".to_vec());
    let options = options(&hub, &cache).with_revision(COMMIT);
    fetch(&options).unwrap();
    hub.take_seen();
    assert_is(&fetch(&options).unwrap(), &stories());
    assert_eq!(hub.take_seen(), []);
}

#[test]
fn offline_takes_what_is_there_and_says_what_is_not() {
    let (hub, cache) = hub();
    let offline = options(&hub, &cache).with_offline(true);
    let error = fetch(&offline).unwrap_err().to_string();
    assert!(error.contains("offline") && error.contains("org/tiny") && error.contains("main"), "{error}");
    fetch(&options(&hub, &cache)).unwrap();
    hub.take_seen();
    assert_is(&fetch(&offline).unwrap(), &stories());
    std::fs::remove_file(cache.path().join("hub/models--org--tiny/snapshots").join(COMMIT).join(WEIGHTS)).unwrap();
    let error = fetch(&offline).unwrap_err().to_string();
    assert!(error.contains("offline") && error.contains(WEIGHTS), "{error}");
    assert_eq!(hub.take_seen(), []);
}

#[test]
fn a_renamed_repository_is_found_under_its_new_name() {
    let (hub, cache) = hub();
    let pretrained = Pretrained::from_hub_with("old/name", &options(&hub, &cache), &Control::silent()).unwrap();
    assert_is(&pretrained, &stories());
}
