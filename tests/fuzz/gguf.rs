//! GGUF files: the container and every block in it, and the model that it holds.

use super::harness::{FIXED_BYTES, File, fuzz, scratch};
use super::mutate::Kind;
use crate::support::{device, root};
use bayes_lora::gguf::GgufFile;
use bayes_lora::models::{Pretrained, PretrainedEncoder};

#[test]
fn any_gguf_container_is_decoded_or_refused() {
    let dir = scratch();
    let path = dir.path().join("m.gguf");
    let corpus = ["blocks.gguf", "tiny_llama_variant.gguf"]
        .map(|name| vec![File::read(root().join("tests/fixtures/gguf").join(name), "m.gguf", Kind::Bytes)]);
    fuzz("GGUF container", FIXED_BYTES, &corpus, |input| {
        input.write(dir.path());
        let mut file = GgufFile::open(&path)?;
        file.names().iter().try_for_each(|name| file.values(name).map(drop))
    });
}

#[test]
fn any_gguf_model_is_loaded_or_refused() {
    let dir = scratch();
    let path = dir.path().join("m.gguf");
    let corpus = [
        "tiny_llama.gguf",
        "tiny_llama_variant.gguf",
        "tiny_qwen2.gguf",
        "tiny_granite.gguf",
        "tiny_phi3.gguf",
        "tiny_gemma3_text.gguf",
        "tiny_olmo3.gguf",
        "tiny_ministral3.gguf",
    ]
    .map(|name| vec![File::read(root().join("tests/fixtures/gguf").join(name), "m.gguf", Kind::Bytes)]);
    fuzz("GGUF model", FIXED_BYTES, &corpus, |input| {
        input.write(dir.path());
        Pretrained::from_gguf(&path)?.load(&device()).map(drop)
    });
}

#[test]
fn any_gguf_encoder_is_loaded_or_refused() {
    let dir = scratch();
    let path = dir.path().join("m.gguf");
    let corpus = [vec![File::read(root().join("tests/fixtures/gguf/tiny_bert.gguf"), "m.gguf", Kind::Bytes)]];
    fuzz("GGUF encoder", FIXED_BYTES, &corpus, |input| {
        input.write(dir.path());
        PretrainedEncoder::from_gguf(&path)?.load(&device()).map(drop)
    });
}
