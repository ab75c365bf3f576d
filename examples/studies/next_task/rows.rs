//! Every way to come to a second task from a first, with what is left of the first.

use super::tasks::{Data, Tasks};
use crate::Outcome;
use bayes_lora::belief::{LinkApprox, LogitBelief};
use bayes_lora::curvature::{CurvatureConfig, CurvatureStructure, fit_curvature};
use bayes_lora::data::{BatchLimits, EncodedDataset};
use bayes_lora::lora::{AdapterWeights, LoraConfig, attach, read_adapter, start_at, write_adapter};
use bayes_lora::metrics::{Estimate, ScoreOptions, Scores};
use bayes_lora::models::PromptClassifier;
use bayes_lora::posterior::{AdapterAverage, Laplace, LaplaceConfig, PosteriorPrior};
use bayes_lora::predict::predict_map;
use bayes_lora::prior::{PriorMean, PriorPrecision};
use bayes_lora::progress::Control;
use bayes_lora::train::{Objective, Trainer, TrainerConfig};
use serde::Serialize;

const LIMITS: BatchLimits = BatchLimits { max_items: 16, max_tokens: 4096 };
const STRUCTURES: [CurvatureStructure; 2] = [CurvatureStructure::Diagonal, CurvatureStructure::Kronecker];

#[derive(Serialize)]
pub struct Scored {
    accuracy: Estimate,
    nll: Estimate,
}

#[derive(Serialize)]
pub struct Row {
    name: String,
    /// Of the two tasks, on their test items.
    tasks: [Scored; 2],
    /// Mean NLL of the second task's training items.
    training_nll: f64,
    /// `‖θ − θ₁‖`
    distance: f64,
    /// Of the second task under the prior that the first one left, in nats.
    log_marginal_likelihood: Option<f64>,
}

/// A first adapter with its posteriors, and a second task.
pub struct Study<'a> {
    tasks: Tasks,
    seed: u64,
    epochs: usize,
    control: &'a Control,
    start: PromptClassifier,
    first: PromptClassifier,
    laplaces: Vec<Laplace>,
}

impl<'a> Study<'a> {
    pub fn new(tasks: Tasks, (seed, epochs): (u64, usize), control: &'a Control) -> Outcome<Self> {
        let lora = LoraConfig::new(8).with_target_modules(["q_proj", "k_proj", "v_proj", "o_proj"]);
        let start = attach(tasks.base.clone(), &lora, seed)?;
        let mut study = Self { tasks, seed, epochs, control, first: start.clone(), start, laplaces: Vec::new() };
        study.first = study.train(&study.start, &study.tasks.first.train, Objective::MaximumLikelihood)?;
        study.laplaces = study.posteriors(&study.first, &study.tasks.first.train)?;
        Ok(study)
    }

    /// λ of each posterior of the first task.
    pub fn priors(&self) -> Vec<(String, f64)> {
        let of = |laplace: &Laplace| (laplace.structure().to_string(), laplace.prior_precisions().of(0).value());
        self.laplaces.iter().map(of).collect()
    }

    pub fn rows(&self, pulls: &[f64], weights: &[f64], weak_weights: &[f64]) -> Outcome<Vec<Row>> {
        let Tasks { second, both, .. } = &self.tasks;
        let mut rows = vec![self.row("task 1 alone", &self.first, None)?];
        let plain = self.train(&self.first, &second.train, Objective::MaximumLikelihood)?;
        rows.push(self.row("fine-tuning", &plain, None)?);

        // a pull towards the first adapter: the Kronecker posterior without its curvature
        let at_first = start_at(self.first.clone(), &read_adapter(&self.first)?)?;
        for &pull in pulls {
            let precision = self.laplaces[1].prior_precisions().scaled(pull)?.of(0);
            let objective = Objective::MaximumAPosteriori { precision, mean: PriorMean::Initial };
            let next = self.train(&at_first, &second.train, objective)?;
            rows.push(self.row(format!("L2 pull, λ × {pull}"), &next, None)?);
        }
        for laplace in &self.laplaces {
            for &weight in weights {
                rows.push(self.under(laplace, "λ by evidence", weight)?);
            }
        }
        // hardly more than the curvature
        for laplace in &self.laplaces {
            let laplace = laplace.clone().with_prior_precisions(PriorPrecision::new(1.0)?)?;
            for &weight in weak_weights {
                rows.push(self.under(&laplace, "λ = 1", weight)?);
            }
        }
        // the second adapter from the first one's start, and from the first
        let apart = self.train(&self.start, &second.train, Objective::MaximumLikelihood)?;
        rows.push(self.row("task 2 alone, from the same start", &apart, None)?);
        rows.extend(self.averages("from one start", &apart)?);
        rows.extend(self.averages("second from the first", &plain)?);
        let joint = self.train(&self.start, both, Objective::MaximumLikelihood)?;
        rows.push(self.row("both tasks at once", &joint, None)?);
        Ok(rows)
    }

