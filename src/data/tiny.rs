//! Tokenizers small enough to read, for this folder's tests.

use super::tokens::Tokenizer;

/// Whole words; punctuation stands alone.
pub(crate) fn words_json() -> String {
    r#"{"version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": {"type": "Whitespace"}, "post_processor": null, "decoder": null,
        "model": {"type": "WordLevel", "unk_token": "?",
            "vocab": {"?": 0, "is": 1, "it": 2, "yes": 3, "no": 4, "Answer": 5, ":": 6, "one": 7, "two": 8,
                      "three": 9, "Question": 10, "maybe so": 11}}}"#
        .into()
}

/// Letters a–e with the piece `▁c`: spaces become `▁`, and a text begins with one, as in sentencepiece.
pub(crate) fn pieces_json(bos_in_processor: bool) -> String {
    let processor = if bos_in_processor {
        r#"{"type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}}"#
    } else {
        "null"
    };
    let added: Vec<String> = ["<unk>", "<s>", "</s>"]
        .iter()
        .enumerate()
        .map(|(id, content)| {
            format!(
                r#"{{"id": {id}, "content": "{content}", "single_word": false, "lstrip": false, "rstrip": false,
                    "normalized": false, "special": true}}"#
            )
        })
        .collect();
    format!(
        r#"{{"version": "1.0", "truncation": null, "padding": null, "added_tokens": [{}],
            "normalizer": {{"type": "Sequence", "normalizers": [{{"type": "Prepend", "prepend": "▁"}},
                {{"type": "Replace", "pattern": {{"String": " "}}, "content": "▁"}}]}},
            "pre_tokenizer": null, "post_processor": {processor},
            "decoder": {{"type": "Replace", "pattern": {{"String": "▁"}}, "content": " "}},
            "model": {{"type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null,
                "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
                "vocab": {{"<unk>": 0, "<s>": 1, "</s>": 2, "▁": 3, "a": 4, "b": 5, "c": 6, "d": 7, "e": 8, ":": 9,
                           "▁c": 10}},
                "merges": [["▁", "c"]]}}}}"#,
        added.join(", ")
    )
}

pub(crate) fn words() -> Tokenizer {
    Tokenizer::from_bytes(words_json().as_bytes()).unwrap()
}

/// With the BOS token from the post-processor.
pub(crate) fn pieces() -> Tokenizer {
    Tokenizer::from_bytes(pieces_json(true).as_bytes()).unwrap()
}
