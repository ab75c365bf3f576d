//! `predict`: killed, interrupted, on long files.

use crate::program::{bytes, predict, said, short_questions};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

fn into(mut program: Command, out: &Path) -> Command {
    program.arg("--out").arg(out);
    program
}

/// Waits until so many blocks are on disk.
fn wait_for_blocks(out: &Path, n: usize) {
    let dir = Path::new(&format!("{}.unfinished", out.display())).to_path_buf();
    let is_block = |entry: std::io::Result<std::fs::DirEntry>| {
        entry.is_ok_and(|entry| entry.file_name().to_string_lossy().starts_with("block-"))
    };
    while std::fs::read_dir(&dir)
        .map_or(0, |entries| entries.filter(|_| true).filter_map(|e| is_block(e).then_some(())).count())
        < n
    {
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn answers_that_are_killed_five_times_are_the_same_bytes_in_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let questions = short_questions(dir.path(), 2000);
    let (expected, out) = (dir.path().join("expected.jsonl"), dir.path().join("answers.jsonl"));
    said(into(predict(&questions, &[]), &expected)).well();
    for kill in 0..5u64 {
        let mut child = into(predict(&questions, &[]), &out).spawn().unwrap();
        wait_for_blocks(&out, kill as usize + 1);
        // anywhere in the next block
        std::thread::sleep(Duration::from_millis(kill * 7919 % 400));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!out.exists(), "answers appear when all are there");
    }
    let last = said(into(predict(&questions, &["--json"]), &out)).well().json();
    assert!(last["resumed"].as_u64().unwrap() >= 5 * 256, "{last}");
    assert_eq!((&last["answered"], &last["classes"]["labelled"]), (&2000.into(), &2000.into()));
    assert!(bytes(&expected) == bytes(&out));
    assert!(!Path::new(&format!("{}.unfinished", out.display())).exists());
}

#[test]
fn an_interrupted_run_says_130_and_its_answers_are_not_taken_for_those_of_another() {
    let dir = tempfile::tempdir().unwrap();
    let questions = short_questions(dir.path(), 1000);
    let out = dir.path().join("answers.jsonl");
    let child = into(predict(&questions, &[]), &out).spawn().unwrap();
    wait_for_blocks(&out, 1);
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let ended = child.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(130), "{}", String::from_utf8_lossy(&ended.stderr));

    let map = said(into(predict(&questions, &["--method", "map"]), &out));
    map.refused(&["answers.jsonl.unfinished", "remove it to start anew", "method"]);
    let text = String::from_utf8(bytes(&questions)).unwrap();
    let changed = dir.path().join("changed.jsonl");
    std::fs::write(&changed, text.replacen("\"question\":\"", "\"question\":\"So: ", 1)).unwrap();
    said(into(predict(&changed, &[]), &out)).refused(&["other lines than 1 to 256", "changed.jsonl"]);
    // nothing of it was removed
    let last = said(into(predict(&questions, &["--json"]), &out)).well().json();
    assert!(last["resumed"].as_u64().unwrap() >= 256, "{last}");
}

#[test]
fn shards_answer_every_line_once() {
    let dir = tempfile::tempdir().unwrap();
    let questions = short_questions(dir.path(), 10);
    let mut ids: Vec<String> = Vec::new();
    for index in 0..3 {
        let mut shard = predict(&questions, &["--method", "map", "--shard", "auto/3"]);
        shard.env("SLURM_ARRAY_TASK_ID", index.to_string());
        let answers = said(shard).well().out;
        let id =
            |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["id"].as_str().unwrap().to_string();
        let of: Vec<String> = answers.lines().map(id).collect();
        assert!(of.iter().all(|id| id.parse::<usize>().unwrap() % 3 == index), "{of:?}");
        ids.extend(of);
    }
    assert_eq!(ids.len(), 10);
}

/// The largest resident set while it runs, in KiB.
#[cfg(target_os = "linux")]
fn peak(program: Command) -> u64 {
    let mut child = { program }.spawn().unwrap();
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    while child.try_wait().unwrap().is_none() {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let found = line.and_then(|line| line.trim().trim_end_matches(" kB").trim().parse().ok());
        peak = peak.max(found.unwrap_or(0));
        std::thread::sleep(Duration::from_millis(10));
    }
    peak
}

#[cfg(target_os = "linux")]
#[test]
fn memory_does_not_grow_with_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let of = |n: usize| {
        let questions = short_questions(dir.path(), n);
        let out = dir.path().join(format!("{n}.jsonl"));
        let peak = peak(into(predict(&questions, &["--method", "map"]), &out));
        assert_eq!(String::from_utf8(bytes(out)).unwrap().lines().count(), n);
        peak
    };
    let (short, long) = (of(512), of(5120));
    // ten times the lines; a block of 256 is held at once, and the probabilities of all for their scores
    assert!((long as f64) < 1.3 * short as f64, "{short} and {long} KiB");
}
