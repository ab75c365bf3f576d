//! `tokenizer.json` and the files beside it.

use super::harness::{FIXED_BYTES, File, fuzz};
use super::mutate::Kind;
use bayes_lora::data::{Tokenizer, TokenizerFiles};

/// Pieces as in sentencepiece, with a BOS token from the post-processor.
const PIECES: &str = r#"{"version": "1.0", "truncation": {"max_length": 9, "strategy": "LongestFirst", "stride": 0},
    "padding": null, "added_tokens": [{"id": 1, "content": "<s>", "single_word": false, "lstrip": false, "rstrip": false,
    "normalized": false, "special": true}], "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend",
    "prepend": "_"}, {"type": "Replace", "pattern": {"String": " "}, "content": "_"}]},
    "pre_tokenizer": {"type": "Split", "pattern": {"Regex": "[^_]+|_"}, "behavior": "Isolated", "invert": false},
    "post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}},
    {"Sequence": {"id": "A", "type_id": 0}}], "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B",
    "type_id": 1}}], "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}},
    "decoder": {"type": "Replace", "pattern": {"String": "_"}, "content": " "},
    "model": {"type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null,
    "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false, "vocab": {"<unk>": 0,
    "<s>": 1, "_": 2, "a": 3, "b": 4, "_a": 5}, "merges": [["_", "a"]]}}"#;
const CONFIG: &str = r#"{"bos_token": {"content": "<s>"}, "pad_token": null, "add_bos_token": true,
    "chat_template": [{"name": "default", "template": "{{ messages[0].content }}"}]}"#;
const MAP: &str = r#"{"pad_token": "<s>", "unk_token": {"content": "<unk>"}}"#;
const IDS: &str = r#"{"bos_token_id": 1, "eos_token_id": [1, 2], "pad_token_id": -1}"#;

#[test]
fn any_tokenizer_is_read_or_refused() {
    let file = |name, text| File::new(name, Kind::Json, text);
    let corpus = [vec![
        file("tokenizer.json", PIECES),
        file("tokenizer_config.json", CONFIG),
        file("special_tokens_map.json", MAP),
        file("config.json", IDS),
    ]];
    fuzz("tokenizer", FIXED_BYTES, &corpus, |input| {
        let bytes = |at: usize| input.files[at].bytes.as_slice();
        let tokenizer = Tokenizer::from_files(&TokenizerFiles {
            tokenizer: bytes(0),
            tokenizer_config: Some(bytes(1)),
            special_tokens_map: Some(bytes(2)),
            config: Some(bytes(3)),
            chat_template: None,
        })?;
        tokenizer.decode(&tokenizer.encode("a b", true)?).map(drop)
    });
}
