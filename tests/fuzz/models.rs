//! Model directories: a configuration, one or several files of weights, and the index that lists them.

use super::harness::{FIXED_BYTES, File, fuzz, scratch};
use super::mutate::Kind;
use crate::support::{device, root};
use bayes_lora::models::Pretrained;

#[test]
fn any_model_directory_is_loaded_or_refused() {
    let files = |fixture: &str, weights: &[&'static str]| -> Vec<File> {
        let base = root().join("tests/fixtures").join(fixture).join("base");
        let json = ["config.json", "model.safetensors.index.json"].into_iter().filter(|name| base.join(name).is_file());
        let json = json.map(|name| File::read(base.join(name), name, Kind::Json));
        json.chain(weights.iter().map(|name| File::read(base.join(name), name, Kind::Tensors))).collect()
    };
    let shards =
        ["model-00001-of-00003.safetensors", "model-00002-of-00003.safetensors", "model-00003-of-00003.safetensors"];
    let corpus = [files("tiny_llama_variant", &shards), files("tiny_qwen2", &["model.safetensors"])];
    // a single file of weights would hide an index
    let dirs = [scratch(), scratch()];
    fuzz("model directory", FIXED_BYTES, &corpus, |input| {
        let dir = dirs[input.origin].path();
        input.write(dir);
        Pretrained::from_dir(dir)?.load(&device()).map(drop)
    });
}
