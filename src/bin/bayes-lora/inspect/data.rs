//! What a data file holds.

use super::Told;
use crate::kind::Kind;
use crate::session::Outcome;
use bayes_lora::data::{Item, Task, TextItem, ValuedTask, for_each_line};
use bayes_lora::error::Result;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;

/// Every line is read as a line of its kind, so that a wrong one is named.
pub fn lines(path: &Path) -> Outcome<Told> {
    let kind = Kind::of(None, path)?;
    let told = Told::new(path, "data").with("kind", kind.to_string());
    Ok(match kind {
        Kind::Choices => {
            let task = Task::from_jsonl(path)?;
            let n_choices = |item: &Item| item.choices.len();
            let fewest = task.items.iter().map(n_choices).min().unwrap_or(0);
            let choices = json!({"fewest": fewest, "most": task.n_classes()});
            let names = common_choices(&task);
            let text =
                |item: &Item| item.question.chars().count() + item.passage.as_ref().map_or(0, |p| p.chars().count());
            let longest = task.items.iter().map(text).max().unwrap_or(0);
            labelled(told, &task, &names).with("choices", choices).with("longest in characters", longest)
        }
        Kind::Labels => {
            let task = Task::from_labelled_jsonl(path, None)?;
            let names = task.items.first().map_or_else(Vec::new, |item| item.choices.clone());
            let longest = task.items.iter().map(length).max().unwrap_or(0);
            labelled(told, &task, &names).with("classes", names).with("longest in characters", longest)
        }
        Kind::Values => {
            let ValuedTask { texts, values } = ValuedTask::from_jsonl(path)?;
            let known: Vec<f64> = values.into_iter().flatten().collect();
            let mean = known.iter().sum::<f64>() / known.len() as f64;
            let variance = known.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / known.len() as f64;
            let longest = texts.items.iter().map(length).max().unwrap_or(0);
            let numbers = (!known.is_empty()).then(|| json!({"mean": mean, "standard_deviation": variance.sqrt()}));
            told.with("lines", texts.len())
                .with("with a number", known.len())
                .with("numbers", numbers)
                .with("longest in characters", longest)
        }
        Kind::Preferences => {
            let task = Task::from_preferences_jsonl(path)?;
            let text = |item: &Item| {
                item.question.chars().count() + item.choices.iter().map(|c| c.chars().count()).max().unwrap_or(0)
            };
            let longest = task.items.iter().map(text).max().unwrap_or(0);
            told.with("lines", task.len()).with("longest in characters", longest)
        }
        Kind::Texts => {
            let (mut n, mut longest) = (0usize, 0);
            for_each_line(path, |number, text| -> Result<()> {
                TextItem::from_json(text, &format!("{}:{number}", path.display()), number)?;
                (n, longest) = (n + 1, longest.max(text.chars().count()));
                Ok(())
            })?;
            told.with("lines", n).with("longest in characters of JSON", longest)
        }
    })
}

/// The names of the choices where all items have the same.
fn common_choices(task: &Task) -> Vec<String> {
    let first = task.items.first().map_or_else(Vec::new, |item| item.choices.clone());
    if task.items.iter().all(|item| item.choices == first) { first } else { Vec::new() }
}

/// Lines, how many have a label, and the share of each; `names` are those of the classes where they have some.
fn labelled(told: Told, task: &Task, names: &[String]) -> Told {
    let mut counts: BTreeMap<usize, usize> = BTreeMap::new();
    task.items.iter().filter_map(|item| item.answer).for_each(|label| *counts.entry(label).or_default() += 1);
    let known: usize = counts.values().sum();
    let name = |label: &usize| names.get(*label).cloned().unwrap_or_else(|| label.to_string());
    let share = |(label, count): (&usize, &usize)| json!({"label": name(label), "share": *count as f64 / known as f64});
    let shares: Vec<Value> = counts.iter().map(share).collect();
    told.with("lines", task.len()).with("with a label", known).with("label shares", shares)
}

/// Characters of a text, or of both texts of a pair.
fn length(item: &Item) -> usize {
    item.question.chars().count() + item.second.as_ref().map_or(0, |text| text.chars().count())
}
