//! Tokens and masks of chats against transformers (`tests/fixtures/make_text.py`).

use crate::support::root;
use bayes_lora::data::{ChatTurn, TextContent, TextEncoding, TextItem, Tokenizer, TokenizerFiles};
use std::path::{Path, PathBuf};

/// The template that the fixture was made with, and the same without its marks, which is then asked by prefixes.
fn templates(marked: &str) -> [String; 2] {
    [marked.into(), marked.replace("{% generation %}", "").replace("{% endgeneration %}", "")]
}

fn tokenizer(dir: &Path, template: &str) -> Tokenizer {
    let read = |name: &str| std::fs::read(dir.join(name)).ok();
    let files = [read("tokenizer.json").unwrap(), read("special_tokens_map.json").unwrap()];
    Tokenizer::from_files(&TokenizerFiles {
        tokenizer: &files[0],
        special_tokens_map: Some(&files[1]),
        chat_template: Some(template.as_bytes()),
        ..TokenizerFiles::default()
    })
    .unwrap()
}

#[test]
fn tokens_and_scored_tokens_of_chats_are_those_of_transformers() {
    let text = std::fs::read_to_string(root().join("tests/fixtures/text/chats.json")).unwrap();
    let fixture: serde_json::Value = serde_json::from_str(&text).unwrap();
    let chats: Vec<Vec<ChatTurn>> = serde_json::from_value(fixture["chats"].clone()).unwrap();
    let directories = [
        ("stories260K", Some(root().join("assets/stories260K"))),
        ("SmolLM2", std::env::var_os("BAYES_LORA_SMOLLM2").map(PathBuf::from)),
    ];
    for (name, dir) in directories {
        let Some(dir) = dir else {
            println!("SKIPPED: BAYES_LORA_SMOLLM2 is not set");
            continue;
        };
        for template in templates(fixture["template"].as_str().unwrap()) {
            let tokenizer = tokenizer(&dir, &template);
            for (index, turns) in chats.iter().enumerate() {
                let item = TextItem { id: index.to_string(), content: TextContent::Chat(turns.clone()) };
                let data = TextEncoding::default().encode("chats", &[item], &tokenizer).unwrap();
                let (expected, found) = (&fixture["tokenizers"][name][index], &data.examples[0]);
                let ids: Vec<u32> = serde_json::from_value(expected["ids"].clone()).unwrap();
                assert_eq!(found.ids, ids, "{name} {index}");
                let mask: Vec<u8> = serde_json::from_value(expected["mask"].clone()).unwrap();
                let scored: Vec<usize> = (0..ids.len()).filter(|t| mask[*t] == 1).collect();
                assert!(!scored.is_empty());
                assert_eq!(found.scored_places().collect::<Vec<_>>(), scored, "{name} {index}");
            }
        }
    }
}
