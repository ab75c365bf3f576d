//! Does the influence foretell what another training does? The linear datamodelling score (Park et al. 2023, arXiv 2303.14186):
//! over adapters trained on random halves of the items, the rank correlation of each test item's loss and of the sum of
//! the influences of the items left out.

use crate::Outcome;
use crate::bench::{Bench, Linearized, select, shuffled};
use crate::kfac;
use bayes_lora::likelihood::Target;
use bayes_lora::metrics::{BayesianBootstrap, Estimate};
use ndarray::Array2;
use serde::Serialize;
use std::time::Instant;

const N_TRAIN: usize = 320;
const N_TEST: usize = 200;

#[derive(Serialize)]
struct Row {
    name: &'static str,
    /// Mean over the test items of Spearman's rank correlation over the halves; interval over the test items.
    score: Estimate,
}

#[derive(Serialize)]
pub struct DatamodellingScore {
    seed: u64,
    n_train: usize,
    n_test: usize,
    n_halves: usize,
    prior: &'static str,
    rows: Vec<Row>,
    training_seconds: f64,
    influence_seconds: f64,
    kfac_seconds: f64,
    /// Loss of every test item in every half's adapter, in nats, a half a row.
    losses: Vec<Vec<f64>>,
}

pub fn measure(bench: &Bench, n_halves: usize, seed: u64) -> Outcome<DatamodellingScore> {
    let order = shuffled(bench.encoded.len(), seed);
    let train = select(&bench.encoded, &order[..N_TRAIN]);
    let test = select(&bench.test, &shuffled(bench.test.len(), seed)[..N_TEST]);
    let targets: Vec<Target> = bench.labels(&test)?.into_iter().map(Target::Class).collect();
    let adapted = bench.train(&train, seed)?;
    let clock = Instant::now();
    let linearized = bench.linearize(&adapted, &train)?;
    let Linearized { rows, model, mode, prior, .. } = &linearized;
    let others = bench.rows_of(&linearized, &adapted, &test)?;
    let influence = model.influence(mode, rows, &others)?;
    let by_losses = influence.loss_changes(&targets)?;
    let influence_seconds = clock.elapsed().as_secs_f64();
    let evidence = model.optimal_prior()?.mode;
    let by_evidence = model.influence(&evidence, rows, &others)?.loss_changes(&targets)?;
    let clock = Instant::now();
    let priors = [model.precisions().scaled(mode.scale)?, model.precisions().scaled(evidence.scale)?];
    let by_kfac = kfac::loss_changes(bench, (&adapted, &linearized), &train, &test, &priors)?;
    let kfac_seconds = clock.elapsed().as_secs_f64();
    println!("{prior} prior: scale {:.3}; evidence: {:.3}", mode.scale, evidence.scale);

    let clock = Instant::now();
    let (mut losses, mut left_out) = (Vec::new(), Vec::new());
    for half in 0..n_halves {
        let mut items = shuffled(N_TRAIN, seed + 10_000 + half as u64);
        left_out.push(items.split_off(N_TRAIN / 2));
        // in the data's order: the same start and, but for who is missing, the same shuffles
        items.sort_unstable();
        losses.push(bench.losses(&bench.train(&select(&train, &items), seed)?, &test)?);
        println!("half {}: mean test NLL {:.3}", half + 1, losses[half].iter().sum::<f64>() / N_TEST as f64);
    }
    let training_seconds = clock.elapsed().as_secs_f64();

    let sums = |changes: &Array2<f64>| -> Vec<Vec<f64>> {
        let sum = |items: &Vec<usize>| (0..N_TEST).map(|x| items.iter().map(|&t| changes[[t, x]]).sum()).collect();
        left_out.iter().map(sum).collect()
    };
    let moved: Vec<Vec<f64>> =
        left_out.iter().map(|items| influence.loss_change_without(items, &targets)).collect::<Result<_, _>>()?;
    let mut table = Vec::new();
    println!("\nlinear datamodelling score over {n_halves} halves and {N_TEST} test items:");
    for (name, predicted) in [
        ("influence, matched prior: sum of losses", sums(&by_losses)),
        ("influence, matched prior: loss of summed outputs", moved),
        ("influence, prior by evidence", sums(&by_evidence)),
        ("Kronecker influence, matched prior", sums(&by_kfac[0])),
        ("Kronecker influence, prior by evidence", sums(&by_kfac[1])),
    ] {
        let of_item = |x: usize| {
            let column = |rows: &[Vec<f64>]| rows.iter().map(|row| row[x]).collect::<Vec<f64>>();
            rank_correlation(&column(&predicted), &column(&losses))
        };
        let correlations: Vec<f64> = (0..N_TEST).map(of_item).collect();
        let score = BayesianBootstrap::default().mean(&correlations)?;
        println!("  {name:<50} {:.3} [{:.3}, {:.3}]", score.value, score.low, score.high);
        table.push(Row { name, score });
    }
    Ok(DatamodellingScore {
        seed,
        n_train: N_TRAIN,
        n_test: N_TEST,
        n_halves,
        prior,
        rows: table,
        training_seconds,
        influence_seconds,
        kfac_seconds,
        losses,
    })
}

/// Spearman's; of equal values the mean rank; 0 where one side does not vary.
fn rank_correlation(a: &[f64], b: &[f64]) -> f64 {
    let (a, b) = (ranks(a), ranks(b));
    let mean = (a.len() as f64 - 1.0) / 2.0;
    let product = |a: &[f64], b: &[f64]| -> f64 { a.iter().zip(b).map(|(a, b)| (a - mean) * (b - mean)).sum() };
    let scale = (product(&a, &a) * product(&b, &b)).sqrt();
    if scale > 0.0 { product(&a, &b) / scale } else { 0.0 }
}

fn ranks(values: &[f64]) -> Vec<f64> {
    let rank = |v: &f64| {
        let lower = values.iter().filter(|w| w.total_cmp(v).is_lt()).count() as f64;
        let equal = values.iter().filter(|w| w.total_cmp(v).is_eq()).count() as f64;
        lower + 0.5 * (equal - 1.0)
    };
    values.iter().map(rank).collect()
}
