//! Bad input is an error that names the thing and both numbers.

use super::Stories;
use bayes_lora::error::Result;
use bayes_lora::generate::{GenerationConfig, Generator, Request};
use bayes_lora::progress::Control;
use burn::tensor::DType;
use std::fmt::Debug;

fn assert_says<T: Debug>(result: Result<T>, parts: &[&str]) {
    let error = result.unwrap_err().to_string();
    parts.iter().for_each(|part| assert!(error.contains(part), "{error} lacks {part}"));
}

#[test]
fn prompts_that_cannot_be_read_are_named() {
    let model = Stories::load(DType::F32);
    let generator = model.generator(GenerationConfig::default());
    let answers = |ids: Vec<u32>| generator.answers(&[Request::new("q7", ids)], &Control::silent());
    assert_says(answers(Vec::new()), &["`q7`", "empty"]);
    assert_says(answers(vec![5; 513]), &["`q7`", "512", "513"]);
    assert_says(answers(vec![5, 512]), &["`q7`", "below the vocabulary's 512", "got 512"]);
    assert_eq!(answers(vec![5; 512]).unwrap()[0].tokens.len(), 1);
    assert_eq!(generator.answers(&[], &Control::silent()).unwrap(), []);
    // without a chat template
    assert_says(Request::chat(&model.tokenizer, "q7", "Hello"), &["no chat template"]);
}

#[test]
fn settings_that_cannot_be_kept_are_named() {
    let model = Stories::load(DType::F32);
    let generator = |config| Generator::new(&model.lm, &model.tokenizer, config);
    let plain = GenerationConfig::default;
    assert_says(generator(plain().with_top_p(0.0)), &["top_p", "(0, 1]", "got 0"]);
    assert_says(generator(plain().with_end_tokens(vec![2, 600])), &["end token", "512", "600"]);
    let endless = plain().with_end_tokens(Vec::new()).with_max_new_tokens(None);
    assert_says(generator(endless.clone()), &["no end token", "max_new_tokens"]);
    assert!(generator(endless.clone().with_max_new_tokens(3)).is_ok());
    assert!(generator(endless.with_stop(["."])).is_ok());
}

#[test]
fn answers_that_cannot_be_followed_are_named() {
    let model = Stories::load(DType::F32);
    let generator = model.generator(GenerationConfig::default());
    let request = Request::new("q7", vec![5; 500]);
    assert_says(generator.follow(&request, &[]), &["answer to `q7`", "empty"]);
    assert_says(generator.follow(&request, &[512]), &["answer to `q7`", "512"]);
    assert_says(generator.follow(&request, &[5; 14]), &["`q7`", "512", "513"]);
    assert_eq!(generator.follow(&request, &[5; 13]).unwrap().len(), 13);
}
