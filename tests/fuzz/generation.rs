//! `generation_config.json`, beside the `config.json` that its end tokens may come from.

use super::harness::{FIXED_BYTES, File, fuzz, scratch};
use super::mutate::Kind;
use bayes_lora::generate::GenerationConfig;

const OWN: &str = r#"{"do_sample": true, "temperature": 0.7, "top_k": 20, "top_p": 0.8, "min_p": 0.05, "repetition_penalty": 1.05,
    "eos_token_id": [5, 3], "num_beams": 1, "no_repeat_ngram_size": 0, "typical_p": 1.0, "suppress_tokens": null, "max_length": 20}"#;
const MODEL: &str = r#"{"eos_token_id": 9, "model_type": "llama"}"#;

#[test]
fn any_settings_of_a_models_owner_are_read_or_refused() {
    let file = |name, text| File::new(name, Kind::Json, text);
    let other = OWN.replace("[5, 3]", "null");
    let corpus = [OWN, &other].map(|own| vec![file("generation_config.json", own), file("config.json", MODEL)]);
    let dir = scratch();
    fuzz("generation_config.json", FIXED_BYTES, &corpus, |input| {
        input.write(dir.path());
        // what is read can be used
        GenerationConfig::from_dir(dir.path())?.validate()
    });
}
