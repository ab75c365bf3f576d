//! Which items should be labelled next?

use super::bench::{Bench, Linearized, select};
use super::mislabelled::Trained;
use crate::Outcome;
use bayes_lora::belief::LinkApprox;
use bayes_lora::posterior::{Choice, largest_first};
use serde::Serialize;

const N_POOL: usize = 300;
const N_CHOSEN: usize = 20;

#[derive(Serialize)]
pub struct NextLabels {
    pool: usize,
    chosen: Vec<String>,
    /// What each label adds to those before, in nats.
    gains: Vec<f64>,
    /// What the labels of as many items would say together, in nats.
    information_of_batch: f64,
    information_of_largest_mutual_information: f64,
    information_of_first_in_pool: f64,
}

/// Chooses a batch from items whose labels are not looked at.
pub fn choose(bench: &Bench, trained: &Trained) -> Outcome<NextLabels> {
    let places: Vec<usize> = trained.rest.iter().take(N_POOL).copied().collect();
    let pool = select(&bench.encoded, &places);
    let Linearized { model, mode, rows, .. } = &trained.linearized;
    let others = bench.rows_of(&trained.linearized, &trained.adapted, &pool)?;
    let joint = model.joint_belief(mode, rows, &others)?;
    let batch = joint.choose_batch(N_CHOSEN.min(pool.len()))?;
    let items: Vec<usize> = batch.iter().map(|choice: &Choice| choice.item).collect();
    let single = joint.belief().decompose(LinkApprox::default())?.epistemic.to_vec();
    let singles: Vec<usize> = largest_first(&single).into_iter().take(items.len()).collect();
    let first: Vec<usize> = (0..items.len()).collect();
    let gains: Vec<f64> = batch.iter().map(|choice| choice.gain).collect();
    let next = NextLabels {
        pool: pool.len(),
        chosen: items.iter().map(|&item| pool.items[item].id.clone()).collect(),
        information_of_batch: joint.information(&items)?,
        information_of_largest_mutual_information: joint.information(&singles)?,
        information_of_first_in_pool: joint.information(&first)?,
        gains,
    };
    println!("\n{} of {} items to label next, by what they say together (nats):", items.len(), pool.len());
    println!("  chosen as a batch                  {:>7.2}", next.information_of_batch);
    println!("  largest mutual information (BALD)  {:>7.2}", next.information_of_largest_mutual_information);
    println!("  as they come                       {:>7.2}", next.information_of_first_in_pool);
    Ok(next)
}
