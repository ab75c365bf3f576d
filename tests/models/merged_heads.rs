//! Merged encoders, and merged decoders with a head for classes or rewards: their weights are there, whole, under the names of their base,
//! and they compute the same.

use crate::support::heads::{adapted, data, dataset, dir, expected, loaded};
use crate::support::{device, logits, relative_error, root};
use bayes_lora::data::{EncodedDataset, ResolvedAnswers};
use bayes_lora::lora::{Adaptable, LoraConfig, attach, load_peft, read_adapter, write_adapter};
use bayes_lora::models::{
    HeadedNetwork, MERGE_TOLERANCE, Pooling, Pretrained, PretrainedEncoder, ProblemType, RewardModel,
    SequenceClassifier,
};
use burn::tensor::DType;
use safetensors::SafeTensors;
use std::collections::BTreeSet;
use std::path::Path;

fn rows(data: &EncodedDataset) -> Vec<Vec<u32>> {
    data.items.iter().map(|item| item.rows[0].ids.clone()).collect()
}

fn names(dir: &Path) -> BTreeSet<String> {
    let bytes = std::fs::read(dir.join("model.safetensors")).unwrap();
    SafeTensors::deserialize(&bytes).unwrap().names().into_iter().map(String::from).collect()
}

fn config(dir: &Path) -> serde_json::Value {
    serde_json::from_str(&std::fs::read_to_string(dir.join("config.json")).unwrap()).unwrap()
}

/// Away from B = 0.
fn moved<M: Adaptable>(model: M, targets: &[&str]) -> M {
    let config = LoraConfig::new(2).with_target_modules(targets.to_vec());
    let model = attach(model, &config, 0).unwrap();
    let mut weights = read_adapter(&model).unwrap();
    weights.values_mut().enumerate().for_each(|(i, w)| w.mapv_inplace(|v| v + 0.1 * (1 + i % 3) as f64));
    write_adapter(model, &weights).unwrap()
}

#[test]
fn a_merged_encoder_has_the_tensors_of_its_base_and_the_logits_of_transformers_and_peft() {
    for name in ["tiny_bert", "tiny_modernbert"] {
        let (base, data, place) = (dir(name).join("base"), data(name), tempfile::tempdir().unwrap());
        let model = adapted(&base, &dir(name).join("adapter"), &data, DType::F32);
        let (source, to) = (PretrainedEncoder::from_dir(&base).unwrap(), place.path().join("merged"));
        let report = source.merge_and_save((&model).into(), &rows(&data), 1e-5, &to).unwrap();
        assert_eq!((report.n_rows, report.n_positions), (4, 4));
        assert!(report.n_modules > 0 && report.largest_difference < 1e-5, "{report}");
        assert_eq!(names(&to), names(&base), "{name}");
        let merged = loaded(&to, DType::F32);
        assert!(merged.report.is_empty(), "{}", merged.report);
        let problem_type = Some(ProblemType::SingleLabel);
        let mut said = source.config().clone();
        said.problem_type = problem_type;
        assert_eq!(merged.encoder.config(), &said);
        assert_eq!(merged.encoder.config().labels, ["bad", "fair", "good"]);
        let merged = SequenceClassifier::with_head(merged.encoder, merged.head.unwrap(), &data).unwrap();
        let ours = logits(&merged, &data);
        assert!(relative_error(&ours, &logits(&model, &data)) < 1e-5, "{name}"); // f32
        let file = dir(name).join("expected.safetensors");
        assert!(relative_error(&ours.into_dyn(), &expected(&file, "logits")) < 1e-4, "{name}"); // f32, a hundred operations
    }
}

