//! Tests of the encoding: boundaries, truncation, class tokens, chat.

use super::*;
use crate::data::prompt::PromptTemplate;
use crate::data::tiny;
use crate::data::tokens::TokenizerFiles;
use crate::data::truncate::Truncation;

/// Prompts are the body's letters and `a:`; one piece for each letter, `▁` for a space.
fn letters() -> PromptTemplate {
    PromptTemplate::new("letters", "{{ question }}", "a:").unwrap()
}

fn task(question: &str, choices: &[&str]) -> Task {
    let item = Item::new("q1", question, choices.iter().copied()).with_answer(0);
    Task::new("t", vec![item]).unwrap()
}

fn continuation() -> AnswerForm {
    AnswerForm::Continuation { normalization: Normalization::Sum }
}

fn tokens_of(row: &EncodedRow) -> String {
    let tokenizer = tiny::pieces();
    let tokens: Vec<String> = row.ids.iter().map(|id| tokenizer.token(*id)).collect();
    tokens.join(" ")
}

fn encode(encoding: &Encoding, question: &str, choices: &[&str]) -> Result<EncodedDataset> {
    encoding.encode(&task(question, choices), &tiny::pieces())
}

#[test]
fn class_tokens_make_one_row_that_ends_with_the_cue() {
    let encoding = Encoding::new(letters(), AnswerForm::class_tokens(["b", "d"]));
    let data = encode(&encoding, "de", &["x", "y"]).unwrap();
    assert_eq!(tokens_of(&data.items[0].rows[0]), "<s> ▁ d e a :");
    assert!(data.items[0].rows[0].scored.is_empty());
    assert_eq!(data.answers, ResolvedAnswers::ClassTokens(vec![5, 7]));
    assert_eq!((data.n_classes, data.items[0].label, data.n_truncated), (2, Some(0), 0));
}

#[test]
fn an_item_may_have_fewer_choices_than_there_are_classes_but_not_more() {
    let encoding = Encoding::new(letters(), AnswerForm::class_tokens(["b", "d", "e"]));
    let data = encode(&encoding, "d", &["x", "y"]).unwrap();
    assert_eq!((data.n_classes, data.items[0].n_choices), (3, 2));
    let error = encode(&encoding, "d", &["1", "2", "3", "4"]).unwrap_err();
    assert!(matches!(error, Error::Count { expected: 3, found: 4, .. }), "{error}");
}

#[test]
fn a_continuation_is_the_prompt_a_space_and_the_choice() {
    let data = encode(&Encoding::new(letters(), continuation()), "d", &[" bb ", "c"]).unwrap();
    let [first, second] = data.items[0].rows.as_slice() else {
        panic!("two rows");
    };
    assert_eq!(tokens_of(first), "<s> ▁ d a : ▁ b b");
    assert_eq!(first.scored, 5..8);
    assert_eq!(tokens_of(second), "<s> ▁ d a : ▁c");
    assert_eq!(second.scored, 5..6);
    assert_eq!(data.answers, ResolvedAnswers::Continuation);
}

#[test]
fn a_token_that_merges_prompt_and_choice_is_scored() {
    // The prompt ends in a space, so no second one is put; `▁` and `c` become the one piece `▁c`.
    let template = PromptTemplate::new("spaced", "{{ question }}", "a: ").unwrap();
    let data = encode(&Encoding::new(template, continuation()), "d", &["c", "b"]).unwrap();
    let rows = &data.items[0].rows;
    assert_eq!((tokens_of(&rows[0]).as_str(), rows[0].scored.clone()), ("<s> ▁ d a : ▁c", 5..6));
    assert_eq!((tokens_of(&rows[1]).as_str(), rows[1].scored.clone()), ("<s> ▁ d a : ▁ b", 6..7));
}

#[test]
fn per_character_divides_by_characters_and_not_by_bytes() {
    let form = AnswerForm::Continuation { normalization: Normalization::PerCharacter };
    let data = encode(&Encoding::new(letters(), form), "d", &["abcd", "éé"]).unwrap();
    let weights: Vec<f64> = data.items[0].rows.iter().map(|r| r.weight).collect();
    assert_eq!(weights, [0.25, 0.5]);
}

#[test]
fn truncation_shortens_the_body_alone_and_is_counted() {
    let encoding = Encoding::new(letters(), AnswerForm::class_tokens(["b", "d"]));
    let shortened = |max, truncation| {
        let encoding = encoding.clone().with_max_tokens(max).with_truncation(truncation);
        let data = encode(&encoding, "bcde", &["x", "y"]).unwrap();
        (tokens_of(&data.items[0].rows[0]), data.n_truncated)
    };
    assert_eq!(shortened(8, Truncation::Refuse), ("<s> ▁ b c d e a :".into(), 0));
    assert_eq!(shortened(6, Truncation::Start), ("<s> c d e a :".into(), 1));
    assert_eq!(shortened(6, Truncation::End), ("<s> ▁ b c a :".into(), 1));
    assert_eq!(shortened(3, Truncation::Start), ("<s> a :".into(), 1));
}

#[test]
fn what_cannot_fit_is_refused_with_item_and_both_numbers() {
    let encoding = Encoding::new(letters(), AnswerForm::class_tokens(["b", "d"]));
    let refuse = encode(&encoding.clone().with_max_tokens(7), "bcde", &["x", "y"]);
    assert!(matches!(refuse, Err(Error::PromptTooLong { tokens: 8, limit: 7, .. })));
    let cue = encoding.with_max_tokens(2).with_truncation(Truncation::Start);
    let error = encode(&cue, "bcde", &["x", "y"]).unwrap_err();
    assert!(matches!(error, Error::PromptCannotShrink { tokens: 3, limit: 2, .. }), "{error}");
    assert!(error.to_string().contains("q1"));
}

