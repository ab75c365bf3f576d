//! Patterns of targets mean here what they mean in Python.

use crate::support::python::{has_peft, run};
use bayes_lora::lora::TargetModules;

/// `re.fullmatch` of `BAYES_LORA_PATTERNS` random expressions, 5000 by default, on four texts each.
#[test]
fn patterns_mean_what_they_mean_in_python() {
    if !has_peft("patterns") {
        return;
    }
    let n = std::env::var("BAYES_LORA_PATTERNS").unwrap_or_else(|_| "5000".into());
    let file = tempfile::NamedTempFile::new().unwrap();
    run("peft_round_trip.py", &["patterns", "0", &n, file.path().to_str().unwrap()]);
    let cases: Vec<(String, Vec<(String, bool)>)> = serde_json::from_reader(file.reopen().unwrap()).unwrap();
    let (mut answers, mut matches, mut unbounded, mut refused) = (0, 0, 0, 0);
    for (pattern, texts) in &cases {
        let targets = TargetModules::Pattern(pattern.clone());
        for (text, expected) in texts {
            match targets.matches(text, false) {
                Ok(found) => assert_eq!(found, *expected, "`{pattern}` on `{text}`"),
                Err(error) if error.to_string().contains("steps") => unbounded += 1,
                Err(error) => {
                    refused += 1;
                    assert!(error.to_string().contains("target of repeat operator"), "`{pattern}`: {error}");
                }
            }
            answers += 1;
            matches += usize::from(*expected);
        }
    }
    println!("{} patterns: {answers} answers, {matches} matches, {unbounded} given up, {refused} refused", cases.len());
    assert!(matches > answers / 50 && unbounded < answers / 1000 && refused < answers / 100);
}