#[test]
fn biases_and_fused_projections_are_merged_where_they_are() {
    let (base, data, place) =
        (dir("tiny_modernbert").join("biased"), data("tiny_modernbert"), tempfile::tempdir().unwrap());
    let start = loaded(&base, DType::F32);
    let plain = SequenceClassifier::with_head(start.encoder, start.head.unwrap(), &data).unwrap();
    let model = moved(plain.clone(), &["Wqkv", "Wi", "dense"]);
    assert!(relative_error(&logits(&plain, &data), &logits(&model, &data)) > 1e-3);
    let to = place.path().join("merged");
    let labels = ["a", "b", "c"].map(String::from);
    let headed = HeadedNetwork::from(&model).with_labels(&labels);
    PretrainedEncoder::from_dir(&base).unwrap().merge_and_save(headed, &rows(&data), MERGE_TOLERANCE, &to).unwrap();
    assert_eq!(names(&to), names(&base));
    let merged = loaded(&to, DType::F32);
    assert_eq!(merged.encoder.config().labels, labels);
    assert_eq!(config(&to)["label2id"]["b"], 1);
    let merged = SequenceClassifier::with_head(merged.encoder, merged.head.unwrap(), &data).unwrap();
    assert!(relative_error(&logits(&merged, &data), &logits(&model, &data)) < 1e-5); // f32
}

#[test]
fn a_model_that_pools_in_another_way_says_so_and_transformers_loads_its_encoder_alone() {
    let (base, data, place) = (dir("tiny_bert").join("base"), data("tiny_bert"), tempfile::tempdir().unwrap());
    for (pooling, key) in [(Pooling::Mean, "pooling_mode_mean_tokens"), (Pooling::FirstToken, "pooling_mode_cls_token")]
    {
        let source = PretrainedEncoder::from_dir(&base).unwrap().with_pooling(pooling);
        let encoder = source.load(&device()).unwrap().encoder;
        let model = moved(SequenceClassifier::new(encoder, &data, 0).unwrap(), &["query"]);
        let to = place.path().join(key);
        source.merge_and_save((&model).into(), &rows(&data), MERGE_TOLERANCE, &to).unwrap();
        assert_eq!(config(&to)["architectures"][0], "BertModel");
        let pools: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(to.join("1_Pooling/config.json")).unwrap()).unwrap();
        assert_eq!((pools[key].as_bool(), pools["word_embedding_dimension"].as_u64()), (Some(true), Some(32)));
        let merged = loaded(&to, DType::F32);
        assert_eq!(merged.encoder.config().pooling, pooling);
        let merged = SequenceClassifier::with_head(merged.encoder, merged.head.unwrap(), &data).unwrap();
        assert!(relative_error(&logits(&merged, &data), &logits(&model, &data)) < 1e-5); // f32
    }
}

#[test]
fn a_decoder_is_merged_with_its_head_and_read_back_with_it() {
    let (base, data, place) = (dir("tiny_llama").join("base"), data("tiny_bert"), tempfile::tempdir().unwrap());
    let source = Pretrained::from_dir(&base).unwrap();
    let lm = || source.load(&device()).unwrap();
    let adapter = root().join("tests/fixtures/cases/seq_cls_score/adapter");
    let model = load_peft(SequenceClassifier::new(lm(), &data, 0).unwrap(), adapter).unwrap().0;
    let to = place.path().join("merged");
    source.merge_and_save_with_head((&model).into(), &rows(&data), 1e-5, &to).unwrap();
    assert_eq!(config(&to)["architectures"][0], "LlamaForSequenceClassification");
    assert_eq!(
        (config(&to)["id2label"]["2"].as_str(), config(&to)["problem_type"].as_str()),
        (Some("LABEL_2"), Some("single_label_classification"))
    );
    let mut expected = names(&base);
    expected.remove("lm_head.weight");
    expected.insert("score.weight".into());
    assert_eq!(names(&to), expected);

    let merged = Pretrained::from_dir(&to).unwrap();
    let error = merged.load(&device()).unwrap_err().to_string();
    assert!(error.contains("score.weight") && error.contains("load_with_head"), "{error}");
    let loaded = merged.load_with_head(&device()).unwrap();
    assert!(loaded.report.is_empty(), "{}", loaded.report);
    let again = SequenceClassifier::with_head(loaded.lm, loaded.head.unwrap(), &data).unwrap();
    assert!(relative_error(&logits(&again, &data), &logits(&model, &data)) < 1e-5); // f32

    // it is a base like another
    let further = moved(again, &["q_proj"]);
    let twice = place.path().join("twice");
    merged.merge_and_save_with_head((&further).into(), &rows(&data), MERGE_TOLERANCE, &twice).unwrap();
    assert_eq!(names(&twice), expected);
    // and a language model has no head for classes
    assert!(source.load_with_head(&device()).unwrap().head.is_none());
}

