//! Flags that say which labelled items are taken.

use crate::kind::Kind;
use crate::session::Outcome;
use bayes_lora::data::{Item, Task, read_areas};
use clap::Args;
use std::path::PathBuf;

#[derive(Args)]
#[command(next_help_heading = "Items")]
pub struct ItemArguments {
    /// What the lines of data files are, where their fields do not say it
    #[arg(long, value_enum, value_name = "KIND")]
    pub task: Option<Kind>,
    /// Take so many of the training items, drawn by `--seed`, instead of all
    #[arg(long, value_name = "N")]
    pub n_train: Option<usize>,
    /// Take so many held-out items: of `--held-out`, or of the training file's items that `--n-train` leaves
    #[arg(long, value_name = "N")]
    pub n_held_out: Option<usize>,
    /// Seed of which items are taken, and of everything else that is random
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub seed: u64,
    /// Variance of the noise of numbers that are learned; without it training takes their variance, and the posterior that with the most evidence
    #[arg(long, value_name = "VARIANCE")]
    pub noise_variance: Option<f64>,
    /// Route questions by subject with this subject → area table; the areas are the choices
    #[arg(long, value_name = "FILE")]
    pub areas: Option<PathBuf>,
    /// Areas in the order of the classes, with `--areas`
    #[arg(long, value_delimiter = ',', value_name = "NAMES", default_value = "STEM,humanities,social sciences,other")]
    pub area_names: Vec<String>,
    /// Keep only questions whose passage has at most so many characters
    #[arg(long, value_name = "N")]
    pub max_passage: Option<usize>,
}

impl ItemArguments {
    /// Flags that were given and mean nothing for this kind.
    pub fn foreign(&self, kind: Kind) -> Vec<&'static str> {
        let questions = kind == Kind::Choices;
        let given = [
            (self.areas.is_some() && !questions, "--areas"),
            (self.max_passage.is_some() && !questions, "--max-passage"),
            (self.noise_variance.is_some() && kind != Kind::Values, "--noise-variance"),
        ];
        given.into_iter().filter_map(|(is_foreign, flag)| is_foreign.then_some(flag)).collect()
    }

    /// Questions as the flags want them.
    pub fn routed(&self, task: Task) -> Outcome<Vec<Item>> {
        let passage = |item: &Item| item.passage.as_ref().map_or(0, |text| text.chars().count());
        let task = task.filter(|item| self.max_passage.is_none_or(|most| passage(item) <= most));
        match &self.areas {
            None => Ok(task.items),
            Some(areas) => Ok(task.route_by_subject(&read_areas(areas)?, &self.area_names)?.items),
        }
    }
}
