//! Adapters from several starts, and what a temperature does to the average of their answers.

use super::answers::COMPARED;
use super::left_out::Cut;
use super::row::{Answer, LINK, Row, Source, Test, Tried};
use crate::Outcome;
use crate::experiment::splits::Splits;
use bayes_lora::belief::LogitBelief;
use bayes_lora::calibrate::Temperature;
use bayes_lora::data::BatchLimits;
use bayes_lora::lora::{LoraConfig, attach};
use bayes_lora::models::PromptClassifier;
use bayes_lora::predict::predict_map;
use bayes_lora::progress::Control;
use bayes_lora::train::{Trainer, TrainerConfig};
use ndarray::{Array1, Array2, Axis, s, stack};

/// What the members after the first answer.
pub struct Ensemble {
    of_pool: Vec<Array2<f64>>,
    of_test: Vec<Array2<f64>>,
}

impl Ensemble {
    /// Trains all members but the first, which is the adapter of the study.
    pub fn new(
        members: usize,
        base: &PromptClassifier,
        splits: &Splits,
        (lora, trainer): (&LoraConfig, &TrainerConfig),
        limits: &BatchLimits,
        control: &Control,
    ) -> Outcome<Self> {
        if members < 2 {
            return Err(format!("--ensemble: at least 2 members, found {members}").into());
        }
        let mut ensemble = Self { of_pool: Vec::new(), of_test: Vec::new() };
        for member in 1..members as u64 {
            // seeds of a study are small numbers
            let seed = trainer.seed_or_default() + 1000 * member;
            let start = attach(base.clone(), lora, seed)?;
            let model = Trainer::new(trainer.clone().with_seed(seed))?.fit(start, &splits.train, None, control)?.model;
            let point = |data| Ok::<_, crate::Failure>(predict_map(&model, data, limits, control)?.moments().0);
            ensemble.of_pool.push(point(&splits.validation)?);
            ensemble.of_test.push(point(&splits.test)?);
        }
        Ok(ensemble)
    }

    /// The average alone, at a temperature by held-out labels, and of members at the first one's leave-one-out temperature.
    pub fn rows(&self, test: &Test, (pool, labels): &(Array2<f64>, Vec<usize>), cut: &Cut) -> Outcome<Vec<Row>> {
        let name = format!("deep ensemble of {}", self.of_test.len() + 1);
        let of_test = average(&test.logits, &self.of_test)?;
        let by_labels = || -> Tried {
            if labels.len() < COMPARED {
                return Err(format!("there are {} held-out items", labels.len()).into());
            }
            let logits = average(pool, &self.of_pool)?.log_probabilities(LINK)?;
            let fit = Temperature::fit(logits.slice(s![..COMPARED, ..]), &labels[..COMPARED])?;
            Ok(answer(LogitBelief::Point { logits: of_test.log_probabilities(LINK)? * fit.usable()?.beta }))
        };
        let left_out = || -> Tried {
            let matched = cut.matched.as_ref().map_err(String::clone)?;
            let logits = matched.left_out.belief().moments().0;
            let fit = Temperature::fit(logits.view(), &matched.labels)?.without_sharpening();
            Ok(answer(of_test.tempered(fit.temperature.beta)))
        };
        Ok(vec![
            test.row(&name, Source::TrainingItems, Ok(answer(of_test.clone())))?,
            test.row(format!("{name} + temperature, {COMPARED} labels"), Source::HeldOutLabels, by_labels())?,
            test.row(format!("{name} + leave-one-out temperature"), Source::TrainingItems, left_out())?,
        ])
    }
}

/// `(1/K) Σ_k softmax f_k`
fn average(first: &Array2<f64>, others: &[Array2<f64>]) -> Outcome<LogitBelief> {
    let members: Vec<_> = [first].into_iter().chain(others).map(|logits| logits.view()).collect();
    Ok(LogitBelief::Samples { logits: stack(Axis(0), &members)?, log_weights: Array1::zeros(members.len()) })
}

fn answer(belief: LogitBelief) -> Answer {
    Answer { belief, found: Vec::new() }
}
