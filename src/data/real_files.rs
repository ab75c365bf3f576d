//! Tests with real tasks and a real tokenizer, which lie beside a checkout and are skipped where they do not.

use std::path::{Path, PathBuf};

use super::encoded::ResolvedAnswers;
use super::encoding::{AnswerForm, Encoding, Normalization};
use super::prompt::PromptTemplate;
use super::routing::read_areas;
use super::task::Task;
use super::tokens::Tokenizer;
use super::truncate::Truncation;

/// The file below the shared folder, or a line that says what is skipped.
fn shared(file: &str) -> Option<PathBuf> {
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../shared")).join(file);
    if !path.exists() {
        println!("SKIPPED: {} is absent", path.display());
        return None;
    }
    Some(path)
}

#[test]
fn the_published_tasks_have_their_published_counts() {
    for (file, n, n_classes) in [
        ("openbookqa/train", 4957, 4),
        ("openbookqa/validation", 500, 4),
        ("openbookqa/test", 500, 4),
        ("arc_easy/train", 2251, 5),
        ("arc_easy/validation", 570, 5),
        ("arc_easy/test", 2376, 5),
        ("boolq/train", 9427, 2),
        ("boolq/validation", 3270, 2),
        ("winogrande_s/train", 640, 2),
        ("winogrande_s/validation", 1267, 2),
        ("mmlu/dev", 285, 4),
        ("mmlu/validation", 1531, 4),
        ("mmlu/test", 14042, 4),
    ] {
        let Some(path) = shared(&format!("tasks/{file}.jsonl.gz")) else {
            continue;
        };
        let task = Task::from_jsonl(path).unwrap();
        assert_eq!((task.len(), task.n_classes()), (n, n_classes), "{file}");
        assert_eq!(task.name, file);
        assert!(task.items.iter().all(|item| item.answer.is_some()), "{file}");
    }
}

#[test]
fn stories260k_routes_mmlu_by_letters_after_the_cue() {
    let (Some(model), Some(file), Some(areas)) =
        (shared("models/stories260K"), shared("tasks/mmlu/validation.jsonl.gz"), shared("tasks/mmlu/areas.json"))
    else {
        return;
    };
    let tokenizer = Tokenizer::from_dir(model).unwrap();
    assert_eq!((tokenizer.vocab_size(), tokenizer.bos_id()), (512, Some(1)));
    // tokenizer.json and add_bos_token both ask for BOS: there is one.
    let ids = tokenizer.encode("Area:", true).unwrap();
    assert_eq!(ids.iter().filter(|id| **id == 1).count(), 1);
    let areas = read_areas(areas).unwrap();
    let classes = ["STEM", "humanities", "social sciences", "other"].map(str::to_owned);
    let task = Task::from_jsonl(file).unwrap().route_by_subject(&areas, &classes).unwrap();
    let encoding = Encoding::new(PromptTemplate::question_area(), AnswerForm::class_tokens(["A", "B", "C", "D"]))
        .with_max_tokens(512);
    assert!(encoding.encode(&task, &tokenizer).is_err(), "some questions are longer than 512 tokens");
    let data = encoding.with_truncation(Truncation::End).encode(&task, &tokenizer).unwrap();
    assert_eq!((data.len(), data.n_classes, data.longest()), (1531, 4, 512));
    assert!(data.n_truncated > 0 && data.n_truncated < 200, "{}", data.n_truncated);
    data.check_vocab(512).unwrap();
    // `A` … `D` are the pieces 447, 445, 457 and 455 of this vocabulary.
    assert_eq!(data.answers, ResolvedAnswers::ClassTokens(vec![447, 445, 457, 455]));
    let cue = tokenizer.encode(":", false).unwrap().pop();
    for item in &data.items {
        assert_eq!(item.rows[0].ids.first(), Some(&1));
        assert_eq!(item.rows[0].ids.last().copied(), cue);
    }
    // With the space that English would put there, a letter is not one piece.
    assert!(tokenizer.class_token("Area:", " A").is_err());
}

#[test]
fn continuations_of_real_items_decode_to_their_choices() {
    let (Some(model), Some(file)) = (shared("models/stories260K"), shared("tasks/arc_easy/validation.jsonl.gz")) else {
        return;
    };
    let tokenizer = Tokenizer::from_dir(model).unwrap();
    let task = Task::from_jsonl(file).unwrap();
    let form = AnswerForm::Continuation { normalization: Normalization::PerCharacter };
    let data = Encoding::new(PromptTemplate::question_answer(), form).encode(&task, &tokenizer).unwrap();
    for (item, encoded) in task.items.iter().zip(&data.items) {
        assert_eq!(encoded.rows.len(), item.choices.len());
        for (choice, row) in item.choices.iter().zip(&encoded.rows) {
            let text = tokenizer.decode(&row.ids[row.scored.clone()]).unwrap();
            assert_eq!(text.trim(), choice.trim());
            assert!((row.weight * choice.trim().chars().count() as f64 - 1.0).abs() < 1e-12);
        }
    }
}
