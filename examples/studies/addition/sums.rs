//! Sums in digits, those of each length apart.

use bayes_lora::data::TextItem;
use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};
use std::collections::BTreeSet;

/// Two numbers of equally many digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sum(u64, u64);

impl Sum {
    /// `21+7=91.`, the lowest digit first, as one adds.
    pub fn item(self, id: impl std::fmt::Display) -> TextItem {
        let Self(a, b) = self;
        let prompt = format!("{}+{}=", turned(a), turned(b));
        TextItem::completion(id.to_string(), prompt, format!("{}.", turned(a + b)))
    }
}

fn turned(number: u64) -> String {
    number.to_string().chars().rev().collect()
}

/// Sums of each length from 1 digit on, each once: those to be asked, and those to be trained on.
pub struct Sums {
    pub asked: Vec<Vec<Sum>>,
    pub train: Vec<Sum>,
}

impl Sums {
    /// `asked` sums for each of `lengths`, at most a quarter of all there are, and `train[k]` others of k + 1 digits, as many as there are.
    pub fn new(lengths: usize, asked: usize, train: &[usize], seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut drawn = Self { asked: Vec::new(), train: Vec::new() };
        for digits in 1..=lengths {
            let (low, high) = (if digits == 1 { 0 } else { 10u64.pow(digits as u32 - 1) }, 10u64.pow(digits as u32));
            let all = usize::try_from((high - low).pow(2)).unwrap_or(usize::MAX);
            let n_asked = asked.min(all / 4);
            let n_train = train.get(digits - 1).copied().unwrap_or(0).min(all - n_asked);
            let (mut seen, mut order) = (BTreeSet::new(), Vec::new());
            while order.len() < n_asked + n_train {
                let sum = Sum(rng.random_range(low..high), rng.random_range(low..high));
                if seen.insert(sum) {
                    order.push(sum);
                }
            }
            drawn.train.extend(order.split_off(n_asked));
            drawn.asked.push(order);
        }
        drawn
    }
}
