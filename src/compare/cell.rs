//! What one method answered on one task under one seed: all that a report needs, as JSON.

use crate::belief::{LinkApprox, LogitBelief, entropy, log_sum_exp};
use crate::error::{Error, Result};
use crate::identity::Identity;
use crate::metrics::ValuePredictions;
use crate::search::Search;
use ndarray::{Array1, Array2, ArrayView1};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The version that this crate writes and reads; any change of a field needs another, but for a new one that may be absent.
pub const CELL_FORMAT: u64 = 2;

/// What all methods of one run have in common: the task, the seed, the adapter that post-hoc methods start from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Setting {
    /// [`CELL_FORMAT`]
    pub format_version: u64,
    /// The version of this crate.
    pub crate_version: String,
    /// The protocol's name; tables never mix two.
    pub protocol: String,
    /// The task's name.
    pub task: String,
    /// The base model's name.
    pub model: String,
    /// Seed of the splits, of the adapter's start, of the shuffles and of all draws.
    pub seed: u64,
    /// How the adapter is made and trained, in one line.
    pub recipe: String,
    /// A hash of the prompt's form, 16 hexadecimal digits.
    pub prompt_hash: String,
    /// One prompt as the model sees it.
    pub prompt_example: String,
    /// The classes' names, with the token that stands for each where there is one.
    pub classes: Vec<ClassName>,
    /// Number of training items.
    pub n_train: usize,
    /// Training of the adapter that post-hoc methods start from; no method's cost counts it.
    pub training: TrainingCost,
    /// Labels of the held-out items that calibrators and set predictors may spend; none where there are no such items.
    pub held_out: Vec<usize>,
    /// Labels of the test items.
    pub test: Vec<usize>,
    /// Data from elsewhere, on which answers should be unsure.
    pub shifted: Vec<ShiftedSplit>,
    /// The numbers of a regression, which has neither classes nor labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub values: Option<SplitValues>,
    /// Everything that answers depend on: hashes of the data and weights, every setting of the recipe. A run is taken up only
    /// where all of it is the same.
    pub identity: Identity,
}

/// A class as the model is asked for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassName {
    /// Its name.
    pub name: String,
    /// Its token, where one token stands for it.
    pub token: Option<u32>,
}

/// Data from another distribution.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShiftedSplit {
    /// The name.
    pub name: String,
    /// Number of items.
    pub n_items: usize,
    /// Their labels, where they are of the task's classes: then answers are scored, and not only told from the test's. Empty
    /// otherwise.
    #[serde(default)]
    pub labels: Vec<usize>,
}

/// The numbers of a regression's items.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SplitValues {
    /// Those of the held-out items that the variance of the noise may spend; none where there are no such items.
    pub held_out: Vec<f64>,
    /// Those of the test items.
    pub test: Vec<f64>,
}

impl Setting {
    /// Number of test items.
    pub fn n_test(&self) -> usize {
        self.values.as_ref().map_or(self.test.len(), |values| values.test.len())
    }
}

/// What training an adapter took.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainingCost {
    /// Wall-clock seconds.
    pub seconds: f64,
    /// Items, over all epochs: as many forward and backward passes.
    pub items: usize,
    /// Real tokens, over all epochs.
    pub tokens: usize,
}

/// One task under one seed with what every method answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Run {
    /// What the methods have in common.
    pub setting: Setting,
    /// One for each method.
    pub cells: Vec<Cell>,
}

/// One method's row of one run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cell {
    /// [`CELL_FORMAT`]
    pub format_version: u64,
    /// The method's name, unique within a comparison.
    pub method: String,
    /// Its settings, in one line of words.
    pub description: String,
    /// Its settings, one by one: a cell is taken up only where they are the same. `None` where they were not kept.
    #[serde(default)]
    pub identity: Option<Identity>,
    /// What it read besides the training data.
    pub extra_data: ExtraData,
    /// How its noise is shared by tokens, where it has noise.
    pub sharing: Option<String>,
    /// What it answered, or why it did not.
    pub outcome: Outcome,
}

/// What a method read besides the training data and the adapter trained on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExtraData {
    /// Nothing.
    None,
    /// Inputs of so many held-out items.
    Unlabelled(usize),
    /// So many held-out items with their labels.
    Labelled(usize),
}

/// How a cell ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// With answers about classes.
    Answered(Box<Answered>),
    /// With predictions of numbers.
    Predicted(Box<Answered<ValuePredictions>>),
    /// Without, for this reason.
    Failed(String),
}

/// What all ways of ending with answers have in common.
pub(super) struct Found<'a> {
    pub cost: &'a Cost,
    pub machine: &'a Option<String>,
    pub found: &'a BTreeMap<String, f64>,
    pub searches: &'a [Search],
}

impl Outcome {
    /// The price of the answers and what was found, whatever they are about; `None` of a method that failed.
    pub(super) fn found(&self) -> Option<Found<'_>> {
        match self {
            Self::Answered(answered) => Some(answered.found()),
            Self::Predicted(answered) => Some(answered.found()),
            Self::Failed(_) => None,
        }
    }
}

