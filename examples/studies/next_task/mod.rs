//! What is left of the first task after the second? The posterior of the first as the prior of the second, beside plain fine-tuning, a pull
//! towards the first adapter, averages of adapters, and training on both.
//!
//! Task 1: does a question belong to STEM (A) or to the humanities (B)? Task 2, in the same words with the same letters: to the social
//! sciences (A) or elsewhere (B)? Both can be answered by one adapter; the second alone says nothing about the first. stories260K,
//! offline.
//!
//! ```sh
//! cargo run --release --example studies -- next-task --seeds 0,1,2 --out target/next_task
//! ```

mod rows;
mod tasks;

use crate::{Outcome, json};
use bayes_lora::outputs::claim_dir;
use bayes_lora::progress::Control;
use clap::Args;
use rows::{Row, Study};
use serde::Serialize;
use std::path::PathBuf;
use std::time::Instant;
use tasks::Tasks;

#[derive(Args)]
pub struct Arguments {
    /// Seeds of the items, the start and the training, one cell each.
    #[arg(long, value_delimiter = ',', default_value = "0")]
    seeds: Vec<u64>,
    /// Training items of each task.
    #[arg(long, default_value_t = 300)]
    items: usize,
    /// Passes over the items of each training.
    #[arg(long, default_value_t = 3)]
    epochs: usize,
    /// Factors on λ of the pull, one row each.
    #[arg(long, value_delimiter = ',', default_value = "1,3,10,30")]
    pulls: Vec<f64>,
    /// How many times the first task counts, by a posterior with the λ of the evidence.
    #[arg(long, value_delimiter = ',', default_value = "1,10")]
    weights: Vec<f64>,
    /// The same where λ is 1, so that hardly more than the curvature counts.
    #[arg(long, value_delimiter = ',', default_value = "10,100")]
    weak_weights: Vec<f64>,
    /// Directory for the cells.
    #[arg(long, default_value = "target/next_task")]
    out: PathBuf,
}

#[derive(Serialize)]
struct Cell {
    seed: u64,
    epochs: usize,
    n_train: usize,
    /// Of the two tasks.
    n_test: [usize; 2],
    /// λ of the first task's posteriors by evidence.
    priors: Vec<(String, f64)>,
    rows: Vec<Row>,
    seconds: f64,
}

pub fn run(arguments: &Arguments, control: Control) -> Outcome<()> {
    let Arguments { seeds, items, epochs, pulls, weights, weak_weights, out } = arguments;
    claim_dir(out, 0)?;
    let control = control.with_signals()?;
    for &seed in seeds {
        let clock = Instant::now();
        println!("seed {seed}");
        let tasks = Tasks::new(*items, seed)?;
        let n_test = [&tasks.first, &tasks.second].map(|task| task.test.len());
        let study = Study::new(tasks, (seed, *epochs), &control)?;
        let rows = study.rows(pulls, weights, weak_weights)?;
        let priors = study.priors();
        let cell = Cell {
            seed,
            epochs: *epochs,
            n_train: *items,
            n_test,
            priors,
            rows,
            seconds: clock.elapsed().as_secs_f64(),
        };
        let path = out.join(format!("seed-{seed}.json"));
        json::save(&path, &cell)?;
        println!("{:.0} s\n", cell.seconds);
    }
    Ok(())
}
