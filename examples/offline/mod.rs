//! The model and the questions that ship with the crate: stories260K and MMLU's areas, few of both.

use bayes_lora::data::{
    AnswerForm, BatchLimits, EncodedDataset, Encoding, PromptTemplate, Task, Tokenizer, Truncation,
};
use bayes_lora::models::{Pretrained, PromptClassifier};
use burn::tensor::Device;
use std::error::Error;
use std::path::{Path, PathBuf};

pub const LIMITS: BatchLimits = BatchLimits { max_items: 8, max_tokens: 4096 };

fn assets() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("assets")
}

/// The first `n` of the questions in the order of `seed`, cut to 64 tokens: the same items in every process.
pub fn questions(file: &str, n: usize, seed: u64) -> Result<EncodedDataset, Box<dyn Error>> {
    let tokenizer = Tokenizer::from_dir(assets().join("stories260K"))?;
    let encoding = Encoding::new(PromptTemplate::question_area(), AnswerForm::class_tokens(["A", "B", "C", "D"]))
        .with_max_tokens(64)
        .with_truncation(Truncation::End);
    let task = Task::from_jsonl(assets().join("mmlu_areas").join(file))?.sample(n, seed)?;
    Ok(encoding.encode(&task, &tokenizer)?)
}

/// The model without an adapter.
pub fn bare_model(data: &EncodedDataset) -> Result<PromptClassifier, Box<dyn Error>> {
    Ok(PromptClassifier::new(Pretrained::from_dir(assets().join("stories260K"))?.load(&Device::flex())?, data)?)
}