/// A method's answers and their price.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answered<A = Answers> {
    /// About the held-out items; `None` where there are none, or where they were spent on the variance of the noise.
    pub held_out: Option<A>,
    /// About the test items.
    pub test: A,
    /// About each of [`Setting::shifted`], in its order.
    pub shifted: Vec<A>,
    /// The price.
    pub cost: Cost,
    /// What computed it: backend, threads, processor; `None` where that was not kept.
    #[serde(default)]
    pub machine: Option<String>,
    /// Numbers that the method found, by name: a prior precision, a scale, an evidence.
    pub found: BTreeMap<String, f64>,
    /// How its searches ended; empty where it made none, or where that was not kept.
    #[serde(default)]
    pub searches: Vec<Search>,
}

impl<A> Answered<A> {
    fn found(&self) -> Found<'_> {
        let Self { cost, machine, found, searches, .. } = self;
        Found { cost, machine, found, searches }
    }
}

/// What a method says about the classes of one set of items.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answers {
    /// Averaged probabilities, a row an item; 0 for a class that the item lacks.
    pub probabilities: Vec<Vec<f64>>,
    /// `E[H[p]]`, the expected entropy of each item in nats; the entropy of the averaged probabilities minus this is the
    /// mutual information.
    pub expected_entropy: Vec<f64>,
    /// `log Σ_c exp f̄_c` of each item, `f̄` the mean logits: minus the energy.
    pub log_sum_exp: Vec<f64>,
}

/// What a method costs beyond the adapter that all post-hoc methods start from.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cost {
    /// Wall-clock seconds of fitting, the share of passes that several methods have in common included.
    pub fit_seconds: f64,
    /// Forward passes of one item that fitting took.
    pub fit_forwards: usize,
    /// Backward passes of one item that fitting took.
    pub fit_backwards: usize,
    /// Wall-clock seconds of all predictions.
    pub predict_seconds: f64,
    /// Forward passes that one answer takes.
    pub forwards_per_item: usize,
    /// Backward passes that one answer takes.
    pub backwards_per_item: usize,
    /// Bytes kept beyond the adapter.
    pub stored_bytes: u64,
}

impl Answers {
    /// Keeps what a report needs of a belief, to nine significant digits: half the size on disk, at an error in NLL of 1e-9.
    ///
    /// # Errors
    /// If the link does not suit the belief.
    pub fn new(belief: &LogitBelief, link: LinkApprox) -> Result<Self> {
        let probabilities = belief.probabilities(link)?;
        let mean = belief.moments().0;
        let expected = belief.decompose(link)?.expected;
        Ok(Self {
            probabilities: probabilities.outer_iter().map(|row| row.iter().copied().map(rounded).collect()).collect(),
            expected_entropy: expected.into_iter().map(rounded).collect(),
            log_sum_exp: mean.outer_iter().map(|row| rounded(log_sum_exp(row.iter().copied()))).collect(),
        })
    }

    /// Number of items.
    pub fn n_items(&self) -> usize {
        self.probabilities.len()
    }

    /// The probabilities `[n_items, n_classes]`.
    ///
    /// # Errors
    /// If the rows differ in length, or the other columns in theirs.
    pub fn matrix(&self) -> Result<Array2<f64>> {
        let n_items = self.n_items();
        for (what, found) in [("expected entropies", &self.expected_entropy), ("log-sum-exps", &self.log_sum_exp)] {
            if found.len() != n_items {
                return Err(Error::Count { what: what.into(), expected: n_items, found: found.len() });
            }
        }
        let n_classes = self.probabilities.first().map_or(0, Vec::len);
        if let Some(row) = self.probabilities.iter().find(|row| row.len() != n_classes) {
            return Err(Error::Count {
                what: "probabilities of an item".into(),
                expected: n_classes,
                found: row.len(),
            });
        }
        Ok(Array2::from_shape_fn((n_items, n_classes), |(item, class)| self.probabilities[item][class]))
    }

    /// The mutual information of answer and weights of each item, in nats: `H[p̄] − E[H[p]] ≥ 0`.
    pub fn mutual_information(&self) -> Array1<f64> {
        let parts = self.entropy().into_iter().zip(&self.expected_entropy);
        // rounding may leave −1e-17
        parts.map(|(total, expected)| (total - expected).max(0.0)).collect()
    }

    /// `H[p̄]`, the entropy of each item in nats.
    pub fn entropy(&self) -> Array1<f64> {
        self.probabilities.iter().map(|row| entropy(ArrayView1::from(row))).collect()
    }
}

/// To nine significant digits, which JSON keeps exactly.
pub(super) fn rounded(value: f64) -> f64 {
    // the text of a finite number is one
    if value.is_finite() { format!("{value:.8e}").parse().unwrap_or(value) } else { value }
}
