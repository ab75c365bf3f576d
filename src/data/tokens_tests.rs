//! Tests of the tokenizer: special tokens, spans, malformed files.

use super::*;
use crate::data::tiny::{pieces_json, words_json};

fn with_config(json: &str, config: &str) -> Result<Tokenizer> {
    Tokenizer::from_files(&TokenizerFiles {
        tokenizer: json.as_bytes(),
        tokenizer_config: Some(config.as_bytes()),
        ..TokenizerFiles::default()
    })
}

#[test]
fn the_begin_token_is_added_once_and_only_when_asked_for() {
    let with_processor = pieces_json(true);
    let without = pieces_json(false);
    let bos = |json: &str, config: &str| with_config(json, config).unwrap().encode("abc", true).unwrap()[0] == 1;
    for (json, config, expected) in [
        (&with_processor, "{}", true),
        (&with_processor, r#"{"bos_token": "<s>", "add_bos_token": true}"#, true),
        (&with_processor, r#"{"bos_token": "<s>", "add_bos_token": false}"#, false),
        (&without, "{}", false),
        (&without, r#"{"bos_token": "<s>", "add_bos_token": true}"#, true),
    ] {
        assert_eq!(bos(json, config), expected, "{config}");
        let tokenizer = with_config(json, config).unwrap();
        let plain = tokenizer.encode("abc", false).unwrap();
        let full = tokenizer.encode("abc", true).unwrap();
        assert_eq!(full.len(), plain.len() + usize::from(expected));
        assert!(full.ends_with(&plain));
    }
}

#[test]
fn an_empty_text_has_at_most_the_begin_token() {
    assert_eq!(Tokenizer::from_bytes(pieces_json(false).as_bytes()).unwrap().encode("", true).unwrap(), [0u32; 0]);
    let config = r#"{"bos_token": "<s>", "add_bos_token": true}"#;
    for processor in [false, true] {
        let tokenizer = with_config(&pieces_json(processor), config).unwrap();
        assert_eq!(tokenizer.encode("", true).unwrap(), [1]);
    }
}

#[test]
fn tokens_that_a_processor_appends_are_left_out() {
    let json = words_json().replace(
        r#""post_processor": null"#,
        r#""post_processor": {"type": "BertProcessing", "sep": ["no", 4], "cls": ["yes", 3]}"#,
    );
    let tokenizer = Tokenizer::from_bytes(json.as_bytes()).unwrap();
    assert_eq!(tokenizer.encode("is it", true).unwrap(), [3, 1, 2]);
}

#[test]
fn spans_point_at_the_bytes_of_the_text() {
    let tokenizer = Tokenizer::from_bytes(words_json().as_bytes()).unwrap();
    let tokens = tokenizer.encode_with_spans("is  it", true).unwrap();
    assert_eq!(tokens.spans, [Some((0, 2)), Some((4, 6))]);
}

#[test]
fn truncation_and_padding_of_the_file_are_switched_off() {
    let json = words_json()
        .replace(
            r#""truncation": null"#,
            r#""truncation": {"direction": "Right", "max_length": 1, "strategy": "LongestFirst", "stride": 0}"#,
        )
        .replace(
            r#""padding": null"#,
            r#""padding": {"strategy": {"Fixed": 9}, "direction": "Right", "pad_to_multiple_of": null,
                "pad_id": 0, "pad_type_id": 0, "pad_token": "?"}"#,
        );
    let tokenizer = Tokenizer::from_bytes(json.as_bytes()).unwrap();
    assert_eq!(tokenizer.encode("is it yes", true).unwrap().len(), 3);
}

#[test]
fn malformed_files_are_errors_and_never_panics() {
    for bad in ["", "{}", "[]", "{\"version\": \"1.0\"}"] {
        assert!(matches!(Tokenizer::from_bytes(bad.as_bytes()), Err(Error::Tokenizer { .. })));
    }
    // A WordLevel model without its unknown token fails only when it meets an unknown word.
    let json = words_json().replace(r#""unk_token": "?""#, r#""unk_token": "absent""#);
    let tokenizer = Tokenizer::from_bytes(json.as_bytes()).unwrap();
    assert!(matches!(tokenizer.encode("xyz", true), Err(Error::Tokenizer { .. })));
    let missing = with_config(&words_json(), r#"{"bos_token": "<s>", "add_bos_token": true}"#);
    assert!(missing.unwrap_err().to_string().contains("<s>"));
}

#[test]
fn an_expression_that_nests_without_end_is_refused_before_it_takes_the_stack() {
    let with = |expression: String| {
        let split = format!(
            r#"{{"type": "Split", "pattern": {{"Regex": "{expression}"}}, "behavior": "Isolated", "invert": false}}"#
        );
        Tokenizer::from_bytes(words_json().replace(r#"{"type": "Whitespace"}"#, &split).as_bytes())
    };
    // Oniguruma takes about 600 bytes of stack a level: this would end the process
    for open in ["[", "("] {
        let error = with(open.repeat(100_000)).unwrap_err().to_string();
        assert!(error.contains("opens 100000 brackets") && error.contains("256"), "{error}");
    }
    assert!(with("[a-z]+|(b)".into()).is_ok());
}

#[test]
fn a_panic_of_the_library_becomes_an_error() {
    let error = guarded::<()>("here", || panic!("odd {}", 1)).unwrap_err();
    assert_eq!(error.to_string(), "tokenizer here: panicked: odd 1");
}

#[test]
fn a_directory_is_read_with_what_lies_beside_the_tokenizer() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    assert!(matches!(Tokenizer::from_dir(dir.path()), Err(Error::Io { .. })));
    write("tokenizer.json", &pieces_json(false));
    write("config.json", r#"{"bos_token_id": 1, "eos_token_id": [2, 7], "pad_token_id": 999}"#);
    let tokenizer = Tokenizer::from_dir(dir.path()).unwrap();
    assert_eq!((tokenizer.bos_id(), tokenizer.eos_id()), (Some(1), Some(2)));
    // 999 is not in the vocabulary, so the pad falls back to EOS.
    assert_eq!(tokenizer.pad_id(), 2);
    assert!(!tokenizer.has_chat_template());
    write("chat_template.jinja", "{{ messages[0].content }}!");
    assert_eq!(Tokenizer::from_dir(dir.path()).unwrap().chat_prompt("a").unwrap(), "a!");
}
