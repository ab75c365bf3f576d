//! Text is generated as transformers generates it, as it would be without a cache and alone, and by each draw of a posterior by itself.
//!
//! `BAYES_LORA_PYTHON` and `BAYES_LORA_SMOLLM2` name a Python with torch and transformers and a directory with SmolLM2-135M for the real
//! model; without them that test says so and passes.

mod cache;
mod draws;
mod inputs;
mod posterior;
mod scores;
mod stories;

use crate::support::{device, root};
use bayes_lora::data::Tokenizer;
use bayes_lora::generate::{GenerationConfig, Generator, Request};
use bayes_lora::models::{CausalLm, Pretrained};
use burn::tensor::DType;
use serde::Deserialize;

/// The embedded model.
struct Stories {
    lm: CausalLm,
    tokenizer: Tokenizer,
}

impl Stories {
    fn load(dtype: DType) -> Self {
        let dir = root().join("assets/stories260K");
        let lm = Pretrained::from_dir(&dir).unwrap().with_dtype(dtype).load(&device()).unwrap();
        Self { lm, tokenizer: Tokenizer::from_dir(&dir).unwrap() }
    }

    fn generator(&self, config: GenerationConfig) -> Generator<'_> {
        Generator::new(&self.lm, &self.tokenizer, config).unwrap()
    }

    fn request(&self, text: &str) -> Request {
        Request::text(&self.tokenizer, text, text).unwrap()
    }
}

/// A line of tests/fixtures/generation/stories260K.json: what transformers goes on with.
#[derive(Deserialize)]
struct Story {
    prompt: String,
    prompt_ids: Vec<u32>,
    penalty: f64,
    ids: Vec<u32>,
    text: String,
}

fn stories() -> Vec<Story> {
    let file = root().join("tests/fixtures/generation/stories260K.json");
    serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()
}
