//! Files of texts, completions and chats, read and encoded with a chat template.

use super::harness::{FIXED_BYTES, File, fuzz, scratch};
use super::mutate::Kind;
use bayes_lora::data::{
    BatchLimits, BatchOrder, ChatTurn, TextContent, TextEncoding, TextItem, Tokenizer, TokenizerFiles, Truncation,
    read_texts,
};
use serde_json::Value;

const TEXTS: &str = r#"{"text": "is it"}
{"id": "a", "prompt": "is it?", "completion": " yes é\n"}

{"id": 7, "messages": [{"role": "system", "content": "no"}, {"role": "user", "content": "is it"}, {"role": "assistant", "content": "yes"}]}
{"messages": [{"role": "user", "content": ""}, {"role": "assistant", "content": "\ud83d\ude00 it "}, {"role": "user", "content": "it"}, {"role": "assistant", "content": "no"}]}
"#;

const TOKENIZER: &str = r#"{"version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
    "pre_tokenizer": {"type": "Whitespace"}, "post_processor": null, "decoder": null,
    "model": {"type": "WordLevel", "vocab": {"?": 0, "is": 1, "it": 2, "yes": 3, "no": 4, "</s>": 5}, "unk_token": "?"}}"#;

const TEMPLATES: [&str; 2] = [
    "{% for m in messages %}<{{ m.role }}> {{ m.content }} </> {% endfor %}{% if add_generation_prompt %}<assistant> {% endif %}",
    "{% for m in messages %}<{{ m.role }}> {% if m.role == 'assistant' %}{% generation %}{{ m.content }} </>{% endgeneration %}\
     {% else %}{{ m.content }}</>{% endif %} {% endfor %}",
];

/// Whether what was read says what the line says, where the line has objects for objects and texts for texts.
fn is_as_written(item: &TextItem, line: &Value) -> bool {
    let is = |name: &str, words: &str| line[name].as_str() == Some(words);
    match &item.content {
        TextContent::Text(text) => is("text", text),
        TextContent::Completion { prompt, completion } => is("prompt", prompt) && is("completion", completion),
        TextContent::Chat(turns) => line["messages"].as_array().is_some_and(|messages| {
            let same = |(turn, message): (&ChatTurn, &Value)| {
                message.is_object() && message["role"] == turn.role.name() && message["content"] == turn.content
            };
            messages.len() == turns.len() && turns.iter().zip(messages).all(same)
        }),
    }
}

#[test]
fn any_file_of_texts_is_read_and_encoded_or_refused() {
    let dir = scratch();
    let tokenizers = TEMPLATES.map(|template| {
        Tokenizer::from_files(&TokenizerFiles {
            tokenizer: TOKENIZER.as_bytes(),
            tokenizer_config: Some(br#"{"eos_token": "</s>"}"#),
            chat_template: Some(template.as_bytes()),
            ..TokenizerFiles::default()
        })
        .unwrap()
    });
    let encoding = TextEncoding::default().with_max_tokens(24).with_truncation(Truncation::End);
    let corpus = [vec![File::new("t.jsonl", Kind::Lines, TEXTS)]];
    fuzz("texts", FIXED_BYTES, &corpus, |input| {
        input.write(dir.path());
        let items = read_texts(dir.path().join("t.jsonl"))?;
        let lines = std::fs::read_to_string(dir.path().join("t.jsonl")).unwrap();
        let lines = lines.trim_start_matches('\u{feff}').lines().filter(|line| !line.trim().is_empty());
        for (item, line) in items.iter().zip(lines) {
            assert!(is_as_written(item, &serde_json::from_str(line.trim()).unwrap()), "{line}");
        }
        for tokenizer in &tokenizers {
            let data = encoding.encode("texts", &items, tokenizer)?;
            // what is accepted is scored within its own tokens
            assert!(data.examples.iter().all(|text| text.check().is_ok() && text.ids.len() <= 24));
            data.example(0, tokenizer)?;
            let limits = BatchLimits { max_items: 3, max_tokens: 40 };
            let packed = data.plan_packed(limits, BatchOrder::ByLength, 30)?;
            assert_eq!(packed.concat().len(), data.len());
        }
        Ok(())
    });
}
