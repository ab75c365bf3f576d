//! Files of texts, completions and chats, read and encoded with a chat template.

use super::harness::{FIXED_BYTES, File, fuzz, scratch};
use super::mutate::Kind;
use bayes_lora::data::{TextEncoding, Tokenizer, TokenizerFiles, Truncation, read_texts};

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
        for tokenizer in &tokenizers {
            let data = encoding.encode("texts", &items, tokenizer)?;
            // what is accepted is scored within its own tokens
            assert!(data.examples.iter().all(|text| text.check().is_ok() && text.ids.len() <= 24));
            data.example(0, tokenizer)?;
        }
        Ok(())
    });
}