#[test]
fn the_rows_of_an_item_are_shortened_alike_and_keep_their_continuations() {
    for (truncation, prompt) in [(Truncation::Start, "<s> e a :"), (Truncation::End, "<s> ▁ a :")] {
        let encoding = Encoding::new(letters(), continuation()).with_max_tokens(8).with_truncation(truncation);
        let data = encode(&encoding, "bcde", &["bbb", "d"]).unwrap();
        let rows = &data.items[0].rows;
        assert_eq!(tokens_of(&rows[0]), format!("{prompt} ▁ b b b"));
        assert_eq!(tokens_of(&rows[1]), format!("{prompt} ▁ d"));
        assert_eq!((rows[0].scored.clone(), rows[1].scored.clone()), (4..8, 4..6));
        assert_eq!(data.n_truncated, 1);
    }
}

#[test]
fn class_tokens_must_be_the_same_after_every_cue() {
    let template = PromptTemplate::new("varying", "d", "{{ subject }}").unwrap();
    let items = ["a:", "a: "].map(|cue| Item::new(cue, "", ["x", "y"]).with_subject(cue));
    let task = Task::new("t", items.to_vec()).unwrap();
    // `b` is one token after both; `c` merges with the second cue's space.
    let encoding = Encoding::new(template, AnswerForm::class_tokens(["b", "d"]));
    assert!(encoding.encode(&task, &tiny::pieces()).is_ok());
    let encoding = Encoding { answers: AnswerForm::class_tokens(["b", "c"]), ..encoding };
    assert!(matches!(encoding.encode(&task, &tiny::pieces()), Err(Error::ClassNotOneToken { .. })));
}

#[test]
fn in_chat_the_body_is_the_message_and_the_cue_opens_the_answer() {
    let json = tiny::pieces_json(true);
    let files = TokenizerFiles {
        tokenizer: json.as_bytes(),
        chat_template: Some("<s>ab{{ messages[0].content | trim }}</s>e".as_bytes()),
        ..TokenizerFiles::default()
    };
    let tokenizer = Tokenizer::from_files(&files).unwrap();
    let encoding = Encoding::new(letters(), AnswerForm::class_tokens(["b", "d"])).with_chat(true);
    let shown = |encoding: &Encoding| {
        let data = encoding.encode(&task("bcd ", &["x", "y"]), &tokenizer).unwrap();
        tokens_of(&data.items[0].rows[0])
    };
    // One <s> only, from the template; every piece of text between special tokens begins with ▁.
    assert_eq!(shown(&encoding), "<s> ▁ a b b c d </s> ▁ e a :");
    let short = encoding.with_max_tokens(9).with_truncation(Truncation::Start);
    assert_eq!(shown(&short), "<s> ▁ a b </s> ▁ e a :");
    let too_short = short.with_max_tokens(8).encode(&task("bcd ", &["x", "y"]), &tokenizer);
    assert!(matches!(too_short, Err(Error::PromptCannotShrink { tokens: 9, limit: 8, .. })));
}

#[test]
fn chat_without_a_template_and_a_template_without_the_message_are_errors() {
    let encoding = Encoding::new(letters(), continuation()).with_chat(true);
    assert!(matches!(encode(&encoding, "d", &["a", "b"]), Err(Error::Incompatible(_))));
    let json = tiny::pieces_json(true);
    let files =
        TokenizerFiles { tokenizer: json.as_bytes(), chat_template: Some(b"hello"), ..TokenizerFiles::default() };
    let error = encoding.encode(&task("d", &["a", "b"]), &Tokenizer::from_files(&files).unwrap());
    assert!(error.unwrap_err().to_string().contains("does not show"));
}

#[test]
fn settings_and_items_without_meaning_are_refused() {
    let encoding = Encoding::new(letters(), AnswerForm::class_tokens(["b", "d"]));
    let empty = Task::new("nothing", vec![]).unwrap();
    assert!(matches!(encoding.encode(&empty, &tiny::pieces()), Err(Error::Empty { .. })));
    assert!(matches!(encode(&encoding.clone().with_max_tokens(0), "d", &["a", "b"]), Err(Error::Config { .. })));
    let one = Encoding::new(letters(), AnswerForm::class_tokens(["b"]));
    assert!(matches!(encode(&one, "d", &["a", "b"]), Err(Error::Config { .. })));
    let mut bad = task("d", &["x", "y"]);
    bad.items[0].answer = Some(2);
    assert!(matches!(encoding.encode(&bad, &tiny::pieces()), Err(Error::LabelOutOfRange { label: 2, .. })));
    let blank = encode(&Encoding::new(letters(), continuation()), "d", &["b", "  "]).unwrap_err();
    assert!(blank.to_string().contains("adds no token"), "{blank}");
    // Nothing comes before the first scored token, so nothing predicts it.
    let bare = PromptTemplate::new("bare", "", "").unwrap();
    let words = Encoding::new(bare, continuation()).encode(&task("d", &["yes", "no"]), &tiny::words());
    assert!(matches!(words, Err(Error::Empty { .. })));
}

#[test]
fn an_encoding_survives_json() {
    let encoding = Encoding::new(letters(), AnswerForm::class_tokens([" A", " B"]))
        .with_max_tokens(512)
        .with_truncation(Truncation::End);
    let json = serde_json::to_string(&encoding).unwrap();
    assert_eq!(serde_json::from_str::<Encoding>(&json).unwrap(), encoding);
}
