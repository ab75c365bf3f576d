//! Does the influence foretell what another training does? The linear datamodelling score (Park et al. 2023, arXiv 2303.14186):
//! over adapters trained on random halves of the items, the rank correlation of each test item's loss and of the sum of
//! the influences of the items left out.

use super::bench::{Bench, Linearized, select, shuffled};
use super::kfac;
use crate::Outcome;
use bayes_lora::likelihood::{Categorical, Likelihood, Target};
use bayes_lora::metrics::{BayesianBootstrap, Estimate};
use bayes_lora::posterior::JacobianRows;
use ndarray::{Array1, Array2, s};
use serde::Serialize;
use std::time::Instant;

const N_TRAIN: usize = 320;
const N_TEST: usize = 200;

#[derive(Serialize)]
struct Row {
    name: &'static str,
    /// Mean over the test items of Spearman's rank correlation over the halves; interval over the test items.
    score: Estimate,
    /// The same of the difference to the last row, item by item.
    above_last: Estimate,
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
}

pub fn measure(bench: &Bench, n_halves: usize, seed: u64) -> Outcome<DatamodellingScore> {
    let order = shuffled(bench.encoded.len(), seed);
    let train = select(&bench.encoded, &order[..N_TRAIN]);
    let test = select(&bench.test, &shuffled(bench.test.len(), seed)[..N_TEST]);
    let targets: Vec<Target> = test.labels()?.into_iter().map(Target::Class).collect();
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
    let by_kfac = kfac::loss_changes((&adapted, &linearized), &train, &test, &priors)?;
    let kfac_seconds = clock.elapsed().as_secs_f64();
    let by_gradients = gradient_products(&linearized, &others, &targets)?;
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
    let mut correlations = Vec::new();
    for (name, predicted) in [
        ("influence, matched prior: sum of losses", sums(&by_losses)),
        ("influence, matched prior: loss of summed outputs", moved),
        ("influence, prior by evidence", sums(&by_evidence)),
        ("products of gradients", sums(&by_gradients)),
        ("Kronecker influence, matched prior", sums(&by_kfac[0])),
        ("Kronecker influence, prior by evidence", sums(&by_kfac[1])),
    ] {
        let of_item = |x: usize| {
            let column = |rows: &[Vec<f64>]| rows.iter().map(|row| row[x]).collect::<Vec<f64>>();
            rank_correlation(&column(&predicted), &column(&losses))
        };
        correlations.push((name, (0..N_TEST).map(of_item).collect::<Vec<f64>>()));
    }
    println!(
        "\nseed {seed}: linear datamodelling score over {n_halves} halves and {N_TEST} test items, and its difference to the last:"
    );
    let last = correlations.last().map(|(_, values)| values.clone()).unwrap_or_default();
    let mut table = Vec::new();
    for (name, values) in correlations {
        let score = BayesianBootstrap::default().mean(&values)?;
        let differences: Vec<f64> = values.iter().zip(&last).map(|(a, b)| a - b).collect();
        let above_last = BayesianBootstrap::default().mean(&differences)?;
        println!("  {name:<50} {}   {}", show(&score), show(&above_last));
        table.push(Row { name, score, above_last });
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
    })
}

fn show(e: &Estimate) -> String {
    format!("{:>6.3} [{:.3}, {:.3}]", e.value, e.low, e.high)
}

/// Influence without any curvature: `g_x J_x J_tᵀ g_t`, as of one step of gradient descent from the trained adapter.
fn gradient_products(linearized: &Linearized, others: &JacobianRows, targets: &[Target]) -> Outcome<Array2<f64>> {
    let Linearized { rows, model, .. } = linearized;
    let scores = |rows: &JacobianRows, targets: &[Target]| -> Vec<Array1<f64>> {
        // rows are the differences to the first output
        let one = |(outputs, target)| Categorical.score(outputs, target).slice(s![1..]).to_owned();
        rows.items.outputs.outer_iter().zip(targets).map(one).collect()
    };
    let (of_train, of_others) = (scores(rows, model.targets()), scores(others, targets));
    let (kernel, k) = (rows.kernel(others)?, rows.items.rows_per_item);
    Ok(Array2::from_shape_fn((of_train.len(), of_others.len()), |(t, x)| {
        let between = kernel.slice(s![t * k..(t + 1) * k, x * k..(x + 1) * k]);
        of_train[t].dot(&between.dot(&of_others[x]))
    }))
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
