//! Flags that say which labelled items are taken.

use crate::kind::Kind;
use crate::session::Outcome;
use bayes_lora::data::{Item, Task, read_areas};
use clap::Args;
use std::path::PathBuf;

/// Those of MMLU's subjects, where the command line names none.
const AREAS: [&str; 4] = ["STEM", "humanities", "social sciences", "other"];

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
    /// Areas in the order of the classes, with `--areas` [default: STEM,humanities,social sciences,other]
    #[arg(long, value_delimiter = ',', value_name = "NAMES", requires = "areas")]
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

    /// Flags that say which items are taken.
    pub fn choosing(&self) -> Vec<&'static str> {
        let given = [
            (self.n_train.is_some(), "--n-train"),
            (self.n_held_out.is_some(), "--n-held-out"),
            (self.areas.is_some(), "--areas"),
            (self.max_passage.is_some(), "--max-passage"),
        ];
        given.into_iter().filter_map(|(is_given, flag)| is_given.then_some(flag)).collect()
    }

    /// Questions as the flags want them.
    pub fn routed(&self, task: Task) -> Outcome<Vec<Item>> {
        let passage = |item: &Item| item.passage.as_ref().map_or(0, |text| text.chars().count());
        let task = task.filter(|item| self.max_passage.is_none_or(|most| passage(item) <= most));
        match &self.areas {
            None => Ok(task.items),
            Some(areas) => {
                let names =
                    if self.area_names.is_empty() { AREAS.map(String::from).to_vec() } else { self.area_names.clone() };
                Ok(task.route_by_subject(&read_areas(areas)?, &names)?.items)
            }
        }
    }
}
