//! Unfinished work on disk: whatever is interrupted goes on to the same bits, and nothing that goes wrong stops it.

mod passes;
mod training;

use bayes_lora::checkpoints::Checkpoints;
use bayes_lora::progress::Control;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Saves in `dir` when it must.
fn seldom(dir: &Path) -> Control {
    Control::silent().with_checkpoints(Checkpoints::new(dir).with_every(Duration::from_secs(3600))).unwrap()
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    files
}
