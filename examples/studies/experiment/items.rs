//! Flags that say which labelled items are taken.

use crate::Outcome;
use bayes_lora::data::{Task, read_areas};
use clap::Args;
use std::path::{Path, PathBuf};

#[derive(Args)]
pub struct ItemArguments {
    /// Training items, JSONL or JSONL.gz.
    #[arg(long)]
    pub train: PathBuf,
    /// Route questions by subject with this subject → area table; the areas are the classes.
    #[arg(long)]
    pub areas: Option<PathBuf>,
    /// Areas in the order of the class tokens, with `--areas`.
    #[arg(long, value_delimiter = ',', default_value = "STEM,humanities,social sciences,other")]
    pub area_names: Vec<String>,
    /// Keep only items whose passage has at most so many characters.
    #[arg(long)]
    pub max_passage: Option<usize>,
    /// Seed of which items are taken, and of everything else that is random.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
}

impl ItemArguments {
    /// The items of a file that suit the flags.
    pub fn read(&self, path: &Path) -> Outcome<Task> {
        let short = |passage: &Option<String>| {
            self.max_passage.is_none_or(|most| passage.as_ref().is_none_or(|text| text.chars().count() <= most))
        };
        let task = Task::from_jsonl(path)?.filter(|item| short(&item.passage));
        match &self.areas {
            None => Ok(task),
            Some(areas) => Ok(task.route_by_subject(&read_areas(areas)?, &self.area_names)?),
        }
    }
}
