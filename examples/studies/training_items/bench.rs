//! The embedded model and task, and an adapter with the linearised model of its training items.

use crate::{Outcome, shipped};
use bayes_lora::belief::LinkApprox;
use bayes_lora::curvature::{CurvatureConfig, fit_curvature};
use bayes_lora::data::{BatchLimits, EncodedDataset, Task};
use bayes_lora::lora::{LoraConfig, attach};
use bayes_lora::models::PromptClassifier;
use bayes_lora::posterior::{JacobianRows, Laplace, LaplaceConfig, LinearizedConfig, LinearizedModel, Mode};
use bayes_lora::predict::predict_map;
use bayes_lora::prior::PriorPrecision;
use bayes_lora::progress::Control;
use bayes_lora::search::SearchEnd;
use bayes_lora::train::{Trainer, TrainerConfig};
use ndarray::Array2;

pub const LIMITS: BatchLimits = BatchLimits { max_items: 16, max_tokens: 4096 };

pub struct Bench {
    base: PromptClassifier,
    /// All questions with an area, as text and as tokens, in the same order.
    pub questions: Task,
    pub encoded: EncodedDataset,
    pub test: EncodedDataset,
    pub test_questions: Task,
    pub control: Control,
}

/// What an adapter's training items say.
pub struct Linearized {
    pub rows: JacobianRows,
    pub model: LinearizedModel,
    pub laplace: Laplace,
    pub mode: Mode,
    /// How the prior was chosen.
    pub prior: &'static str,
}

impl Bench {
    pub fn new(control: Control) -> Outcome<Self> {
        let (tokenizer, encoding) = (shipped::tokenizer()?, shipped::encoding(["A", "B", "C", "D"]));
        let (questions, test_questions) = (shipped::questions("train")?, shipped::questions("test")?);
        let encoded = encoding.encode(&questions, &tokenizer)?;
        let test = encoding.encode(&test_questions, &tokenizer)?;
        let base = PromptClassifier::new(shipped::language_model()?, &encoded)?;
        Ok(Self { base, questions, encoded, test, test_questions, control })
    }

    /// Trains an adapter for eight epochs, as the quickstart does.
    pub fn train(&self, data: &EncodedDataset, seed: u64) -> Outcome<PromptClassifier> {
        let lora = LoraConfig::new(8).with_target_modules(["q_proj", "k_proj", "v_proj", "o_proj"]);
        let config = TrainerConfig::default().with_epochs(8).with_learning_rate(2e-3).with_limits(LIMITS);
        let start = attach(self.base.clone(), &lora, seed)?;
        Ok(Trainer::new(config.with_seed(seed))?.fit(start, data, None, &self.control)?.model)
    }

    /// The model linearised around an adapter, at its mode under the prior that is matched to the training; where none is, under the one
    /// with the most evidence.
    pub fn linearize(&self, adapted: &PromptClassifier, data: &EncodedDataset) -> Outcome<Linearized> {
        let config = CurvatureConfig::default().with_limits(LIMITS);
        let curvature = fit_curvature(adapted, data, &config, &self.control)?;
        // the reference of the prior's scale
        let unit = LaplaceConfig::default().with_prior_precision(PriorPrecision::new(1.0)?);
        let laplace = Laplace::new(adapted, &curvature, &unit)?;
        let rows = JacobianRows::of(adapted, &laplace, data, &LinearizedConfig::default(), &self.control)?;
        let labels = data.labels()?;
        let targets = labels.into_iter().map(bayes_lora::likelihood::Target::Class).collect();
        let model = LinearizedModel::from_rows(&rows, targets, &laplace)?;
        let matched = model.matched_prior()?;
        let (mode, prior) = match matched.search.end {
            SearchEnd::Inside => (matched.mode, "matched"),
            _ => (model.optimal_prior()?.mode, "evidence"),
        };
        Ok(Linearized { rows, model, laplace, mode, prior })
    }

    /// The Jacobians of other items.
    pub fn rows_of(
        &self,
        linearized: &Linearized,
        adapted: &PromptClassifier,
        data: &EncodedDataset,
    ) -> Outcome<JacobianRows> {
        let limits = LinearizedConfig::default().limits_or_default();
        Ok(linearized.rows.of_others((adapted, &linearized.laplace), data, &limits, &self.control)?)
    }

    /// Log-probabilities of the network itself.
    pub fn log_probabilities(&self, adapted: &PromptClassifier, data: &EncodedDataset) -> Outcome<Array2<f64>> {
        let belief = predict_map(adapted, data, &LIMITS, &self.control)?;
        Ok(belief.log_probabilities(LinkApprox::default())?)
    }

    /// `−ln p` in nats of every item's label.
    pub fn losses(&self, adapted: &PromptClassifier, data: &EncodedDataset) -> Outcome<Vec<f64>> {
        let labels = data.labels()?;
        Ok(bayes_lora::belief::item_losses(self.log_probabilities(adapted, data)?.view(), &labels))
    }
}

/// The items at `indices`.
pub fn select(data: &EncodedDataset, indices: &[usize]) -> EncodedDataset {
    EncodedDataset { items: indices.iter().map(|&i| data.items[i].clone()).collect(), ..data.clone() }
}

/// Numbers 0 to n − 1 in an order of the seed.
pub fn shuffled(n: usize, seed: u64) -> Vec<usize> {
    use rand::{SeedableRng, rngs::ChaCha8Rng, seq::SliceRandom};
    let mut order: Vec<usize> = (0..n).collect();
    order.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
    order
}

/// The beginning of a question, on one line.
pub fn shown(task: &Task, index: usize) -> String {
    let line: String = task.items[index].question.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.chars().count() <= 90 { line } else { line.chars().take(89).chain(['…']).collect() }
}
