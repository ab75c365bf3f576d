//! Tasks, their encoding, and data that the model was not made for.

use super::{LIMITS, NAME, adapted, adapted_mlp, check, silent, train_data, trainer};
use crate::support::{Fixture, continuation_dataset, device};
use bayes_lora::curvature::{CurvatureConfig, fit_curvature};
use bayes_lora::data::{
    AnswerForm, BatchLimits, EncodedDataset, Encoding, Item, Normalization, PromptTemplate, ResolvedAnswers, Task,
    Tokenizer,
};
use bayes_lora::error::Result;
use bayes_lora::models::{Points, Pretrained, PromptClassifier};
use bayes_lora::predict::predict_map;
use burn::tensor::DType;
use ndarray::{Array2, array};

const GOOD: &str = r#"{"id": "a", "question": "yes?", "choices": ["yes", "no"], "answer": 1}"#;

fn words() -> Tokenizer {
    Tokenizer::from_bytes(
        br#"{"version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
            "pre_tokenizer": {"type": "Whitespace"}, "post_processor": null, "decoder": null,
            "model": {"type": "WordLevel", "unk_token": "?", "vocab": {"?": 0, "yes": 1, "no": 2, "maybe": 3}}}"#,
    )
    .unwrap()
}

fn encode(classes: [&str; 2], limit: usize) -> Result<()> {
    let task = Task::new("quiz", vec![Item::new("q7", "yes or no yes or no", ["yes", "no"]).with_answer(0)])?;
    let encoding = Encoding::new(PromptTemplate::question_answer(), AnswerForm::class_tokens(classes));
    encoding.with_max_tokens(limit).encode(&task, &words()).map(|_| ())
}

fn task_file(text: &str) -> Result<()> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("quiz.jsonl");
    std::fs::write(&path, text).unwrap();
    Task::from_jsonl(path).map(|_| ())
}

/// The training items of the fixture after a change.
fn dataset(edit: impl FnOnce(&mut EncodedDataset)) -> EncodedDataset {
    let mut data = train_data();
    edit(&mut data);
    data
}

fn without_items() -> EncodedDataset {
    dataset(|d| d.items.clear())
}

fn fit(data: &EncodedDataset) -> Result<()> {
    trainer(|_| ())?.fit(adapted(), data, None, &silent()).map(|_| ())
}

fn curve(data: &EncodedDataset) -> Result<()> {
    fit_curvature(&adapted(), data, &CurvatureConfig::default(), &silent()).map(|_| ())
}

/// The model of the fixture without adapter, asked for `data`.
fn model_for(data: &EncodedDataset) -> Result<()> {
    let lm = Pretrained::from_dir(Fixture::load(NAME).dir().join("base"))?.load(&device())?;
    PromptClassifier::new(lm, data).map(|_| ())
}

