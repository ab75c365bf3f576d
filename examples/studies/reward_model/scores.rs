//! What the study leaves: scores of pairs, and how often each rule picks the right answer.

use crate::Outcome;
use bayes_lora::metrics::{self, BayesianBootstrap, Estimate};
use bayes_lora::number::significant;
use bayes_lora::predict::RewardPrediction;
use ndarray::{Array2, ArrayView2};
use serde::Serialize;

const BINS: usize = 10;

/// One seed.
#[derive(Serialize)]
pub struct Run {
    pub seed: u64,
    pub pairs: Vec<PairRow>,
    /// How well doubt ranks the wrong preferences of maximum likelihood above the right ones.
    pub auroc_of_epistemic: f64,
    pub auroc_of_total: f64,
    pub best_of_n: BestOfN,
    pub seconds_of_fit: f64,
    pub seconds: f64,
}

/// A way of answering which of two is preferred.
#[derive(Serialize)]
pub struct PairRow {
    pub name: String,
    pub accuracy: f64,
    pub nll: Estimate,
    pub ece: f64,
}

pub fn pair_row(name: &str, probabilities: ArrayView2<f64>, labels: &[usize]) -> Outcome<PairRow> {
    Ok(PairRow {
        name: name.into(),
        accuracy: metrics::accuracy(probabilities, labels)?,
        nll: metrics::nll_estimate(probabilities, labels, &BayesianBootstrap::default())?,
        ece: metrics::ece(probabilities, labels, BINS)?,
    })
}

pub fn auroc(doubts: &[f64], wrong: &[bool]) -> Outcome<f64> {
    let of = |which: bool| -> Vec<f64> {
        doubts.iter().zip(wrong).filter(|(_, wrong)| **wrong == which).map(|(doubt, _)| *doubt).collect()
    };
    Ok(metrics::auroc(&of(true), &of(false))?)
}

/// How often each rule picks the right answer of a question.
#[derive(Serialize)]
pub struct BestOfN {
    /// By chance.
    pub chance: f64,
    pub rules: Vec<Rule>,
}

#[derive(Serialize)]
pub struct Rule {
    pub name: String,
    pub accuracy: f64,
    /// Questions that it picks another answer of than the reward alone.
    pub changed: usize,
    /// Accuracy less that of the reward alone.
    pub difference: Estimate,
    /// The difference at every question: −1, 0 or 1.
    #[serde(skip)]
    differences: Vec<f64>,
}

impl BestOfN {
    pub fn new(rewards: &RewardPrediction, labels: &[usize], factors: &[f64]) -> Outcome<Self> {
        let mean = rewards.rewards();
        let by_reward = picks(&mean);
        let n_answers = mean.outer_iter().map(|row| row.iter().filter(|r| r.is_finite()).count());
        let chance = n_answers.map(|n| 1.0 / n as f64).sum::<f64>() / labels.len() as f64;
        let mut rules = vec![Rule::new("r", &by_reward, &by_reward, labels)?];
        for (name, deviations) in
            [("sd of r", rewards.deviations()), ("sd of r − mean of the answers", rewards.deviations_from_mean())]
        {
            for factor in factors {
                let bound = &mean - &(&deviations * *factor);
                rules.push(Rule::new(
                    &format!("r − {} {name}", significant(*factor)),
                    &picks(&bound),
                    &by_reward,
                    labels,
                )?);
            }
        }
        Ok(Self { chance, rules })
    }
}

/// The answer with the largest score of each question; the first of several.
fn picks(scores: &Array2<f64>) -> Vec<usize> {
    let best =
        |row: ndarray::ArrayView1<f64>| (0..row.len()).fold(0, |best, c| if row[c] > row[best] { c } else { best });
    scores.outer_iter().map(best).collect()
}

impl Rule {
    fn new(name: &str, picks: &[usize], by_reward: &[usize], labels: &[usize]) -> Outcome<Self> {
        let is_right = |picks: &[usize], item: usize| f64::from(u8::from(picks[item] == labels[item]));
        let items = 0..labels.len();
        let differences: Vec<f64> =
            items.clone().map(|item| is_right(picks, item) - is_right(by_reward, item)).collect();
        Ok(Self {
            name: name.into(),
            accuracy: items.map(|item| is_right(picks, item)).sum::<f64>() / labels.len() as f64,
            changed: picks.iter().zip(by_reward).filter(|(a, b)| a != b).count(),
            difference: BayesianBootstrap::default().mean(&differences)?,
            differences,
        })
    }
}

/// Every rule over the questions of all seeds.
pub fn pooled(runs: &[Run]) -> Outcome<Vec<Rule>> {
    let Some(first) = runs.first() else { return Err("no seed was asked for".into()) };
    let rules = first.best_of_n.rules.iter().enumerate().map(|(k, rule)| {
        let of = |run: &'_ Run| run.best_of_n.rules[k].differences.clone();
        let differences: Vec<f64> = runs.iter().flat_map(of).collect();
        let mean = |value: fn(&Rule) -> f64| {
            runs.iter().map(|run| value(&run.best_of_n.rules[k])).sum::<f64>() / runs.len() as f64
        };
        Ok(Rule {
            name: rule.name.clone(),
            accuracy: mean(|rule| rule.accuracy),
            changed: runs.iter().map(|run| run.best_of_n.rules[k].changed).sum(),
            difference: BayesianBootstrap::default().mean(&differences)?,
            differences,
        })
    });
    rules.collect()
}

impl Run {
    pub fn print(&self) {
        for row in &self.pairs {
            println!("{:<45} accuracy {:.3} NLL {:.3} ECE {:.3}", row.name, row.accuracy, row.nll.value, row.ece);
        }
        println!(
            "wrong preferences: AUROC of epistemic {:.3}, of total {:.3}",
            self.auroc_of_epistemic, self.auroc_of_total
        );
        for rule in &self.best_of_n.rules {
            println!("best of n by {:<45} {:.3}, {} changed", rule.name, rule.accuracy, rule.changed);
        }
    }
}
