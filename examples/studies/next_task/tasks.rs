//! Two halves of MMLU's areas, asked in the same words and answered with the same two letters.

use crate::{Outcome, shipped};
use bayes_lora::data::{EncodedDataset, Item, Task};
use bayes_lora::models::PromptClassifier;

/// Areas are numbered as in the file: STEM, humanities, social sciences, other.
const FIRST: [usize; 2] = [0, 1];
const SECOND: [usize; 2] = [2, 3];

pub struct Data {
    pub train: EncodedDataset,
    pub test: EncodedDataset,
}

pub struct Tasks {
    pub base: PromptClassifier,
    pub first: Data,
    pub second: Data,
    /// The training items of both.
    pub both: EncodedDataset,
}

impl Tasks {
    pub fn new(n_train: usize, seed: u64) -> Outcome<Self> {
        let (tokenizer, encoding) = (shipped::tokenizer()?, shipped::encoding(["A", "B"]));
        let (train, test) = (shipped::questions("train")?, shipped::questions("test")?);
        let of = |areas: [usize; 2]| -> Outcome<Data> {
            Ok(Data {
                train: encoding.encode(&half(&train, areas)?.sample(n_train, seed)?, &tokenizer)?,
                test: encoding.encode(&half(&test, areas)?, &tokenizer)?,
            })
        };
        let (first, second) = (of(FIRST)?, of(SECOND)?);
        let items = first.train.items.iter().chain(&second.train.items).cloned().collect();
        let both = EncodedDataset { items, ..first.train.clone() };
        Ok(Self { base: PromptClassifier::new(shipped::language_model()?, &both)?, first, second, both })
    }
}

/// The questions of two areas, which are A and B.
fn half(task: &Task, areas: [usize; 2]) -> Outcome<Task> {
    let of_area = |item: &Item| {
        let answer = areas.iter().position(|area| Some(*area) == item.answer)?;
        let choices = areas.iter().filter_map(|area| item.choices.get(*area).cloned()).collect();
        Some(Item { choices, answer: Some(answer), ..item.clone() })
    };
    Ok(Task::new(task.name.clone(), task.items.iter().filter_map(of_area).collect())?)
}
