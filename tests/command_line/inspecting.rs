//! `inspect`, `estimate` and `merge adapter`.

use crate::program::{ASKED, model, program, questions, said, short_questions, trained};
use serde_json::json;

#[test]
fn every_kind_of_path_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let data = short_questions(dir.path(), 5);
    let mut inspect = program(["inspect", "--json", "--load"]);
    inspect.arg(trained()).arg(trained().join("posterior.safetensors")).arg(model()).arg(&data);
    let told = said(inspect).well().json();
    let what: Vec<&str> = told.as_array().unwrap().iter().map(|told| told["what"].as_str().unwrap()).collect();
    assert_eq!(what, ["adapter", "posterior", "base", "data"]);
    let [adapter, posterior, base, data] = [0, 1, 2, 3].map(|place| &told[place]);
    assert_eq!((&adapter["rank"], &adapter["weights"]), (&json!(4), &json!(4480)));
    assert_eq!((&posterior["items"], &posterior["structure"]), (&json!(64), &json!("Kronecker")));
    assert_eq!((&posterior["prompt"], &posterior["most_tokens"]), (&json!("question_area"), &json!(16)));
    assert_eq!((&base["family"], &base["layers"], &base["parameters"]), (&json!("Llama"), &json!(5), &json!(260_032)));
    assert_eq!((&data["kind"], &data["lines"]), (&json!("choices"), &json!(5)));
    let fingerprint = posterior["adapter_fingerprint"].as_str().unwrap();
    assert!(adapter["fingerprint"].as_str().unwrap().starts_with(fingerprint), "{adapter}");
    let mut wrong = program(["inspect"]);
    wrong.arg(dir.path());
    said(wrong).refused(&["neither an adapter", "nor a base"]);
}

#[test]
fn an_estimate_says_what_the_fit_takes_and_writes_nothing() {
    let mut estimate = program(["estimate", "--json", "--n-train", "64", "--rank", "4"]);
    estimate.args(ASKED).arg("--model").arg(model()).arg("--train").arg(questions());
    let told = said(estimate).well().json();
    assert_eq!((&told["items"], &told["adapter_weights"]), (&json!(64), &json!(4480)));
    // three epochs; three of four classes each
    assert_eq!((&told["training_rows"], &told["curvature"]["network_rows"]), (&json!(192), &json!(192)));
    assert!(told["peak_bytes"].as_u64().unwrap() > 0);
    let activations = |way: &str| told["activations"][way].as_u64().unwrap();
    assert!(0 < activations("by_layers") && activations("by_layers") < activations("whole"), "{told}");
}

#[test]
fn what_does_not_fit_is_computed_layer_by_layer_with_a_note() {
    let dir = tempfile::tempdir().unwrap();
    let run = |out: &str, memory: &[&str]| {
        let mut train = program(["train", "--no-posterior", "--n-train", "16", "--epochs", "1", "--rank", "2"]);
        train.args(ASKED).args(memory).arg("--model").arg(model()).arg("--train").arg(questions());
        train.arg("--out").arg(dir.path().join(out));
        said(train).well().words
    };
    let [free, short] = [run("free", &[]), run("short", &["--memory", "0.0001"])];
    assert!(!free.contains("gradient checkpointing"), "{free}");
    assert!(short.contains("note: training: gradient checkpointing is on"), "{short}");
    let adapter = |out: &str| std::fs::read(dir.path().join(out).join("adapter_model.safetensors")).unwrap();
    assert_eq!(adapter("free"), adapter("short"));
    let mut wrong = program(["train", "--memory", "none"]);
    wrong.arg("--out").arg(dir.path());
    said(wrong).refused(&["--memory", "GiB"]);
}

#[test]
fn a_merged_adapter_is_a_base() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("merged");
    let mut merge = program(["merge", "adapter", "--json", "--check", "Once upon a time there was a cat."]);
    merge.arg("--model").arg(model()).arg("--adapter").arg(trained()).arg("--out").arg(&out);
    let told = said(merge).well().json();
    assert_eq!((&told["modules"], &told["rows"]), (&json!(10), &json!(1)));
    let mut inspect = program(["inspect"]);
    inspect.arg(&out);
    assert!(said(inspect).well().out.contains("family: Llama"));
}
