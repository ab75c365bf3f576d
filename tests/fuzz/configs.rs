//! `config.json` of a model.

use crate::harness::{FIXED_BYTES, File, fuzz};
use crate::mutate::Kind;
use crate::support::root;
use bayes_lora::models::DecoderConfig;

#[test]
fn any_model_configuration_is_read_or_refused() {
    let fixtures = ["tiny_llama", "tiny_llama_variant", "tiny_qwen2"];
    let corpus = fixtures.map(|name| {
        let path = root().join("tests/fixtures").join(name).join("base/config.json");
        vec![File::read(path, "config.json", Kind::Json)]
    });
    fuzz("config.json", FIXED_BYTES, &corpus, |input| {
        let text = String::from_utf8_lossy(&input.files[0].bytes);
        DecoderConfig::from_json(&text, "config.json").map(drop)
    });
}
