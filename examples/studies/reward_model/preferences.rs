//! Makes questions of rated sentences, and preferences from right and wrong answers.

use crate::Outcome;
use bayes_lora::data::{Item, Task};
use std::path::Path;

/// What the sentences are asked to do.
const PROMPT: &str = "Recommend the film.";
/// Answers to choose among.
const N_ANSWERS: usize = 4;

/// Multiple-choice questions from a file of these; or from labelled texts: which of four texts has the last of the labels (`positive`)?
pub fn questions(path: &Path, has_labels: bool) -> Outcome<Task> {
    if !has_labels {
        return Ok(Task::from_jsonl(path)?);
    }
    let texts = Task::from_labelled_jsonl(path, None)?;
    let wanted = texts.n_classes() - 1;
    let (right, wrong): (Vec<&Item>, Vec<&Item>) = texts.items.iter().partition(|item| item.answer == Some(wanted));
    let mut items = Vec::new();
    // a wrong text is in one question alone
    for (right, wrong) in right.iter().zip(wrong.chunks_exact(N_ANSWERS - 1)) {
        let place = items.len() % N_ANSWERS;
        let mut choices: Vec<&str> = wrong.iter().map(|item| item.question.as_str()).collect();
        choices.insert(place, &right.question);
        items.push(Item::new(&right.id, PROMPT, choices).with_answer(place));
    }
    Ok(Task::new(texts.name, items)?)
}

/// One preference a question: its right answer over one of the wrong ones, which the question's name draws.
pub fn write(task: &Task, path: &Path) -> Outcome<()> {
    let mut lines = String::new();
    for item in &task.items {
        let right = item.answer.ok_or_else(|| format!("question `{}` has no answer", item.id))?;
        let wrong: Vec<&String> =
            item.choices.iter().filter(|choice| choice.trim() != item.choices[right].trim()).collect();
        let drawn = item.id.bytes().fold(7usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
        let rejected =
            wrong.get(drawn % wrong.len().max(1)).ok_or_else(|| format!("question `{}` has one answer", item.id))?;
        let line = serde_json::json!({
            "id": item.id, "prompt": item.question, "chosen": item.choices[right], "rejected": rejected,
        });
        lines += &format!("{line}\n");
    }
    Ok(std::fs::write(path, lines)?)
}
