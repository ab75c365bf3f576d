use super::*;
use crate::data::texts::Role;
use crate::data::tiny;
use crate::data::tokens::TokenizerFiles;

/// Letters, with a BOS token before a text and an end token.
fn letters() -> Tokenizer {
    let (json, config) = (tiny::pieces_json(true), br#"{"bos_token": "<s>", "eos_token": "</s>"}"#);
    let files =
        TokenizerFiles { tokenizer: json.as_bytes(), tokenizer_config: Some(config), ..TokenizerFiles::default() };
    Tokenizer::from_files(&files).unwrap()
}

fn one(encoding: &TextEncoding, item: TextItem) -> Result<TextDataset> {
    encoding.encode("t", &[item], &letters())
}

fn plain_text(text: &str) -> TextItem {
    TextItem { id: "q7".into(), content: TextContent::Text(text.into()) }
}

#[test]
fn a_completion_is_scored_from_where_the_prompts_own_tokens_end_to_the_end_token() {
    // `▁ a` and the end; the merged piece `▁c` begins the completion
    let data = one(&TextEncoding::default(), TextItem::completion("q7", "a", " cd")).unwrap();
    assert_eq!((&data.examples[0].ids[..], &data.examples[0].scored[..]), (&[1, 3, 4, 10, 7, 2][..], &[3..6][..]));
    let everything = TextEncoding::default().with_scored(ScoredPart::Everything).with_end_token(false);
    let data = one(&everything, TextItem::completion("q7", "a", " cd")).unwrap();
    assert_eq!((data.examples[0].ids.len(), &data.examples[0].scored[..]), (5, &[1..5][..]));
    // of a text all but its first token
    let data = one(&TextEncoding::default(), plain_text("ab")).unwrap();
    assert_eq!((&data.examples[0].ids[..], &data.examples[0].scored[..]), (&[1, 3, 4, 5, 2][..], &[1..5][..]));
}

#[test]
fn what_does_not_fit_is_refused_with_both_numbers_or_cut_and_counted() {
    let refuse = TextEncoding::default().with_max_tokens(6);
    let error = one(&refuse, TextItem::completion("q7", "ab", "abab")).unwrap_err();
    assert!(matches!(&error, Error::PromptTooLong { item, tokens: 9, limit: 6 } if item == "q7"), "{error}");
    let cut = refuse.clone().with_truncation(Truncation::End);
    let data = one(&cut, TextItem::completion("q7", "ab", "abab")).unwrap();
    assert_eq!((&data.examples[0].ids[..], data.n_truncated), (&[1, 3, 4, 5, 4, 5][..], 1));
    assert_eq!(data.examples[0].scored, [4..6]);
    // a prompt that leaves no room for its answer is refused in any case
    let error = one(&cut, TextItem::completion("q7", "abcde", "a")).unwrap_err();
    assert!(matches!(&error, Error::PromptTooLong { tokens: 7, limit: 6, .. }), "{error}");
    for wrong in [TextEncoding::default().with_max_tokens(1), cut.with_truncation(Truncation::Start)] {
        assert!(matches!(one(&wrong, plain_text("a")).unwrap_err(), Error::Config { .. }));
    }
}

#[test]
fn what_cannot_be_learnt_is_named() {
    let none = Tokenizer::from_bytes(tiny::words_json().as_bytes()).unwrap();
    let text = |item: TextItem| TextEncoding::default().encode("t", &[item], &none).unwrap_err().to_string();
    assert!(text(plain_text("is it")).contains("end token"));
    assert!(text(TextItem::completion("q7", "is it", " ")).contains("`q7`"));
    let chat = |turns: &[(Role, &str)]| {
        let turn = |(role, content): &(Role, &str)| ChatTurn { role: *role, content: (*content).into() };
        TextItem { id: "q7".into(), content: TextContent::Chat(turns.iter().map(turn).collect()) }
    };
    assert!(text(chat(&[(Role::User, "is")])).contains("`q7`"));
    let error = text(chat(&[(Role::User, "is"), (Role::Assistant, "it")]));
    assert!(error.contains("`q7`") && error.contains("no chat template"), "{error}");
    assert!(TextEncoding::default().encode("t", &[], &none).unwrap_err().to_string().contains("`t`"));
    let alone = TextEncoding::default().with_end_token(false).encode("t", &[plain_text("is")], &none).unwrap_err();
    assert!(alone.to_string().contains("q7"), "nothing comes before a text's only token: {alone}");
}
