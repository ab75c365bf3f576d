//! The items of a comparison: read once, drawn anew by every seed.

use crate::kind::Kind;
use crate::session::Outcome;
use bayes_lora::compare::ClassName;
use bayes_lora::data::{EncodedDataset, Encoding, Item, ResolvedAnswers, Task, Tokenizer};
use clap::Args;
use std::path::PathBuf;

/// One in so many training items is held out where nothing says how many are.
const HELD_OUT_SHARE: usize = 5;

#[derive(Args)]
pub struct DataArguments {
    /// Training items, plain or gzipped
    #[arg(long, value_name = "FILE")]
    pub train: PathBuf,
    /// Items that are scored
    #[arg(long, value_name = "FILE")]
    pub test: PathBuf,
    /// Items for calibrators, sets and held-out priors [default: some of the training file]
    #[arg(long, value_name = "FILE")]
    pub held_out: Option<PathBuf>,
    /// Items from elsewhere, about which answers should be unsure
    #[arg(long, value_name = "FILE")]
    pub other: Option<PathBuf>,
    /// What the lines are, where their fields do not say it
    #[arg(long, value_enum, value_name = "KIND")]
    pub task: Option<Kind>,
    /// Training items drawn by each seed [default: all that are not held out]
    #[arg(long, value_name = "N")]
    n_train: Option<usize>,
    /// Held-out items, 0 for none [default: a fifth of the training file, or all of --held-out]
    #[arg(long, value_name = "N")]
    n_held_out: Option<usize>,
    /// Test items drawn by each seed [default: all]
    #[arg(long, value_name = "N")]
    n_test: Option<usize>,
    /// Items from elsewhere drawn by each seed [default: all]
    #[arg(long, value_name = "N", requires = "other")]
    n_other: Option<usize>,
}

/// The parts of a comparison's data: as tasks, or as token ids.
pub struct Parts<T> {
    pub train: T,
    pub held_out: Option<T>,
    pub test: T,
    pub other: Option<T>,
}

impl DataArguments {
    /// All items of the files, the training file's first.
    pub fn read(&self, mut read: impl FnMut(&PathBuf) -> Outcome<Task>) -> Outcome<Parts<Task>> {
        Ok(Parts {
            train: read(&self.train)?,
            held_out: self.held_out.as_ref().map(&mut read).transpose()?,
            test: read(&self.test)?,
            other: self.other.as_ref().map(&mut read).transpose()?,
        })
    }

    /// Those that a seed draws.
    pub fn drawn(&self, all: &Parts<Task>, seed: u64) -> Outcome<Parts<Task>> {
        let some = |task: &Task, n: Option<usize>| match n {
            Some(n) => task.sample(n, seed),
            None => Ok(task.clone()),
        };
        let n_held_out = match (&all.held_out, self.n_held_out) {
            (Some(_), _) => 0,
            (None, Some(n)) => n,
            (None, None) => all.train.len() / HELD_OUT_SHARE,
        };
        let (train, rest) =
            all.train.split(self.n_train.unwrap_or(all.train.len().saturating_sub(n_held_out)), seed)?;
        let held_out = match &all.held_out {
            Some(task) if self.n_held_out != Some(0) => Some(some(task, self.n_held_out)?),
            None if n_held_out > 0 => Some(rest.sample(n_held_out, seed)?),
            _ => None,
        };
        Ok(Parts {
            train,
            held_out,
            test: some(&all.test, self.n_test)?,
            other: all.other.as_ref().map(|task| some(task, self.n_other)).transpose()?,
        })
    }
}

impl Parts<Task> {
    /// As token ids, with as many classes in every part.
    pub fn encode(&self, encoding: &Encoding, tokenizer: &Tokenizer) -> Outcome<Parts<EncodedDataset>> {
        let encode = |task: &Task| encoding.encode(task, tokenizer);
        let (train, test) = (encode(&self.train)?, encode(&self.test)?);
        let held_out = self.held_out.as_ref().map(encode).transpose()?;
        let other = self.other.as_ref().map(encode).transpose()?;
        let all = [Some(&train), Some(&test), held_out.as_ref(), other.as_ref()];
        // the largest items may lie in one part only
        let n_classes = all.into_iter().flatten().map(|part| part.n_classes).max().unwrap_or(0);
        let widen = |part: EncodedDataset| part.with_classes(n_classes);
        Ok(Parts {
            train: widen(train)?,
            test: widen(test)?,
            held_out: held_out.map(widen).transpose()?,
            other: other.map(widen).transpose()?,
        })
    }

    /// Names of the classes: the choices, where they are everybody's.
    pub fn classes(&self, train: &EncodedDataset) -> Vec<ClassName> {
        let first: Option<&Item> = self.train.items.first();
        let shared = first.map(|item| &item.choices).filter(|choices| {
            choices.len() == train.n_classes && self.train.items.iter().all(|item| item.choices == **choices)
        });
        let name = |class: usize| shared.map_or_else(|| format!("choice {}", class + 1), |names| names[class].clone());
        let token = |class: usize| match &train.answers {
            ResolvedAnswers::ClassTokens(ids) => ids.get(class).copied(),
            _ => None,
        };
        (0..train.n_classes).map(|class| ClassName { name: name(class), token: token(class) }).collect()
    }
}
