//! Chat templates, parsed and rendered. What a template holds while it runs is on a thread of its own and not measured.

use super::harness::{FIXED_BYTES, File, fuzz};
use super::mutate::Kind;
use bayes_lora::data::ChatFormat;
use bayes_lora::data::SpecialTokens;

const TEMPLATES: [&str; 2] = [
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are \
     helpful<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}\
     {% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
    "{{- bos_token }}{%- set date = strftime_now('%d %b %Y') %}{%- macro show(m) %}{{ m.content | trim }}{% endmacro %}\
     {%- for m in messages if m.role in ['user', 'assistant'] %}{{ show(m) ~ eos_token }}{# a remark #}{%- else %}\
     {{ raise_exception('empty: ' ~ tools|length) }}{%- endfor %}{{ messages[-1]['content'].split(' ')[0] | upper }}",
];

#[test]
fn any_chat_template_renders_or_is_refused() {
    let special = SpecialTokens { bos: Some("<s>".into()), eos: Some("</s>".into()), ..SpecialTokens::default() };
    let corpus = TEMPLATES.map(|text| vec![File::new("chat_template.jinja", Kind::Template, text)]);
    fuzz("chat template", FIXED_BYTES, &corpus, |input| {
        let source = String::from_utf8_lossy(&input.files[0].bytes);
        ChatFormat::new(&source, &special)?.render("Is it so?").map(drop)
    });
}