#[test]
fn a_reward_model_is_merged_with_one_output_and_no_word_for_it() {
    let (base, data, place) = (dir("tiny_qwen2").join("base"), data("tiny_bert"), tempfile::tempdir().unwrap());
    let source = Pretrained::from_dir(&base).unwrap();
    let mut pair = dataset(vec![data.items[0].rows[0].clone()], vec![0]);
    pair.items[0].rows.push(data.items[1].rows[0].clone());
    let pair = EncodedDataset { answers: ResolvedAnswers::Rewards, n_classes: 2, ..pair };
    let model = moved(RewardModel::new(source.load(&device()).unwrap(), &pair, 0).unwrap(), &["v_proj"]);
    let to = place.path().join("merged");
    source.merge_and_save_with_head((&model).into(), &rows(&data), MERGE_TOLERANCE, &to).unwrap();
    assert_eq!(config(&to)["id2label"].as_object().unwrap().len(), 1);
    assert!(config(&to).get("problem_type").is_none());
    let loaded = Pretrained::from_dir(&to).unwrap().load_with_head(&device()).unwrap();
    let again = RewardModel::with_head(loaded.lm, loaded.head.unwrap(), &pair).unwrap();
    assert!(relative_error(&logits(&again, &pair), &logits(&model, &pair)) < 1e-5); // f32
}

#[test]
fn what_cannot_be_merged_with_its_head_is_named_and_leaves_nothing() {
    let (base, data, place) = (dir("tiny_bert").join("base"), data("tiny_bert"), tempfile::tempdir().unwrap());
    let source = PretrainedEncoder::from_dir(&base).unwrap();
    let start = loaded(&base, DType::F32);
    let plain = SequenceClassifier::with_head(start.encoder, start.head.unwrap(), &data).unwrap();
    let model = moved(plain.clone(), &["query"]);
    let labels = vec!["a".to_string(); 2];
    let to = place.path().join("merged");
    let merge = |source: &PretrainedEncoder, model, rows: &[Vec<u32>], tolerance| {
        source.merge_and_save(model, rows, tolerance, &to).unwrap_err().to_string()
    };
    let other = PretrainedEncoder::from_dir(dir("tiny_modernbert").join("base")).unwrap();
    let headed = || HeadedNetwork::from(&model);
    let granite = Pretrained::from_dir(root().join("tests/fixtures/families/granite")).unwrap();
    let few_tokens = self::data("tiny_modernbert");
    let decoder = SequenceClassifier::new(granite.load(&device()).unwrap(), &few_tokens, 0).unwrap();
    let decoder = moved(decoder, &["q_proj"]);
    let cases: [(String, &[&str]); 7] = [
        (merge(&source, HeadedNetwork::from(&plain), &rows(&data), 1e-3), &["adapter", "empty"]),
        (merge(&source, headed().with_labels(&labels), &rows(&data), 1e-3), &["labels", "expected 3, found 2"]),
        (merge(&source, headed(), &[vec![5; 17]], 1e-3), &["row 0", "16", "17"]),
        (merge(&source, headed(), &[vec![96]], 1e-3), &["row 0", "96"]),
        (merge(&source, headed(), &rows(&data), 0.0), &["at most 0e0", "nothing was written"]),
        (merge(&other, headed(), &rows(&data), 1e-3), &["tiny_modernbert", "shape"]),
        (
            granite.merge_and_save_with_head((&decoder).into(), &[vec![3]], 1e-3, &to).unwrap_err().to_string(),
            &["granite", "transformers"],
        ),
    ];
    for (error, parts) in cases {
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
    }
    assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0);
}