    /// The second task under a posterior of the first.
    fn under(&self, laplace: &Laplace, prior: &str, weight: f64) -> Outcome<Row> {
        let name = format!("{} posterior, {prior}, × {weight}", laplace.structure());
        let second = &self.tasks.second.train;
        let prior = PosteriorPrior::new(&self.first, laplace.clone())?.weighted(weight)?;
        let next = self.train(&self.first, second, Objective::under(prior.clone()))?;
        let curvature = CurvatureConfig::new(CurvatureStructure::FunctionSpace).with_limits(LIMITS);
        let curvature = fit_curvature(&next, second, &curvature, self.control)?;
        let evidence = prior.log_marginal_likelihood(&next, &curvature)?;
        self.row(name, &next, Some(evidence))
    }

    fn averages(&self, name: &str, second: &PromptClassifier) -> Outcome<Vec<Row>> {
        let of_second = self.posteriors(second, &self.tasks.second.train)?;
        let mut rows = Vec::new();
        for (one, two) in self.laplaces.iter().zip(&of_second) {
            let average = AdapterAverage::new(&[(&self.first, one), (second, two)])?;
            let mut add = |kind: &str, weights: &AdapterWeights| -> Outcome<()> {
                let merged = write_adapter(self.first.clone(), weights)?;
                rows.push(self.row(format!("average, {name}: {kind}"), &merged, None)?);
                Ok(())
            };
            if one.structure() == STRUCTURES[0] {
                add("plain", &average.plain)?;
            }
            add(&format!("by {} precision", one.structure()), &average.by_precision)?;
        }
        Ok(rows)
    }

    fn train(&self, from: &PromptClassifier, data: &EncodedDataset, objective: Objective) -> Outcome<PromptClassifier> {
        let config = TrainerConfig::default().with_epochs(self.epochs).with_learning_rate(2e-3).with_limits(LIMITS);
        let trainer = Trainer::new(config.with_seed(self.seed).with_objective(objective))?;
        Ok(trainer.fit(from.clone(), data, None, self.control)?.model)
    }

    /// One of each structure, with the λ that has the most evidence.
    fn posteriors(&self, model: &PromptClassifier, data: &EncodedDataset) -> Outcome<Vec<Laplace>> {
        let mut laplaces = Vec::new();
        for structure in STRUCTURES {
            let curvature = CurvatureConfig::new(structure).with_limits(LIMITS);
            let curvature = fit_curvature(model, data, &curvature, self.control)?;
            laplaces.push(Laplace::new(model, &curvature, &LaplaceConfig::default())?);
        }
        Ok(laplaces)
    }

    fn row(
        &self,
        name: impl Into<String>,
        model: &PromptClassifier,
        log_marginal_likelihood: Option<f64>,
    ) -> Outcome<Row> {
        let Tasks { first, second, .. } = &self.tasks;
        let square = |(site, w): (_, &ndarray::Array2<f64>)| -> f64 {
            self.laplaces[0].map().get(site).map_or(0.0, |map| (w - map).mapv(|v| v * v).sum())
        };
        let row = Row {
            name: name.into(),
            tasks: [self.scored(model, first)?, self.scored(model, second)?],
            training_nll: self.scores(model, &second.train)?.nll.value,
            distance: read_adapter(model)?.iter().map(square).sum::<f64>().sqrt(),
            log_marginal_likelihood,
        };
        let [one, two] = &row.tasks;
        println!(
            "{:<56} task 1 {:.3} NLL {:.3} | task 2 {:.3} NLL {:.3} | training {:.3} distance {:.2}{}",
            row.name,
            one.accuracy.value,
            one.nll.value,
            two.accuracy.value,
            two.nll.value,
            row.training_nll,
            row.distance,
            log_marginal_likelihood.map_or(String::new(), |nats| format!(" evidence {nats:.1}"))
        );
        Ok(row)
    }

    fn scored(&self, model: &PromptClassifier, task: &Data) -> Outcome<Scored> {
        let Scores { accuracy, nll, .. } = self.scores(model, &task.test)?;
        Ok(Scored { accuracy, nll })
    }

    fn scores(&self, model: &PromptClassifier, data: &EncodedDataset) -> Outcome<Scores> {
        let belief: LogitBelief = predict_map(model, data, &LIMITS, self.control)?;
        let p = belief.probabilities(LinkApprox::default())?;
        Ok(Scores::new(p.view(), &data.labels()?, &ScoreOptions::default())?)
    }
}
