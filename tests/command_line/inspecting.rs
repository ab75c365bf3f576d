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
    let mut unread = program(["inspect", "--load"]);
    unread.arg(trained());
    said(unread).refused(&["--load", "base"]);
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
    let [free, short] = [run("free", &[]), run("short", &["--activation-memory", "0.0001"])];
    assert!(!free.contains("gradient checkpointing"), "{free}");
    assert!(short.contains("note: training: gradient checkpointing is on"), "{short}");
    let adapter = |out: &str| std::fs::read(dir.path().join(out).join("adapter_model.safetensors")).unwrap();
    assert_eq!(adapter("free"), adapter("short"));
    let wrong = said(program(["train", "--activation-memory", "none"]));
    assert_eq!(wrong.code, Some(2));
    assert!(wrong.words.contains("--activation-memory") && wrong.words.contains("GiB"), "{}", wrong.words);
}

#[test]
fn an_estimate_of_numbers_counts_the_passes_that_find_their_noise() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("numbers.jsonl");
    let line =
        |k: usize| format!("{}\n", json!({"text": format!("The cat was in house {k}."), "label": 0.5 + k as f64}));
    std::fs::write(&file, (0..10).map(line).collect::<String>()).unwrap();
    let run = |words: &[&str]| {
        let mut program = program(words);
        program.arg("--model").arg(model()).arg("--train").arg(&file);
        program
    };
    let estimate = |words: &[&str]| said(run(&[&["estimate", "--json", "--rank", "4"], words].concat())).well().json();
    let told = estimate(&[]);
    // one output: a row of an item in each of both passes, twice
    let rows = |part: &serde_json::Value| {
        ["curvature", "linearized"].map(|pass| part[pass]["network_rows"].as_u64().unwrap_or(0))
    };
    assert_eq!((rows(&told["noise"]), rows(&told)), ([10, 10], [10, 10]));
    let given = estimate(&["--noise-variance", "0.1", "--prior", "evidence"]);
    assert!(given.get("noise").is_none(), "{given}");
    assert_eq!(rows(&given), [10, 0]);
    // the noise is sought whatever the prior is found by, and memory is what either takes at most
    let evidence = estimate(&["--prior", "evidence"]);
    assert_eq!((rows(&evidence["noise"]), rows(&evidence)), ([10, 10], [10, 0]));
    assert!(evidence["peak_bytes"].as_u64() > given["peak_bytes"].as_u64(), "{evidence} {given}");
    // the fit says the same before it begins
    let mut train = run(&["train", "--rank", "4", "--epochs", "4", "--learning-rate", "1e-2", "--prior", "evidence"]);
    train.arg("--out").arg(dir.path().join("adapter"));
    let words = said(train).words;
    assert!(words.contains("noise, which is found first: Kronecker"), "{words}");
}

#[test]
fn flags_of_a_new_adapter_and_held_out_items_mean_nothing_to_the_estimate_of_one_that_exists() {
    let mut estimate = program(["estimate", "--n-train", "64", "--rank", "2"]);
    estimate.args(ASKED).arg("--model").arg(model()).arg("--train").arg(questions()).arg("--adapter").arg(trained());
    let said_rank = said(estimate);
    assert!(said_rank.code == Some(2) && said_rank.words.contains("--rank"), "{}", said_rank.words);
    let mut estimate = program(["estimate", "--n-train", "64", "--n-held-out", "8"]);
    estimate.args(ASKED).arg("--model").arg(model()).arg("--train").arg(questions());
    said(estimate).refused(&["held-out", "not counted"]);
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
