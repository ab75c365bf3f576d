//! Training, validation and held-out items, from files of their own or drawn from the training file.

use super::Source;
use crate::session::Outcome;
use bayes_lora::data::{Item, Task};
use std::path::Path;

/// The parts of the data.
pub struct Splits<T> {
    pub train: T,
    pub validation: Option<T>,
    pub held_out: Option<T>,
}

impl<I: Clone> Splits<Vec<I>> {
    /// Reads the files with `read`, the training file first, and takes as many items as the flags want.
    pub fn read(source: &Source, mut read: impl FnMut(&Path) -> Outcome<Vec<I>>) -> Outcome<Self> {
        let (n_train, seed) = (source.items.n_train, source.items.seed);
        let all = read(source.train)?;
        let (train, rest) = match n_train {
            None => (all, Vec::new()),
            Some(n) => drawn(all, n, seed, source.train)?,
        };
        let validation = source.validation.map(&mut read).transpose()?;
        let held_out = match (source.held_out, source.items.n_held_out) {
            (None, None) => None,
            (None, Some(n)) => Some(drawn(rest, n, seed, source.train)?.0),
            (Some(file), None) => Some(read(file)?),
            (Some(file), Some(n)) => Some(drawn(read(file)?, n, seed, file)?.0),
        };
        Ok(Self { train, validation, held_out })
    }
}

impl<T> Splits<T> {
    /// Each part by a function of its name and itself.
    pub fn map<U>(self, mut of: impl FnMut(&str, T) -> Outcome<U>) -> Outcome<Splits<U>> {
        Ok(Splits {
            train: of("training", self.train)?,
            validation: self.validation.map(|part| of("validation", part)).transpose()?,
            held_out: self.held_out.map(|part| of("held-out", part)).transpose()?,
        })
    }

    /// All parts.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        std::iter::once(&self.train).chain(&self.validation).chain(&self.held_out)
    }
}

/// The first `n` of the items in the order of a seed, as [`Task::split`] orders them, and the others.
fn drawn<I: Clone>(items: Vec<I>, n: usize, seed: u64, file: &Path) -> Outcome<(Vec<I>, Vec<I>)> {
    let places = (0..items.len()).map(|place| Item::new(place.to_string(), "", Vec::<String>::new())).collect();
    let (first, rest) = Task { name: file.display().to_string(), items: places }.split(n, seed)?;
    let taken = |part: Task| -> Vec<I> {
        part.items.iter().filter_map(|item| items.get(item.id.parse::<usize>().ok()?).cloned()).collect()
    };
    Ok((taken(first), taken(rest)))
}
