//! What is a label worth that was asked for? Adapters trained on items that are chosen round by round, beside random ones.

use super::bench::{Bench, Linearized, select, shuffled};
use crate::Outcome;
use bayes_lora::belief::{LinkApprox, item_losses, top_class};
use bayes_lora::data::EncodedDataset;
use bayes_lora::models::PromptClassifier;
use bayes_lora::posterior::largest_first;
use serde::Serialize;

const FIRST: usize = 80;
const STEP: usize = 40;
const ROUNDS: usize = 4;
const POOL: usize = 400;
const N_TEST: usize = 500;
const RULES: [&str; 3] = ["random", "mutual information", "batch"];

#[derive(Serialize)]
pub struct Curve {
    seed: u64,
    rule: &'static str,
    n_labels: Vec<usize>,
    test_nll: Vec<f64>,
    test_accuracy: Vec<f64>,
    /// How the prior was chosen in each round.
    priors: Vec<&'static str>,
}

#[derive(Serialize)]
pub struct Curves {
    pool: usize,
    n_test: usize,
    curves: Vec<Curve>,
}

pub fn curves(bench: &Bench, seeds: &[u64]) -> Outcome<Curves> {
    let mut curves: Vec<Curve> = Vec::new();
    for &seed in seeds {
        for rule in RULES {
            let curve = curve(bench, seed, rule)?;
            println!("seed {seed}, {rule:<20} NLL {:.3?} accuracy {:.3?}", curve.test_nll, curve.test_accuracy);
            curves.push(curve);
        }
    }
    println!("\nmeans over {} seeds, at {FIRST} labels and after each {STEP} more:", seeds.len());
    for rule in RULES {
        let own: Vec<&Curve> = curves.iter().filter(|curve| curve.rule == rule).collect();
        let mean = |values: fn(&Curve) -> &Vec<f64>| -> Vec<f64> {
            (0..=ROUNDS).map(|round| own.iter().map(|c| values(c)[round]).sum::<f64>() / own.len() as f64).collect()
        };
        println!("  {rule:<20} NLL {:.3?} accuracy {:.3?}", mean(|c| &c.test_nll), mean(|c| &c.test_accuracy));
    }
    Ok(Curves { pool: POOL, n_test: N_TEST, curves })
}

fn curve(bench: &Bench, seed: u64, rule: &'static str) -> Outcome<Curve> {
    let order = shuffled(bench.encoded.len(), seed);
    let (mut labelled, mut pool) = (order[..FIRST].to_vec(), order[FIRST..FIRST + POOL].to_vec());
    let test = select(&bench.test, &shuffled(bench.test.len(), seed)[..N_TEST]);
    let mut curve = Curve { seed, rule, n_labels: vec![], test_nll: vec![], test_accuracy: vec![], priors: vec![] };
    for round in 0..=ROUNDS {
        let train = select(&bench.encoded, &labelled);
        let adapted = bench.train(&train, seed)?;
        let (labels, logs) = (test.labels()?, bench.log_probabilities(&adapted, &test)?);
        let right = logs.outer_iter().zip(&labels).filter(|(row, label)| top_class(row.view()) == **label).count();
        curve.n_labels.push(train.len());
        curve.test_nll.push(item_losses(logs.view(), &labels).iter().sum::<f64>() / N_TEST as f64);
        curve.test_accuracy.push(right as f64 / N_TEST as f64);
        if round == ROUNDS {
            break;
        }
        // the pool is in random order
        let chosen: Vec<usize> = match rule {
            "random" => (0..STEP).collect(),
            _ => {
                let linearized = bench.linearize(&adapted, &train)?;
                curve.priors.push(linearized.prior);
                chosen(bench, (&adapted, &linearized), &select(&bench.encoded, &pool), rule == "batch")?
            }
        };
        labelled.extend(chosen.iter().map(|&item| pool[item]));
        pool = (0..pool.len()).filter(|item| !chosen.contains(item)).map(|item| pool[item]).collect();
    }
    Ok(curve)
}

fn chosen(
    bench: &Bench,
    (adapted, linearized): (&PromptClassifier, &Linearized),
    pool: &EncodedDataset,
    as_batch: bool,
) -> Outcome<Vec<usize>> {
    let Linearized { model, mode, rows, .. } = linearized;
    let joint = model.joint_belief(mode, rows, &bench.rows_of(linearized, adapted, pool)?)?;
    if as_batch {
        return Ok(joint.choose_batch(STEP)?.iter().map(|choice| choice.item).collect());
    }
    let single = joint.belief().decompose(LinkApprox::default())?.epistemic.to_vec();
    Ok(largest_first(&single).into_iter().take(STEP).collect())
}
