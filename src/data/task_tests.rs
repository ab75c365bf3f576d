//! Tests of items and tasks: what is read, refused, drawn and counted.

use super::*;

fn numbered(n: usize) -> Task {
    let items = (0..n).map(|i| Item::new(i.to_string(), "?", ["no", "yes"]).with_answer(i % 2)).collect();
    Task::new("numbers", items).unwrap()
}

fn read(text: &str) -> Result<Task> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("train.jsonl");
    std::fs::write(&path, text).unwrap();
    Task::from_jsonl(&path)
}

#[test]
fn a_file_written_by_serde_reads_back_equal() {
    let items = vec![
        Item::new("a", "Q?", ["x", "y"]).with_answer(1).with_passage("text"),
        Item::new("b", "R?", ["x", "y", "z"]).with_subject("maths"),
    ];
    let text: Vec<String> = items.iter().map(|i| serde_json::to_string(i).unwrap()).collect();
    let task = read(&text.join("\n")).unwrap();
    assert_eq!(task.items, items);
    assert_eq!(task.n_classes(), 3);
    assert!(task.name.ends_with("/train"), "{}", task.name);
}

#[test]
fn each_malformed_line_names_file_and_line() {
    let good = r#"{"id": 7, "question": "Q", "choices": ["a", "b"], "answer": 1}"#;
    assert_eq!(read(good).unwrap().items[0].id, "7");
    for (bad, reason) in [
        (r#"{"id": "x","#, "EOF while parsing"),
        ("5", "not a JSON object"),
        (r#"["x", "Q", ["a", "b"], 0]"#, "not a JSON object"),
        (r#"{"id": "x", "question": "Q"}"#, "choices"),
        (r#"{"id": "x", "question": "Q", "choices": []}"#, "empty"),
        (
            r#"{"id": "x", "question": "Q", "choices": "a"}"#,
            "field `choices`: invalid type: string \"a\", expected a sequence at column",
        ),
        (r#"{"id": "x", "question": 5, "choices": ["a"]}"#, "field `question`: invalid type: integer"),
        (r#"{"id": "x", "question": "Q", "choices": ["a", "b"], "passage": []}"#, "field `passage`: invalid type"),
        (r#"{"id": "x", "question": "Q", "choices": ["a", "b"], "answer": "A"}"#, "field `answer`: invalid type"),
        (r#"{"id": "x", "question": "Q", "choices": ["a", "b"], "answer": -1}"#, "expected usize"),
        (r#"{"id": [], "question": "Q", "choices": ["a", "b"]}"#, "`id` must be"),
        (
            r#"{"id": "x", "question": "Q", "choices": ["a"], "answer": 0}"#,
            "`choices` of item `x`: must be at least 2 texts, got 1",
        ),
        (
            r#"{"id": "x", "question": "Q", "choices": ["a", "b"], "label": 0}"#,
            "unknown field `label`, expected one of `id`, `question`, `choices`, `answer`, `passage`, `second`, `subject`, `chats` at column 59; here it is called `answer`",
        ),
        (
            r#"{"id": "x", "question": "Q", "choices": ["a", "b"], "source": "web"}"#,
            "unknown field `source`, expected one of",
        ),
        (r#"{"id": "x", "question": "Q", "choices": ["a", "b"], "answer": 2}"#, "label 2"),
    ] {
        let message = read(&format!("{good}\n\n{bad}\n")).unwrap_err().to_string();
        assert!(message.contains("train.jsonl:3"), "{message}");
        assert!(message.contains(reason), "{message} lacks {reason}");
    }
}

#[test]
fn an_answer_beyond_the_choices_is_a_label_error_with_both_numbers() {
    let error = read(r#"{"id": "q", "question": "Q", "choices": ["a", "b"], "answer": 2}"#);
    assert!(matches!(error, Err(Error::LabelOutOfRange { label: 2, n_classes: 2, .. })));
}

#[test]
fn an_answer_may_be_missing_or_null() {
    for rest in ["", r#", "answer": null"#] {
        let line = format!(r#"{{"id": "x", "question": "Q", "choices": ["a", "b"]{rest}}}"#);
        assert_eq!(Item::from_json_line(&line, "here").unwrap().answer, None);
    }
}

#[test]
fn an_empty_file_is_an_error() {
    assert!(matches!(read("\n \n"), Err(Error::Empty { .. })));
}

#[test]
fn samples_repeat_with_the_seed_and_differ_between_seeds() {
    let task = numbered(50);
    let a = task.sample(10, 1).unwrap();
    assert_eq!(a, task.sample(10, 1).unwrap());
    assert_ne!(a, task.sample(10, 2).unwrap());
    assert_eq!(a, task.split(10, 1).unwrap().0);
}

#[test]
fn a_split_shares_no_item_and_loses_none() {
    let (first, rest) = numbered(20).split(8, 3).unwrap();
    assert_eq!((first.len(), rest.len()), (8, 12));
    let mut ids: Vec<String> = first.items.iter().chain(&rest.items).map(|i| i.id.clone()).collect();
    ids.sort_by_key(|id| id.parse::<usize>().unwrap());
    let expected: Vec<String> = (0..20).map(|i| i.to_string()).collect();
    assert_eq!(ids, expected);
}

#[test]
fn drawing_more_than_there_are_names_both_numbers() {
    let message = numbered(5).sample(6, 0).unwrap_err().to_string();
    assert!(message.contains('6') && message.contains('5'), "{message}");
}

#[test]
fn the_majority_share_counts_only_known_answers() {
    let mut task = numbered(4);
    task.items.push(Item::new("u", "?", ["no", "yes"]));
    task.items[1].answer = Some(0);
    assert_eq!(task.majority_share(), Some(0.75));
    let unknown = task.filter(|i| i.answer.is_none());
    assert_eq!((unknown.len(), unknown.majority_share()), (1, None));
    assert_eq!(task.filter(|_| false).majority_share(), None);
}