#[test]
fn bad_data_are_refused_by_name_and_numbers() {
    check(&[
        (
            "an answer beyond the choices",
            || Task::new("t", vec![Item::new("q3", "yes?", ["yes", "no"]).with_answer(2)]).map(|_| ()),
            &["`q3`", "label 2", "2 classes"],
        ),
        (
            "training on a label out of range",
            || fit(&dataset(|d| d.items[3].label = Some(9))),
            &["train-3", "label 9", "4 classes"],
        ),
        (
            "curvature on a label out of range",
            || curve(&dataset(|d| d.items[3].label = Some(9))),
            &["train-3", "label 9", "4 classes"],
        ),
        (
            "a label that the item has no choice for",
            || fit(&dataset(|d| (d.items[3].label, d.items[3].n_choices) = (Some(3), 3))),
            &["train-3", "label 3", "3 classes"],
        ),
        (
            "curvature on such a label",
            || curve(&dataset(|d| (d.items[3].label, d.items[3].n_choices) = (Some(3), 3))),
            &["train-3", "label 3", "3 classes"],
        ),
        ("training without a label", || fit(&dataset(|d| d.items[5].label = None)), &["train-5", "label"]),
        (
            "validation without a label",
            || trainer(|_| ())?.fit(adapted(), &train_data(), Some(&Fixture::load(NAME).test), &silent()).map(|_| ()),
            &["test-0", "label"],
        ),
        ("an empty task file", || task_file("\n\n"), &["quiz.jsonl", "empty"]),
        (
            "an empty task",
            || {
                let task = Task::new("quiz", vec![])?;
                let encoding =
                    Encoding::new(PromptTemplate::question_answer(), AnswerForm::class_tokens(["yes", "no"]));
                encoding.encode(&task, &words()).map(|_| ())
            },
            &["`quiz`", "empty"],
        ),
        ("training on nothing", || fit(&without_items()), &["train", "empty"]),
        ("curvature of nothing", || curve(&without_items()), &["train", "empty"]),
        (
            "prediction of nothing",
            || predict_map(&adapted(), &without_items(), &LIMITS, &silent()).map(|_| ()),
            &["train", "empty"],
        ),
        ("no points", || Points::new(Array2::zeros((0, 2)), vec![]).map(|_| ()), &["points", "empty"]),
        (
            "prediction of no points",
            || {
                let none = Points { features: Array2::zeros((0, 2)), labels: vec![] };
                predict_map(&adapted_mlp(2), &none, &LIMITS, &silent()).map(|_| ())
            },
            &["points", "empty"],
        ),
        ("points that are NaN", || Points::new(array![[f64::NAN, 1.0]], vec![]).map(|_| ()), &["features", "1 of 2"]),
        (
            "fewer labels than points",
            || Points::new(array![[0.0], [1.0], [2.0]], vec![0, 1]).map(|_| ()),
            &["labels", "expected 3", "found 2"],
        ),
        (
            "points of another width",
            || {
                let wide = Points::new(Array2::ones((2, 3)), vec![0, 1])?;
                predict_map(&adapted_mlp(2), &wide, &LIMITS, &silent()).map(|_| ())
            },
            &["features", "[2, 2]", "[2, 3]"],
        ),
        (
            "training on points of another width",
            || {
                let wide = Points::new(Array2::ones((2, 3)), vec![0, 1])?;
                trainer(|_| ())?.fit(adapted_mlp(2), &wide, None, &silent()).map(|_| ())
            },
            &["features", "[2, 2]", "[2, 3]"],
        ),
        (
            "data with another number of classes",
            || predict_map(&adapted(), &dataset(|d| d.n_classes = 5), &LIMITS, &silent()).map(|_| ()),
            &["classes", "expected 4", "found 5"],
        ),
        (
            "data that ask in another form",
            || predict_map(&adapted(), &continuation_dataset(), &LIMITS, &silent()).map(|_| ()),
            &["another form"],
        ),
        (
            "a token beyond the vocabulary in later data",
            || curve(&dataset(|d| d.items[4].rows[0].ids[1] = 96)),
            &["token id", "below", "96"],
        ),
        (
            "a continuation whose first token is scored",
            || {
                let mut data = continuation_dataset();
                let model = Fixture::load(NAME).model_for(&data, DType::F32);
                data.items[2].rows[1].scored = 0..3;
                predict_map(&model, &data, &LIMITS, &silent()).map(|_| ())
            },
            &["continuation-2", "1..", "0..3"],
        ),
        (
            "a token beyond any vocabulary",
            || curve(&dataset(|d| d.items[4].rows[0].ids[1] = 4_000_000_000)),
            &["token id", "2147483647", "4000000000"],
        ),
        (
            "a malformed line",
            || task_file(&format!("{GOOD}\n{GOOD}\n{{\"id\": \"b\", \"question\": }}\n")),
            &["quiz.jsonl:3", "column"],
        ),
        ("a line that is no object", || task_file(&format!("{GOOD}\n[1, 2]\n")), &["quiz.jsonl:2", "object"]),
        (
            "a line without choices",
            || task_file(r#"{"id": "a", "question": "yes?", "choices": []}"#),
            &["quiz.jsonl:1", "choices", "empty"],
        ),
        (
            "a line whose answer has another name",
            || task_file(&format!("{GOOD}\n{}\n", GOOD.replace("answer", "label"))),
            &["quiz.jsonl:2", "unknown field `label`", "here it is called `answer`"],
        ),
        (
            "a line with a field that nobody reads",
            || task_file(&GOOD.replace("\"answer\"", "\"source\": \"web\", \"answer\"")),
            &["quiz.jsonl:1", "unknown field `source`", "`answer`"],
        ),
        (
            "a line with one choice",
            || task_file(&GOOD.replace("[\"yes\", \"no\"], \"answer\": 1", "[\"yes\"], \"answer\": 0")),
            &["quiz.jsonl:1", "`choices` of item `a`", "at least 2", "got 1"],
        ),
        (
            "an item with one choice",
            || Task::new("t", vec![Item::new("q4", "yes?", ["yes"]).with_answer(0)]).map(|_| ()),
            &["`choices` of item `q4`", "at least 2", "got 1"],
        ),
        (
            "a line whose answer is out of range",
            || task_file(&GOOD.replace("1}", "5}")),
            &["quiz.jsonl:1", "label 5", "2 classes"],
        ),
        ("a tokenizer that is none", || Tokenizer::from_bytes(b"{}").map(|_| ()), &["tokenizer"]),
        ("a class of two tokens", || encode([" yes", " no no"], 99), &["` no no`", "2 tokens", "[\"no\", \"no\"]"]),
        ("two classes that are one token", || encode([" yes", " yes"], 99), &["` yes`", "same token 1"]),
        ("a prompt longer than the context", || encode([" yes", " no"], 5), &["`q7`", "10 tokens", "limit of 5"]),
        (
            "a choice more than class tokens",
            || {
                let task = Task::new("quiz", vec![Item::new("q8", "yes?", ["yes", "no", "maybe"])])?;
                let encoding =
                    Encoding::new(PromptTemplate::question_answer(), AnswerForm::class_tokens([" yes", " no"]));
                encoding.encode(&task, &words()).map(|_| ())
            },
            &["`q8`", "expected 2", "found 3"],
        ),
        (
            "an empty choice",
            || {
                let task = Task::new("quiz", vec![Item::new("q9", "yes?", ["yes", " "])])?;
                let form = AnswerForm::Continuation { normalization: Normalization::Sum };
                Encoding::new(PromptTemplate::question_answer(), form).encode(&task, &words()).map(|_| ())
            },
            &["`q9`", "no token"],
        ),
        (
            "a token beyond the vocabulary",
            || model_for(&dataset(|d| d.items[4].rows[0].ids[1] = 96)),
            &["train-4", "id 96", "of 96"],
        ),
        (
            "a class token beyond the vocabulary",
            || model_for(&dataset(|d| d.answers = ResolvedAnswers::ClassTokens(vec![5, 17, 40, 100]))),
            &["class tokens", "id 100", "of 96"],
        ),
        (
            "batches of nothing",
            || {
                predict_map(&adapted(), &train_data(), &BatchLimits { max_items: 0, max_tokens: 9 }, &silent())
                    .map(|_| ())
            },
            &["max_items", "at least 1", "got 0"],
        ),
    ]);
}
