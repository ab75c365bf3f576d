//! What the training items say, without another training run: which are mislabelled, which made an answer, and which to label next.
//!
//! stories260K (a 1 MB Llama) learns to route MMLU questions to their four areas; 5 % of its training labels are wrong. From the
//! Jacobians of the training items and the posterior's mode follow, in seconds, the belief about every training item as if it had not
//! been trained on, the influence of each on every answer, and the joint information of labels that are not known yet.
//!
//! ```sh
//! cargo run --release --example studies -- training-items --seeds 0,1,2 --out target/training_items
//! ```
//!
//! Three studies of minutes check it against adapters that are trained again: `--lds 50` (does the influence foretell what training on
//! half of the items does?), `--active` (what is a label worth that was asked for?) and `--sets 20` (do sets of classes whose threshold
//! comes from the training items hold the true class as often as they should?).

mod active;
mod bench;
mod influence;
mod kfac;
mod lds;
mod mislabelled;
mod next_labels;
mod sets;

use crate::{Outcome, json};
use bayes_lora::outputs::claim_dir;
use bayes_lora::progress::Control;
use bench::Bench;
use clap::Args;
use serde::Serialize;
use std::path::PathBuf;
use std::time::Instant;

#[derive(Args)]
pub struct Arguments {
    /// Seeds of the items, the wrong labels and the training, one run each.
    #[arg(long, value_delimiter = ',', default_value = "0")]
    seeds: Vec<u64>,
    /// Training items.
    #[arg(long, default_value_t = 400)]
    items: usize,
    /// Share of the training items whose label is changed.
    #[arg(long, default_value_t = 0.05)]
    flipped: f64,
    /// Linear datamodelling score of the influence over so many adapters trained on random halves of 320 items, for every seed,
    /// and nothing else.
    #[arg(long)]
    lds: Option<usize>,
    /// Learning curves of chosen batches beside random ones, for every seed, and nothing else.
    #[arg(long)]
    active: bool,
    /// Sets of classes for a chosen coverage by the training items left out, beside those by held-out labels, over so many adapters and
    /// ten draws of labels for each, and nothing else.
    #[arg(long)]
    sets: Option<usize>,
    /// Directory for the report.
    #[arg(long, default_value = "target/training_items")]
    out: PathBuf,
}

#[derive(Serialize)]
struct Run {
    mislabelled: mislabelled::Mislabelled,
    influence: influence::Influential,
    next_labels: next_labels::NextLabels,
    seconds: f64,
}

pub fn run(arguments: &Arguments, control: Control) -> Outcome<()> {
    let out = &arguments.out;
    claim_dir(out, 0)?;
    let bench = Bench::new(control.with_workers(2)?.with_signals()?)?;
    if let Some(n_halves) = arguments.lds {
        let scores = arguments.seeds.iter().map(|&seed| lds::measure(&bench, n_halves, seed));
        return json::save(&out.join("lds.json"), &scores.collect::<Outcome<Vec<_>>>()?);
    }
    if arguments.active {
        return json::save(&out.join("active.json"), &active::curves(&bench, &arguments.seeds)?);
    }
    if let Some(n_adapters) = arguments.sets {
        return json::save(&out.join("sets.json"), &sets::measure(&bench, n_adapters)?);
    }
    let mut runs = Vec::new();
    for &seed in &arguments.seeds {
        let clock = Instant::now();
        let trained = mislabelled::train(&bench, (arguments.items, arguments.flipped), seed)?;
        let mislabelled = mislabelled::search(&bench, &trained)?;
        let influence = influence::of_an_answer(&bench, &trained)?;
        let next_labels = next_labels::choose(&bench, &trained)?;
        runs.push(Run { mislabelled, influence, next_labels, seconds: clock.elapsed().as_secs_f64() });
    }
    json::save(&out.join("report.json"), &runs)
}
