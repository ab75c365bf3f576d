//! Wrong labels among the training items: who finds them?

use super::bench::{Bench, Linearized, select, shuffled};
use crate::Outcome;
use bayes_lora::belief::{LinkApprox, item_losses};
use bayes_lora::data::EncodedDataset;
use bayes_lora::metrics::{BayesianBootstrap, Estimate, auroc_estimate};
use bayes_lora::models::PromptClassifier;
use bayes_lora::posterior::largest_first;
use ndarray::Array2;
use serde::Serialize;
use std::time::Instant;

/// Share of the items that somebody looks at.
const LOOKED_AT: f64 = 0.1;

/// An adapter whose training items are partly mislabelled.
pub struct Trained {
    pub seed: u64,
    /// Places of the training items among all questions.
    pub places: Vec<usize>,
    /// With the labels that were trained on.
    pub data: EncodedDataset,
    /// Which of them are wrong.
    pub is_wrong: Vec<bool>,
    /// Places of all questions that were not trained on.
    pub rest: Vec<usize>,
    pub adapted: PromptClassifier,
    pub linearized: Linearized,
    pub log_probabilities: Array2<f64>,
}

#[derive(Serialize)]
struct Score {
    name: &'static str,
    /// Share of the wrong labels among the items that it ranks highest.
    recall: f64,
    /// Probability that a wrong label ranks above a right one.
    auroc: Estimate,
}

#[derive(Serialize)]
pub struct Mislabelled {
    seed: u64,
    n_items: usize,
    n_wrong: usize,
    looked_at: usize,
    prior: &'static str,
    training_nll: f64,
    test_accuracy: f64,
    linearize_seconds: f64,
    scores: Vec<Score>,
}

impl Trained {
    pub fn labels(&self) -> Vec<usize> {
        self.data.items.iter().filter_map(|item| item.label).collect()
    }
}

/// Trains on items of which a share has another label than its own.
pub fn train(bench: &Bench, (n, share): (usize, f64), seed: u64) -> Outcome<Trained> {
    let mut places = shuffled(bench.encoded.len(), seed);
    let rest = places.split_off(n.min(places.len()));
    let mut data = select(&bench.encoded, &places);
    let mut is_wrong = vec![false; data.len()];
    let n_wrong = (share * data.len() as f64).round() as usize;
    // the next class or one of those after, by the place in the order
    for (at, &item) in shuffled(data.len(), seed + 1000).iter().take(n_wrong).enumerate() {
        is_wrong[item] = true;
        let n_classes = data.n_classes;
        let label = &mut data.items[item].label;
        *label = label.map(|own| (own + 1 + at % (n_classes - 1)) % n_classes);
    }
    let adapted = bench.train(&data, seed)?;
    let linearized = bench.linearize(&adapted, &data)?;
    let log_probabilities = bench.log_probabilities(&adapted, &data)?;
    Ok(Trained { seed, places, data, is_wrong, rest, adapted, linearized, log_probabilities })
}

/// Ranks the training items by several scores and counts the wrong labels among the highest.
pub fn search(bench: &Bench, trained: &Trained) -> Outcome<Mislabelled> {
    let Linearized { model, mode, rows, prior, .. } = &trained.linearized;
    let (labels, logs) = (trained.labels(), &trained.log_probabilities);
    let clock = Instant::now();
    let left_out = model.leave_one_out(mode)?;
    let link = LinkApprox::default();
    let surprise = left_out.surprises(left_out.belief(), link)?;
    let own = left_out.surprises(left_out.own_belief(), link)?;
    let itself = model.influence(mode, rows, rows)?.loss_changes(model.targets())?.diag().to_vec();
    let linearize_seconds = clock.elapsed().as_secs_f64();
    let training_loss = item_losses(logs.view(), &labels);
    let doubt: Vec<f64> = logs.outer_iter().map(|row| -row.fold(f64::NEG_INFINITY, |m, v| m.max(*v))).collect();

    let n_wrong = trained.is_wrong.iter().filter(|wrong| **wrong).count();
    let looked_at = (LOOKED_AT * labels.len() as f64).round() as usize;
    println!(
        "\nseed {}: {n_wrong} of {} labels are wrong; found among the first {looked_at}:",
        trained.seed,
        labels.len()
    );
    let mut scores = Vec::new();
    for (name, values) in [
        ("leave-one-out surprise", &surprise),
        ("leave-one-out surprise, own mode", &own),
        ("influence on itself", &itself),
        ("training loss", &training_loss),
        ("low confidence", &doubt),
    ] {
        let found = largest_first(values).iter().take(looked_at).filter(|item| trained.is_wrong[**item]).count();
        let of = |wrong: bool| -> Vec<f64> {
            values.iter().zip(&trained.is_wrong).filter(|(_, own)| **own == wrong).map(|(v, _)| *v).collect()
        };
        let auroc = auroc_estimate(&of(true), &of(false), &BayesianBootstrap::default())?;
        println!("  {name:<34} {found:>3}   AUROC {:.3}", auroc.value);
        scores.push(Score { name, recall: found as f64 / n_wrong.max(1) as f64, auroc });
    }
    println!("  {:<34} {:>5.1}", "by chance", LOOKED_AT * n_wrong as f64);
    let test = bench.log_probabilities(&trained.adapted, &bench.test)?;
    let right = test.outer_iter().zip(bench.test.labels()?);
    let right = right.filter(|(row, label)| bayes_lora::belief::top_class(row.view()) == *label).count();
    Ok(Mislabelled {
        seed: trained.seed,
        n_items: labels.len(),
        n_wrong,
        looked_at,
        prior,
        training_nll: training_loss.iter().sum::<f64>() / labels.len() as f64,
        test_accuracy: right as f64 / bench.test.len() as f64,
        linearize_seconds,
        scores,
    })
}
