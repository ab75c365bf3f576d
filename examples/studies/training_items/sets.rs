//! Do sets of classes hold the true one as often as asked for, where their threshold comes from the training items, each left out? Beside
//! split conformal prediction with held-out labels, over adapters trained on other items and other draws of the labels.

use super::bench::{Bench, LIMITS, select, shuffled};
use crate::Outcome;
use bayes_lora::belief::{LinkApprox, softmax};
use bayes_lora::calibrate::{ConformalScore, ConformalSets, SetPredictor, SetTally, Temperature};
use bayes_lora::data::EncodedDataset;
use bayes_lora::posterior::HeldOut;
use ndarray::{Array2, Axis};
use serde::Serialize;

const N_TRAIN: usize = 320;
const N_LABELS: usize = 100;
const N_TEST: usize = 500;
/// Draws of the labelled and of the test items for every adapter.
const DRAWS: usize = 10;
const MISCOVERAGE: f64 = 0.1;
const LINK: LinkApprox = LinkApprox::MonteCarlo { n_samples: 1000, seed: 0 };
const SCORES: [(&str, ConformalScore); 2] =
    [("least ambiguous", ConformalScore::LeastAmbiguous), ("adaptive", ConformalScore::Adaptive { randomized: true })];

/// One way to a threshold, over all repetitions.
#[derive(Serialize)]
pub struct Row {
    name: &'static str,
    score: &'static str,
    /// Share of the test items whose set holds the true class, one a repetition.
    coverage: Vec<f64>,
    /// Mean number of classes in a set, one a repetition.
    size: Vec<f64>,
}

#[derive(Serialize)]
pub struct Sets {
    n_train: usize,
    n_labels: usize,
    n_test: usize,
    n_adapters: usize,
    draws: usize,
    miscoverage: f64,
    rows: Vec<Row>,
}

/// Probabilities of all items that may be asked, and where their threshold comes from.
struct Answers {
    name: &'static str,
    calibration: Calibration,
    asked: Array2<f64>,
}

enum Calibration {
    /// Those among the held-out items that are not asked.
    HeldOutItems,
    /// The training items, with the probabilities that stand for what they would be answered if they were new.
    TrainingItems(Array2<f64>, Vec<usize>),
}

pub fn measure(bench: &Bench, n_adapters: usize) -> Outcome<Sets> {
    let mut rows: Vec<Row> = Vec::new();
    for seed in 0..n_adapters as u64 {
        let order = shuffled(bench.encoded.len(), seed + 20_000);
        let (train, rest) = (select(&bench.encoded, &order[..N_TRAIN]), select(&bench.encoded, &order[N_TRAIN..]));
        let labels = rest.labels()?;
        let all = answers(bench, &train, &rest, seed)?;
        for draw in 0..DRAWS {
            // seeds of adapters are small numbers
            let seed = 1_000 * (seed + 1) + draw as u64;
            let order = shuffled(rest.len(), seed);
            let (labelled, asked) = (&order[..N_LABELS], &order[N_LABELS..N_LABELS + N_TEST]);
            for answers in &all {
                for (name, score) in SCORES {
                    let tally = answers.tally((score, seed), (labelled, asked), &labels)?;
                    let row = row_of(&mut rows, answers.name, name);
                    row.coverage.push(tally.n_covered as f64 / N_TEST as f64);
                    row.size.push(tally.n_classes as f64 / N_TEST as f64);
                }
            }
        }
        println!("adapter {seed}:");
        for row in &rows {
            let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
            println!("  {:<48} {:<16} {:.3}, {:.2} classes", row.name, row.score, mean(&row.coverage), mean(&row.size));
        }
    }
    Ok(Sets {
        n_train: N_TRAIN,
        n_labels: N_LABELS,
        n_test: N_TEST,
        n_adapters,
        draws: DRAWS,
        miscoverage: MISCOVERAGE,
        rows,
    })
}

/// What the adapter and its posterior answer, and the items that each may take its threshold from.
fn answers(bench: &Bench, train: &EncodedDataset, rest: &EncodedDataset, seed: u64) -> Outcome<Vec<Answers>> {
    let adapted = bench.train(train, seed)?;
    let linearized = bench.linearize(&adapted, train)?;
    let left_out = linearized.model.leave_one_out(&linearized.mode)?;
    let labels = left_out.labels()?;
    let without = left_out.belief().moments().0;
    let beta = Temperature::fit(without.view(), &labels)?.without_sharpening().temperature.beta;
    let network = |data: &EncodedDataset, beta: f64| {
        Ok::<_, crate::Failure>(softmax((bench.log_probabilities(&adapted, data)? * beta).view()))
    };
    let posterior = HeldOut::new(&adapted, &linearized.laplace, rest, &LIMITS, &bench.control)?;
    let posterior = posterior.belief(left_out.precisions())?.probabilities(LINK)?;
    let (plain, tempered) = (network(rest, 1.0)?, network(rest, beta)?);
    let of_training = |probabilities| Calibration::TrainingItems(probabilities, labels.clone());
    let (of_network, of_network_tempered) = (softmax(without.view()), softmax((&without * beta).view()));
    let of_posterior = left_out.belief().probabilities(LINK)?;
    Ok(vec![
        Answers::new("network, 100 held-out labels", Calibration::HeldOutItems, &plain),
        Answers::new("network, training items as they are", of_training(network(train, 1.0)?), &plain),
        Answers::new("network, training items left out", of_training(of_network), &plain),
        Answers::new("the same, both at the leave-one-out temperature", of_training(of_network_tempered), &tempered),
        Answers::new("Laplace, 100 held-out labels", Calibration::HeldOutItems, &posterior),
        Answers::new("Laplace, training items left out", of_training(of_posterior), &posterior),
    ])
}

impl Answers {
    fn new(name: &'static str, calibration: Calibration, asked: &Array2<f64>) -> Self {
        Self { name, calibration, asked: asked.clone() }
    }

    /// How sets of the items `asked` fare, with the threshold of the training items or of those that are `labelled`.
    fn tally(
        &self,
        (score, seed): (ConformalScore, u64),
        (labelled, asked): (&[usize], &[usize]),
        labels: &[usize],
    ) -> Outcome<SetTally> {
        let of = |items: &[usize]| {
            (self.asked.select(Axis(0), items), items.iter().map(|&item| labels[item]).collect::<Vec<_>>())
        };
        let (from, known) = match &self.calibration {
            Calibration::HeldOutItems => of(labelled),
            Calibration::TrainingItems(probabilities, labels) => (probabilities.clone(), labels.clone()),
        };
        let (to, true_classes) = of(asked);
        Ok(ConformalSets::fit(from.view(), &known, MISCOVERAGE, score, seed)?.tally(to.view(), &true_classes)?)
    }
}

/// The row of a name and a score, made where there is none yet.
fn row_of<'a>(rows: &'a mut Vec<Row>, name: &'static str, score: &'static str) -> &'a mut Row {
    let place = rows.iter().position(|row| (row.name, row.score) == (name, score)).unwrap_or(rows.len());
    if place == rows.len() {
        rows.push(Row { name, score, coverage: Vec::new(), size: Vec::new() });
    }
    &mut rows[place]
}
