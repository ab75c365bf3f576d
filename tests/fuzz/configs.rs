//! `config.json` of a model.

use super::harness::{FIXED_BYTES, File, fuzz};
use super::mutate::Kind;
use crate::support::families::{FAMILIES, SPELLINGS};
use crate::support::root;
use bayes_lora::models::{DecoderConfig, EncoderConfig};

#[test]
fn any_model_configuration_is_read_or_refused() {
    let fixtures = root().join("tests/fixtures");
    let plain = ["tiny_llama", "tiny_llama_variant", "tiny_qwen2"];
    let mut paths: Vec<_> = plain.iter().map(|name| fixtures.join(name).join("base/config.json")).collect();
    for family in FAMILIES {
        paths.extend(SPELLINGS.map(|file| fixtures.join("families").join(family).join(file)));
    }
    let corpus: Vec<_> = paths.into_iter().map(|path| vec![File::read(path, "config.json", Kind::Json)]).collect();
    fuzz("config.json", FIXED_BYTES, &corpus, |input| {
        let text = String::from_utf8_lossy(&input.files[0].bytes);
        DecoderConfig::from_json(&text, "config.json").map(drop)
    });
}

#[test]
fn any_configuration_of_an_encoder_is_read_or_refused() {
    let fixtures = root().join("tests/fixtures");
    let paths = ["tiny_bert/base", "tiny_modernbert/base", "tiny_modernbert/biased"];
    let paths = paths.iter().flat_map(|dir| SPELLINGS.map(|file| fixtures.join(dir).join(file)));
    let paths = paths.filter(|path| path.is_file()); // BERT has one spelling
    let corpus: Vec<_> = paths.map(|path| vec![File::read(path, "config.json", Kind::Json)]).collect();
    assert_eq!(corpus.len(), 5);
    // and what heads say of themselves
    let mut corpus = corpus;
    for (kind, n) in [("single_label_classification", 3), ("regression", 1)] {
        let mut config: serde_json::Value = serde_json::from_slice(&corpus[0][0].bytes).unwrap();
        let names =
            (0..n).map(|i| (i.to_string(), serde_json::json!(format!("LABEL_{i}")))).collect::<serde_json::Map<_, _>>();
        config
            .as_object_mut()
            .unwrap()
            .extend([("problem_type".into(), kind.into()), ("id2label".into(), names.into())]);
        corpus.push(vec![File::new("config.json", Kind::Json, config.to_string())]);
    }
    fuzz("config.json of an encoder", FIXED_BYTES, &corpus, |input| {
        let text = String::from_utf8_lossy(&input.files[0].bytes);
        EncoderConfig::from_json(&text, "config.json").map(drop)
    });
}
