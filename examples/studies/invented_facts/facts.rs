//! Sentences about people who do not exist.

use bayes_lora::data::TextItem;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};
use std::collections::BTreeSet;

const BEGINNINGS: [&str; 16] =
    ["Ba", "Do", "Fe", "Gi", "Ha", "Jo", "Ka", "Lu", "Mi", "No", "Pe", "Ri", "Sa", "Ti", "Vo", "Zu"];
const MIDDLES: [&str; 8] = ["la", "mi", "no", "ra", "se", "ti", "vu", "we"];
const ENDS: [&str; 8] = ["ban", "dor", "fin", "gus", "la", "nek", "rim", "tos"];
const COLOURS: [&str; 8] = ["red", "blue", "green", "yellow", "black", "white", "pink", "brown"];
const THINGS: [&str; 12] = ["ball", "bird", "boat", "book", "box", "car", "cat", "dog", "fish", "hat", "kite", "tree"];

/// One person, with how often a training set tells about them.
pub struct Person {
    pub name: String,
    pub exposure: usize,
    /// What they have, with the space before it.
    pub has: String,
}

impl Person {
    pub fn prompt(&self) -> String {
        format!("{} has a", self.name)
    }

    pub fn fact(&self, id: impl std::fmt::Display) -> TextItem {
        TextItem::completion(id.to_string(), self.prompt(), self.has.as_str())
    }
}

/// `per_group` people for every number of exposures, of different names.
pub fn people(exposures: &[usize], per_group: usize, seed: u64) -> Vec<Person> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut pick = |of: &[&str]| of[rng.random_range(0..of.len())].to_string();
    let mut names = BTreeSet::new();
    while names.len() < exposures.len() * per_group {
        names.insert(format!(
            "{}{} {}{}{}",
            pick(&BEGINNINGS),
            pick(&ENDS),
            pick(&BEGINNINGS),
            pick(&MIDDLES),
            pick(&ENDS)
        ));
    }
    let mut things = Vec::new();
    for _ in 0..names.len() {
        things.push(format!(" {} {}.", pick(&COLOURS), pick(&THINGS)));
    }
    // names come out in alphabetical order, which must not say how often they are seen
    let mut names: Vec<String> = names.into_iter().collect();
    names.shuffle(&mut rng);
    let groups = exposures.iter().flat_map(|exposure| std::iter::repeat_n(*exposure, per_group));
    names.into_iter().zip(groups).zip(things).map(|((name, exposure), has)| Person { name, exposure, has }).collect()
}

/// The training set: every person's fact as often as their exposure says.
pub fn training_set(people: &[Person]) -> Vec<TextItem> {
    let copies = people.iter().enumerate().flat_map(|(i, person)| (0..person.exposure).map(move |k| (i, k, person)));
    copies.map(|(i, k, person)| person.fact(format!("{i}-{k}"))).collect()
}
