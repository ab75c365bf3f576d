//! Files of texts, completions and chats, and of preferences, read and encoded with a chat template.

use super::harness::{FIXED_BYTES, File, fuzz, scratch};
use super::mutate::Kind;
use bayes_lora::data::{
    AnswerForm, BatchLimits, BatchOrder, ChatTurn, Encoding, PromptTemplate, Task, TextContent, TextEncoding, TextItem,
    Tokenizer, TokenizerFiles, Truncation, read_texts,
};
use serde_json::Value;

const TEXTS: &str = r#"{"text": "is it"}
{"id": "a", "prompt": "is it?", "completion": " yes é\n"}

{"id": 7, "messages": [{"role": "system", "content": "no"}, {"role": "user", "content": "is it"}, {"role": "assistant", "content": "yes"}]}
{"messages": [{"role": "user", "content": ""}, {"role": "assistant", "content": "\ud83d\ude00 it "}, {"role": "user", "content": "it"}, {"role": "assistant", "content": "no"}]}
"#;

const PREFERENCES: &str = r#"{"prompt": "is it?", "chosen": "yes é", "rejected": "no", "id": 7}
{"chosen": "is it? yes", "rejected": "is it? no"}

{"prompt": [{"role": "system", "content": "it"}, {"role": "user", "content": "is it is it is it is it"}], "chosen": [{"role": "assistant", "content": "yes"}], "rejected": [{"role": "assistant", "content": "\ud83d\ude00 no "}]}
{"prompt": "is it", "chosen": [{"role": "user", "content": "is it"}, {"role": "assistant", "content": "yes"}], "rejected": [{"role": "user", "content": "is it"}, {"role": "assistant", "content": "no"}]}
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

fn tokenizers() -> [Tokenizer; 2] {
    TEMPLATES.map(|template| {
        Tokenizer::from_files(&TokenizerFiles {
            tokenizer: TOKENIZER.as_bytes(),
            tokenizer_config: Some(br#"{"eos_token": "</s>"}"#),
            chat_template: Some(template.as_bytes()),
            ..TokenizerFiles::default()
        })
        .unwrap()
    })
}

#[test]
fn any_file_of_texts_is_read_and_encoded_or_refused() {
    let (dir, tokenizers) = (scratch(), tokenizers());
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

#[test]
fn any_file_of_preferences_is_read_and_encoded_or_refused() {
    let (dir, tokenizers) = (scratch(), tokenizers());
    let encoding = Encoding::new(PromptTemplate::text(), AnswerForm::Rewards).with_chat(true).with_max_tokens(24);
    let encoding = encoding.with_truncation(Truncation::Start);
    let corpus = [vec![File::new("t.jsonl", Kind::Lines, PREFERENCES)]];
    fuzz("preferences", FIXED_BYTES, &corpus, |input| {
        input.write(dir.path());
        let task = Task::from_preferences_jsonl(dir.path().join("t.jsonl"))?;
        for tokenizer in &tokenizers {
            let data = encoding.encode(&task, tokenizer)?;
            // what is accepted is two answers of which one is right, within the limit
            assert!(data.items.iter().all(|item| item.rows.len() == 2 && item.label.is_some_and(|label| label < 2)));
            assert!(data.items.iter().flat_map(|item| &item.rows).all(|row| row.ids.len() <= 24));
        }
        Ok(())
    });
}
