//! Whether a program said what a page says: the same words, and numbers that are alike.

use regex::Regex;
use std::sync::LazyLock;

/// Numbers that are not whole may differ by this share, or by as much where they are small: sums are rounded otherwise elsewhere.
const SHARE: f64 = 0.05;

/// Digits of a whole number that may be a measured one.
const LONG: usize = 4;

/// Any lines.
const LINES: &str = "...";
/// Anything within a line.
const ANYTHING: &str = "[..]";

static NUMBER: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\d+(?:\.\d+)?(?:e-?\d+)?").unwrap());
/// What a machine's speed says.
static SPEED: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"[\d.]+(?:e-?\d+)? s\b|\([\d.]+(?:e-?\d+)? a second\)").unwrap());

/// What the bits of weights say, which are rounded otherwise elsewhere; not sixteen digits behind a point.
static FINGERPRINT: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"(^|[^.\w])[0-9a-f]{16}\b").unwrap());

/// How far long work has come.
static PROGRESS: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"^[\w ]+: \d+ of \d+ (?:after \d+ s|lines \()").unwrap());

/// True for a line that a slow machine says and a fast one does not.
pub fn is_progress(line: &str) -> bool {
    PROGRESS.is_match(line)
}

/// The first line in which they differ; none where what was said is what is expected.
pub fn difference(expected: &str, said: &str) -> Option<String> {
    let (expected, said): (Vec<&str>, Vec<&str>) = (expected.lines().collect(), said.lines().collect());
    match matched(&expected, &said) {
        true => None,
        false => {
            let at = expected.iter().zip(&said).position(|(a, b)| *a == LINES || !is_like(a, b));
            let at = at.unwrap_or(expected.len().min(said.len()));
            let line = |lines: &[&str]| lines.get(at).map_or("nothing more".into(), |line| format!("`{line}`"));
            Some(format!("line {}: expected {}, found {}", at + 1, line(&expected), line(&said)))
        }
    }
}

fn matched(expected: &[&str], said: &[&str]) -> bool {
    match expected.split_first() {
        None => said.is_empty(),
        Some((&LINES, rest)) => (0..=said.len()).any(|skipped| matched(rest, &said[skipped..])),
        Some((first, rest)) => match said.split_first() {
            Some((line, said)) => is_like(first, line) && matched(rest, said),
            None => false,
        },
    }
}

fn is_like(expected: &str, said: &str) -> bool {
    let parts: Vec<&str> = expected.split(ANYTHING).collect();
    if parts.len() > 1 {
        let pattern: Vec<String> = parts.iter().map(|part| regex::escape(part)).collect();
        return Regex::new(&format!("^{}$", pattern.join(".*"))).unwrap().is_match(said);
    }
    let known =
        |line: &str| FINGERPRINT.replace_all(&SPEED.replace_all(line.trim_end(), "speed"), "${1}hash").into_owned();
    let [expected, said] = [expected, said].map(known);
    let words = |line: &str| NUMBER.replace_all(line, "#").split_whitespace().collect::<Vec<_>>().join(" ");
    let numbers = |line: &str| NUMBER.find_iter(line).map(|found| found.as_str().to_string()).collect::<Vec<_>>();
    let pairs = numbers(&expected).into_iter().zip(numbers(&said)).collect::<Vec<_>>();
    words(&expected) == words(&said) && pairs.iter().all(|(a, b)| are_like(a, b))
}

fn are_like(a: &str, b: &str) -> bool {
    // counts; larger ones may be measured numbers in their shortest form
    let is_count = |text: &str| text.len() < LONG && text.bytes().all(|byte| byte.is_ascii_digit());
    if a == b || (is_count(a) && is_count(b)) {
        return a == b;
    }
    let [a, b]: [f64; 2] = [a, b].map(|text| text.parse().unwrap());
    (a - b).abs() <= SHARE * a.abs().max(b.abs()).max(SHARE)
}

#[test]
fn slowness_is_no_difference() {
    assert!(is_progress("train: 776 of 1536 after 10 s, loss 1.005 nats an item"));
    assert!(is_progress("predict: 256 of 1200 lines (76.4 a second)"));
    assert!(!is_progress("256 items of 3 after 10 s"));
}

#[test]
fn words_are_the_same_and_numbers_alike() {
    for (expected, said, is_like) in [
        ("NLL 1.342", "NLL 1.35", true),
        ("NLL 1.342", "NLL 1.5", false),
        ("ECE 0.001", "ECE 0.002", true),
        ("200 items", "201 items", false),
        ("-5837 nats", "-5838 nats", true),
        ("200 items in 3.2 s", "200 items in 71 s", true),
        ("in 3.2 s (81.2 a second)", "in 3.21 s (3 a second)", true),
        ("wrote a [..]", "wrote a thing", true),
        ("wrote a [..]", "writes a thing", false),
        ("a\n...\nd", "a\nb\nc\nd", true),
        ("a\n...\nd", "a\nb\nc", false),
        ("a\n...", "a", true),
        ("a", "a\nb", false),
        ("a  b", "a b", true),
        ("epsilon 5e-4", "epsilon 0.0005", true),
        ("fingerprint: 0dae8fe74055252f", "fingerprint: 4fe7228f845db8a7", true),
        (r#"{"p":0.1234567890123456}"#, r#"{"p":0.123456789012345}"#, true),
        (r#"{"p":0.1234567890123456}"#, r#"{"p":0.9234567890123456}"#, false),
    ] {
        assert_eq!(difference(expected, said).is_none(), is_like, "{expected:?} {said:?}");
    }
}
