//! Work that is split over processes, or whose process is killed, ends in what one process gives that nobody disturbs.
//!
//! A test starts its own binary again, with the variables below that tell it what to do.

mod killed;
mod sharded;

use bayes_lora::data::{
    AnswerForm, BatchLimits, EncodedDataset, Encoding, PromptTemplate, Task, Tokenizer, Truncation,
};
use bayes_lora::models::{Pretrained, PromptClassifier};
use burn::tensor::Device;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

const WHAT: &str = "BAYES_LORA_TEST_CHILD_DOES";
const OUT: &str = "BAYES_LORA_TEST_CHILD_OUT";
const LIMITS: BatchLimits = BatchLimits { max_items: 8, max_tokens: 4096 };

/// Starts a process that comes to the beginning of a test of this binary, and finds there what it is to do, and where.
fn start(test: &str, what: impl AsRef<OsStr>, out: &Path) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture"]).env(WHAT, what).env(OUT, out);
    command.stdout(Stdio::null()).spawn().unwrap()
}

/// What this process is to do, and where, if a test has started it.
fn told() -> Option<(OsString, PathBuf)> {
    Some((std::env::var_os(WHAT)?, std::env::var_os(OUT)?.into()))
}

/// Waits for a process that nobody kills.
fn finish(mut child: Child) {
    let status = child.wait().unwrap();
    assert!(status.success(), "a process that was not killed ended with {status}");
}

/// The first `n` of the shipped questions in the order of `seed`, cut to 64 tokens: the same items in every process.
fn questions(part: &str, n: usize, seed: u64) -> EncodedDataset {
    let assets = crate::support::root().join("assets");
    let task = Task::from_jsonl(assets.join(format!("mmlu_areas/{part}.jsonl.gz"))).unwrap();
    Encoding::new(PromptTemplate::question_area(), AnswerForm::class_tokens(["A", "B", "C", "D"]))
        .with_max_tokens(64)
        .with_truncation(Truncation::End)
        .encode(&task.sample(n, seed).unwrap(), &Tokenizer::from_dir(assets.join("stories260K")).unwrap())
        .unwrap()
}

/// stories260K without an adapter.
fn bare_model(data: &EncodedDataset) -> PromptClassifier {
    let pretrained = Pretrained::from_dir(crate::support::root().join("assets/stories260K")).unwrap();
    PromptClassifier::new(pretrained.load(&Device::flex()).unwrap(), data).unwrap()
}
