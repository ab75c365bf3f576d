//! The real PEFT and transformers: `BAYES_LORA_PYTHON` names a Python that has them, `python3` by default.

use super::root;
use std::io::Write;
use std::process::Command;

fn interpreter() -> String {
    std::env::var("BAYES_LORA_PYTHON").unwrap_or_else(|_| "python3".into())
}

/// Past the test harness, which shows the output of failed tests only.
pub fn skip(line: &str) {
    std::io::stderr().write_all(format!("{line}\n").as_bytes()).unwrap();
}

/// Says so where the packages are absent.
pub fn has_peft(test: &str) -> bool {
    let found = Command::new(interpreter()).args(["-c", "import torch, peft, transformers"]).output();
    let found = found.is_ok_and(|output| output.status.success());
    if !found {
        skip(&format!(
            "{test}: skipped, `{}` has no torch, peft and transformers (set BAYES_LORA_PYTHON)",
            interpreter()
        ));
    }
    found
}

/// Runs a script of `tests/python`, which must succeed.
pub fn run(script: &str, arguments: &[&str]) {
    let output = Command::new(interpreter())
        .arg(root().join("tests/python").join(script))
        .args(arguments)
        .env("HF_HUB_OFFLINE", "1")
        .env("TOKENIZERS_PARALLELISM", "false")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script} {arguments:?}:\n{text}");
}
