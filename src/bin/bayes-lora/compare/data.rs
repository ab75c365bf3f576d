//! The items of a comparison: read once, drawn anew by every seed.

use crate::kind::Kind;
use crate::kinds::values::variance;
use crate::session::Outcome;
use bayes_lora::compare::ClassName;
use bayes_lora::data::{EncodedDataset, Encoding, Item, ResolvedAnswers, Task, Tokenizer, ValuedDataset, ValuedTask};
use bayes_lora::error::Result;
use bayes_lora::likelihood::{Categorical, Gaussian, SharedLikelihood};
use bayes_lora::models::{Dataset, TokenBatch};
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
    /// Items for calibrators, sets, held-out priors and the noise of numbers [default: some of the training file]
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

/// Items that a comparison draws, before they are token ids.
pub trait Drawn: Sized + Clone {
    type Data: Dataset<Input = TokenBatch>;

    fn name(&self) -> &str;
    fn len(&self) -> usize;

    /// The first so many in the order of a seed, and the others.
    fn split(&self, n_first: usize, seed: u64) -> Result<(Self, Self)>;

    /// All parts as token ids.
    fn encode(parts: &Parts<Self>, encoding: &Encoding, tokenizer: &Tokenizer) -> Outcome<Parts<Self::Data>>;

    /// The token ids of a part.
    fn encoded(data: &Self::Data) -> &EncodedDataset;

    /// Names of the classes, where there are classes.
    fn classes(&self, train: &Self::Data) -> Vec<ClassName>;

    /// What the training items are trained by.
    fn likelihood(&self) -> SharedLikelihood;
}

impl DataArguments {
    /// All items of the files, the training file's first.
    pub fn read<T>(&self, mut read: impl FnMut(&PathBuf) -> Outcome<T>) -> Outcome<Parts<T>> {
        Ok(Parts {
            train: read(&self.train)?,
            held_out: self.held_out.as_ref().map(&mut read).transpose()?,
            test: read(&self.test)?,
            other: self.other.as_ref().map(&mut read).transpose()?,
        })
    }

    /// Those that a seed draws.
    pub fn drawn<T: Drawn>(&self, all: &Parts<T>, seed: u64) -> Outcome<Parts<T>> {
        let some = |task: &T, n: Option<usize>| match n {
            Some(n) => Ok(task.split(n, seed)?.0),
            None => Ok::<_, bayes_lora::Error>(task.clone()),
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
            None if n_held_out > 0 => Some(some(&rest, Some(n_held_out))?),
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

impl<T> Parts<T> {
    /// Each part by a function.
    fn map<U>(&self, mut of: impl FnMut(&T) -> Result<U>) -> Outcome<Parts<U>> {
        Ok(Parts {
            train: of(&self.train)?,
            test: of(&self.test)?,
            held_out: self.held_out.as_ref().map(&mut of).transpose()?,
            other: self.other.as_ref().map(&mut of).transpose()?,
        })
    }
}

impl Drawn for Task {
    type Data = EncodedDataset;

    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> usize {
        Task::len(self)
    }

    fn split(&self, n_first: usize, seed: u64) -> Result<(Self, Self)> {
        Task::split(self, n_first, seed)
    }

    /// With as many classes in every part.
    fn encode(parts: &Parts<Self>, encoding: &Encoding, tokenizer: &Tokenizer) -> Outcome<Parts<EncodedDataset>> {
        let parts = parts.map(|task| encoding.encode(task, tokenizer))?;
        let all = [Some(&parts.train), Some(&parts.test), parts.held_out.as_ref(), parts.other.as_ref()];
        // the largest items may lie in one part only
        let n_classes = all.into_iter().flatten().map(|part| part.n_classes).max().unwrap_or(0);
        parts.map(|part| part.clone().with_classes(n_classes))
    }

    fn encoded(data: &EncodedDataset) -> &EncodedDataset {
        data
    }

    /// The choices, where they are everybody's.
    fn classes(&self, train: &EncodedDataset) -> Vec<ClassName> {
        let first: Option<&Item> = self.items.first();
        let shared = first.map(|item| &item.choices).filter(|choices| {
            choices.len() == train.n_classes && self.items.iter().all(|item| item.choices == **choices)
        });
        let name = |class: usize| shared.map_or_else(|| format!("choice {}", class + 1), |names| names[class].clone());
        let token = |class: usize| match &train.answers {
            ResolvedAnswers::ClassTokens(ids) => ids.get(class).copied(),
            _ => None,
        };
        (0..train.n_classes).map(|class| ClassName { name: name(class), token: token(class) }).collect()
    }

    fn likelihood(&self) -> SharedLikelihood {
        Categorical.into()
    }
}

impl Drawn for ValuedTask {
    type Data = ValuedDataset;

    fn name(&self) -> &str {
        &self.texts.name
    }

    fn len(&self) -> usize {
        self.values.len()
    }

    fn split(&self, n_first: usize, seed: u64) -> Result<(Self, Self)> {
        ValuedTask::split(self, n_first, seed)
    }

    fn encode(parts: &Parts<Self>, encoding: &Encoding, tokenizer: &Tokenizer) -> Outcome<Parts<ValuedDataset>> {
        parts.map(|task| task.encode(encoding, tokenizer))
    }

    fn encoded(data: &ValuedDataset) -> &EncodedDataset {
        data.encoded()
    }

    fn classes(&self, _train: &ValuedDataset) -> Vec<ClassName> {
        Vec::new()
    }

    /// With the noise of a model that has learned nothing: the comparison finds another.
    fn likelihood(&self) -> SharedLikelihood {
        Gaussian { noise_variance: variance(self.values.iter().copied()) }.into()
    }
}
