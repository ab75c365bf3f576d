//! The model and the questions that ship with the crate: stories260K (a 1 MB Llama) and MMLU's areas.

use crate::Outcome;
use bayes_lora::data::{AnswerForm, Encoding, PromptTemplate, Task, Tokenizer, Truncation};
use bayes_lora::models::{CausalLm, Pretrained};
use burn::tensor::Device;

/// The model's directory.
pub const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/stories260K");

pub fn tokenizer() -> Outcome<Tokenizer> {
    Ok(Tokenizer::from_dir(MODEL)?)
}

pub fn language_model() -> Outcome<CausalLm> {
    Ok(Pretrained::from_dir(MODEL)?.load(&Device::flex())?)
}

/// The questions of a part, `train` or `test`.
pub fn questions(part: &str) -> Outcome<Task> {
    Ok(Task::from_jsonl(format!("{}/assets/mmlu_areas/{part}.jsonl.gz", env!("CARGO_MANIFEST_DIR")))?)
}

/// Asks for an area by a letter, in prompts cut to 64 tokens.
pub fn encoding<'a>(letters: impl IntoIterator<Item = &'a str>) -> Encoding {
    Encoding::new(PromptTemplate::question_area(), AnswerForm::class_tokens(letters))
        .with_max_tokens(64)
        .with_truncation(Truncation::End)
}
