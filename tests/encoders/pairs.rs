//! Pairs of texts: ids, kinds of tokens and logits are those of transformers.

use crate::support::heads::{adapted, dir, expected, loaded, precisions};
use crate::support::{Padded, logits, relative_error};
use bayes_lora::data::{
    AnswerForm, EncodedDataset, EncodedRow, Encoding, PaddingSide, PromptTemplate, Task, Tokenizer, Truncation,
};
use bayes_lora::models::{Classifier, Dataset, SequenceClassifier};
use burn::tensor::DType;
use serde_json::Value;

const NAME: &str = "tiny_bert";

fn said() -> Value {
    serde_json::from_str(&std::fs::read_to_string(dir(NAME).join("pairs.json")).unwrap()).unwrap()
}

fn task() -> Task {
    let file = tempfile::Builder::new().suffix(".jsonl").tempfile().unwrap();
    let lines: Vec<String> = said()["pairs"].as_array().unwrap().iter().map(Value::to_string).collect();
    std::fs::write(file.path(), lines.join("\n")).unwrap();
    Task::from_labelled_jsonl(file.path(), None).unwrap()
}

fn encoded(limit: Option<usize>, truncation: Truncation) -> EncodedDataset {
    let tokenizer = Tokenizer::from_dir(dir(NAME).join("tokenizer")).unwrap();
    let encoding = Encoding::new(PromptTemplate::text(), AnswerForm::labels(["bad", "fair", "good"]));
    let encoding = match limit {
        Some(limit) => encoding.with_max_tokens(limit).with_truncation(truncation),
        None => encoding,
    };
    encoding.encode(&task(), &tokenizer).unwrap()
}

fn row(data: &EncodedDataset, item: usize) -> &EncodedRow {
    &data.items[item].rows[0]
}

#[test]
fn ids_and_kinds_of_tokens_are_those_of_transformers_whole_or_shortened_on_either_side() {
    for case in said()["encoded"].as_array().unwrap() {
        let side = if case["side"] == "left" { Truncation::Start } else { Truncation::End };
        let data = encoded(case["limit"].as_u64().map(|limit| limit as usize), side);
        let of = |key: &str| serde_json::from_value::<Vec<Vec<u32>>>(case[key].clone()).unwrap();
        let n_short = data.items.iter().zip(encoded(None, side).items).filter(|(a, b)| a.rows != b.rows).count();
        assert_eq!(data.n_truncated, n_short);
        for (i, (ids, types)) in of("ids").into_iter().zip(of("types")).enumerate() {
            assert_eq!((&row(&data, i).ids, &row(&data, i).types), (&ids, &types), "{case}");
        }
    }
}

#[test]
fn logits_of_pairs_are_those_of_transformers_on_either_side_of_pads() {
    let data = encoded(Some(12), Truncation::End);
    let mut of_one_type = data.clone();
    of_one_type.items.iter_mut().for_each(|item| item.rows[0].types.clear());
    for (dtype, tolerance) in precisions() {
        let model = adapted(&dir(NAME).join("base"), &dir(NAME).join("adapter"), &data, dtype);
        for (data, key) in [(&data, "logits"), (&of_one_type, "logits_one_type")] {
            let expected = expected(&dir(NAME).join("pairs.safetensors"), key);
            for side in [PaddingSide::Left, PaddingSide::Right] {
                let error = relative_error(&logits(&model, &Padded(data, side)).into_dyn(), &expected);
                assert!(error < tolerance, "{dtype:?}, {key}, {side:?}: {error:e}");
            }
        }
    }
}

#[test]
fn pairs_and_single_texts_share_a_batch_and_kinds_that_a_model_has_not_are_named() {
    let mut data = encoded(Some(12), Truncation::End);
    data.items[0].rows[0].types.clear();
    let loaded = loaded(&dir(NAME).join("base"), DType::F32);
    let model = SequenceClassifier::with_head(loaded.encoder, loaded.head.unwrap(), &data).unwrap();
    let together = logits(&model, &data);
    for item in 0..data.len() {
        let alone = EncodedDataset { items: vec![data.items[item].clone()], ..data.clone() };
        // f32
        assert!(relative_error(&logits(&model, &alone).row(0).to_owned(), &together.row(item).to_owned()) < 1e-4);
    }
    data.items[1].rows[0].types[3] = 2;
    let batch = data.batch(&[0, 1], &model.device(), DType::F32).unwrap();
    let error = model.check(&batch).unwrap_err().to_string();
    assert!(error.contains("type_vocab_size") && error.contains("below the network's 2"), "{error}");
    data.items[1].rows[0].types.pop();
    let error = data.batch(&[0, 1], &model.device(), DType::F32).unwrap_err().to_string();
    assert!(error.contains("`2`") && error.contains("12") && error.contains("11"), "{error}");
}

#[test]
fn a_single_text_for_a_head_is_encoded_as_by_transformers_and_keeps_its_end_when_shortened() {
    let expected: Vec<u32> = serde_json::from_value(said()["single"].clone()).unwrap();
    let tokenizer = Tokenizer::from_dir(dir(NAME).join("tokenizer")).unwrap();
    let text = said()["pairs"][0]["text_a"].as_str().unwrap().to_string();
    let file = tempfile::Builder::new().suffix(".jsonl").tempfile().unwrap();
    let lines = ["bad", "good"].map(|label| serde_json::json!({"text": text, "label": label}).to_string());
    std::fs::write(file.path(), lines.join("\n")).unwrap();
    let task = Task::from_labelled_jsonl(file.path(), None).unwrap();
    let names = task.items[0].choices.clone();
    let encoding = Encoding::new(PromptTemplate::text(), AnswerForm::labels(names));
    let whole = encoding.encode(&task, &tokenizer).unwrap();
    assert_eq!(row(&whole, 0).ids, expected);
    let shorter = encoding.with_max_tokens(expected.len() - 1).with_truncation(Truncation::End);
    let shorter = shorter.encode(&task, &tokenizer).unwrap();
    let n = expected.len();
    assert_eq!(row(&shorter, 0).ids, [&expected[..n - 2], &expected[n - 1..]].concat());
}
