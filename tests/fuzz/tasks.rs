//! Task files, plain and gzipped, and the table that routes subjects to areas.

use super::harness::{FIXED_BYTES, File, fuzz, scratch};
use super::mutate::Kind;
use bayes_lora::data::{Task, read_areas};
use flate2::Compression;
use flate2::write::GzEncoder;
use std::io::Write;

const TASK: &str = r#"{"id": "q0", "question": "Is it?", "choices": ["no", "yes"], "answer": 1}
{"id": 17, "question": "Which é?", "choices": ["a", "b", "c"], "answer": null, "passage": "A text\n.", "subject": "law"}

{"id": -3, "question": "\ud83d\ude00", "choices": ["one", "two"], "answer": 0}
"#;

/// A line of 16 MiB in a buffer that grows by doubling, and its text beside it: what compresses well is worth no more of it.
const LONGEST_LINE: usize = 56 << 20;

#[test]
fn any_task_is_read_or_refused() {
    let dir = scratch();
    let corpus = [vec![File::new("t.jsonl", Kind::Lines, TASK)]];
    fuzz("task", FIXED_BYTES, &corpus, |input| {
        input.write(dir.path());
        Task::from_jsonl(dir.path().join("t.jsonl")).map(drop)
    });
}

#[test]
fn any_gzipped_task_is_read_or_refused() {
    let dir = scratch();
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(TASK.as_bytes()).unwrap();
    let corpus = [vec![File::new("t.jsonl.gz", Kind::Gzip, encoder.finish().unwrap())]];
    fuzz("gzipped task", LONGEST_LINE, &corpus, |input| {
        input.write(dir.path());
        Task::from_jsonl(dir.path().join("t.jsonl.gz")).map(drop)
    });
}

#[test]
fn any_table_of_areas_is_read_or_refused() {
    let dir = scratch();
    let corpus = [vec![File::new("areas.json", Kind::Json, r#"{"algebra": "STEM", "law": "humanities"}"#)]];
    fuzz("table of areas", FIXED_BYTES, &corpus, |input| {
        input.write(dir.path());
        read_areas(dir.path().join("areas.json")).map(drop)
    });
}
