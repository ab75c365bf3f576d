//! Adapters with heads that were trained and saved here give their logits in transformers with PEFT (`SEQ_CLS`), and in transformers alone
//! once they are merged.
//!
//! `BAYES_LORA_PYTHON` names a Python with torch, peft (0.21) and transformers, `python3` by default; without these packages the
//! tests say so and pass.

use crate::support::heads::{LIMITS, data, dir, expected, loaded};
use crate::support::python::{has_peft, run};
use crate::support::{device, logits, relative_error};
use bayes_lora::data::EncodedDataset;
use bayes_lora::lora::{LoraConfig, attach, load_peft, read_adapter, save_peft};
use bayes_lora::models::{
    Classifier, HeadedNetwork, LanguageModel, MERGE_TOLERANCE, MergeReport, Pretrained, PretrainedEncoder,
    SequenceClassifier, TokenBatch,
};
use bayes_lora::progress::Control;
use bayes_lora::train::{Trainer, TrainerConfig};
use burn::tensor::DType;
use std::path::Path;

/// Trains an adapter and a head, saves them, and compares the logits with those that transformers and PEFT give.
fn check<L: LanguageModel>(
    base: &Path,
    network: impl Fn() -> L,
    merge: impl Fn(HeadedNetwork<L>, &[Vec<u32>], &Path) -> bayes_lora::Result<MergeReport>,
    (targets, data): (&[&str], &EncodedDataset),
) where
    SequenceClassifier<L>: Classifier<Input = TokenBatch>,
{
    let lora = LoraConfig::new(2).with_alpha(4.0).with_target_modules(targets.to_vec());
    let start = attach(SequenceClassifier::new(network(), data, 3).unwrap(), &lora, 0).unwrap();
    let trainer = TrainerConfig::default().with_epochs(6).with_learning_rate(3e-2).with_limits(LIMITS);
    let model = Trainer::new(trainer).unwrap().fit(start.clone(), data, None, &Control::silent()).unwrap().model;
    let ours = logits(&model, data);
    assert!(relative_error(&logits(&start, data), &ours) > 0.1, "training moved little");

    let out = tempfile::tempdir().unwrap();
    save_peft(&model, &lora, &base.display().to_string(), out.path()).unwrap();
    let ids: Vec<Vec<u32>> = data.items.iter().map(|item| item.rows[0].ids.clone()).collect();
    let merged = out.path().join("merged");
    merge((&model).into(), &ids, &merged).unwrap();
    let (rows, file) = (serde_json::to_string(&ids).unwrap(), out.path().join("logits.safetensors"));
    let [base, adapter, written] = [base, out.path(), &file].map(|path| path.to_str().unwrap());
    run("peft_heads.py", &[base, adapter, &rows, "3", written]);
    // f32 on both sides
    let error = relative_error(&ours.clone().into_dyn(), &expected(&file, "logits"));
    assert!(error < 1e-4, "{base}: {error:e}");
    run("peft_heads.py", &[merged.to_str().unwrap(), "-", &rows, "3", written]);
    let error = relative_error(&ours.into_dyn(), &expected(&file, "logits"));
    assert!(error < 1e-5, "{base}, merged: {error:e}");
    let again = load_peft(SequenceClassifier::new(network(), data, 4).unwrap(), out.path()).unwrap().0;
    assert_eq!(read_adapter(&again).unwrap(), read_adapter(&model).unwrap());
}

#[test]
fn heads_of_encoders_give_their_logits_in_transformers() {
    if !has_peft("heads of encoders") {
        return;
    }
    for (name, targets) in [("tiny_bert", &["query", "value"][..]), ("tiny_modernbert", &["Wqkv", "Wo", "Wi"])] {
        let base = dir(name).join("base");
        let merge = |model: HeadedNetwork<_>, rows: &[Vec<u32>], to: &Path| {
            PretrainedEncoder::from_dir(&base)?.merge_and_save(model, rows, MERGE_TOLERANCE, to)
        };
        check(&base, || loaded(&base, DType::F32).encoder, merge, (targets, &data(name)));
    }
}

#[test]
fn heads_of_decoders_give_their_logits_in_transformers() {
    if !has_peft("heads of decoders") {
        return;
    }
    for name in ["tiny_llama/base", "tiny_qwen2/base"] {
        let base = dir(name);
        let network = || Pretrained::from_dir(&base).unwrap().load(&device()).unwrap();
        let merge = |model: HeadedNetwork<_>, rows: &[Vec<u32>], to: &Path| {
            Pretrained::from_dir(&base)?.merge_and_save_with_head(model, rows, MERGE_TOLERANCE, to)
        };
        check(&base, network, merge, (&["q_proj", "v_proj"], &data("tiny_bert")));
    }
}
