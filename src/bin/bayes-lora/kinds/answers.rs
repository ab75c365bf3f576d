//! What a kind of data answers to a block of its lines.

use crate::blocks::Line;
use bayes_lora::data::Item;
use bayes_lora::error::{Error, Result};
use bayes_lora::identity::Identity;
use bayes_lora::predict::Prediction;
use serde::{Deserialize, Serialize};

/// Lines that are read, encoded and answered together, which bounds the memory whatever the file's length.
pub struct Block<'a> {
    /// What the file is called in errors.
    pub file: &'a str,
    pub lines: &'a [Line],
}

impl Block<'_> {
    /// The items of all lines, each read with its number and its place.
    pub fn read<I>(&self, item: impl Fn(&str, usize, &str) -> Result<I>) -> Result<Vec<I>> {
        let of = |line: &Line| item(&line.text, line.number, &line.place);
        self.lines.iter().map(of).collect()
    }
}

/// The answers to a block.
pub struct Answered {
    /// One line of JSON an item, in order.
    pub lines: Vec<String>,
    /// Items that were shortened.
    pub n_shortened: usize,
    /// What was said and what is right, of the items whose label is known.
    pub known: Vec<Known>,
}

/// An answer whose label is known.
#[derive(Clone, Serialize, Deserialize)]
pub enum Known {
    Class { probabilities: Vec<f64>, label: usize },
    Value { mean: f64, deviation: f64, value: f64 },
}

/// A model with its adapter and posterior that answers lines of one kind.
pub trait Answerer {
    /// All that its answers depend on but for the lines.
    fn identity(&self) -> &Identity;

    /// Answers the lines of a block.
    fn answer(&self, block: &Block) -> Result<Answered>;
}

#[derive(Serialize)]
struct Answer<'a> {
    id: &'a str,
    classes: &'a [String],
    probabilities: &'a [f64],
    prediction: usize,
    uncertainty: Uncertainty<'a>,
}

/// How unsure an answer among several is, in nats.
#[derive(Serialize)]
pub struct Uncertainty<'a> {
    method: &'a str,
    entropy: f64,
    aleatoric: f64,
    epistemic: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    confidence: Option<f64>,
    source: &'static str,
}

impl<'a> Uncertainty<'a> {
    /// That of an item.
    pub fn of(method: &'a str, prediction: &Prediction, item: usize, confidence: Option<f64>) -> Self {
        let entropy = &prediction.entropy;
        let (aleatoric, epistemic) = (entropy.expected[item], entropy.epistemic[item]);
        Self { method, entropy: entropy.total[item], aleatoric, epistemic, confidence, source: "measured" }
    }
}

/// What is said of items with choices.
///
/// `prediction` is an index into `classes`, as `answer` is in a task file. `entropy` is that of `probabilities`, `aleatoric` the part that
/// more training data would leave, `epistemic` the part that they could remove, all in nats; `confidence` is the largest probability. `source`
/// says that the numbers come from the posterior, and not from what the model says about itself.
pub fn of_classes(method: &str, items: &[Item], prediction: &Prediction, n_shortened: usize) -> Result<Answered> {
    let mut answered = Answered { lines: Vec::with_capacity(items.len()), n_shortened, known: Vec::new() };
    for (index, item) in items.iter().enumerate() {
        let probabilities = prediction.probabilities.row(index);
        let probabilities: Vec<f64> = probabilities.iter().take(item.choices.len()).copied().collect();
        // the first of equals
        let better = |best: usize, c: usize| if probabilities[c] > probabilities[best] { c } else { best };
        let best = (0..probabilities.len()).fold(0, better);
        let confidence = probabilities.get(best).copied().unwrap_or(f64::NAN);
        answered.lines.push(json(&Answer {
            id: &item.id,
            classes: &item.choices,
            probabilities: &probabilities,
            prediction: best,
            uncertainty: Uncertainty::of(method, prediction, index, Some(confidence)),
        })?);
        answered.known.extend(item.answer.map(|label| Known::Class { probabilities, label }));
    }
    Ok(answered)
}

/// A line of JSON.
pub fn json(value: &impl Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|error| Error::format("answer", error))
}
