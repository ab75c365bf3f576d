//! Which repair of an adapter's confidence needs no held-out label, and does it ever harm? One adapter by maximum likelihood, every row on
//! the same test items, one JSON cell.
//!
//! ```sh
//! cargo run --release --example studies -- leave-one-out --model assets/stories260K --prompt area --classes A,B,C,D \
//!   --train assets/mmlu_areas/train.jsonl.gz --test assets/mmlu_areas/test.jsonl.gz --max-tokens 64 \
//!   --targets q_proj,k_proj,v_proj,o_proj --learning-rate 2e-3 --epochs 8 --batch 16 \
//!   --n-train 320 --n-validation 300 --n-test 500 --cross-fit 3 --out target/leave_one_out
//! ```
//!
//! The validation items are the pool of held-out labels: their first 50, 100 and 300.

mod answers;
mod cross_fit;
mod ensemble;
mod left_out;
mod row;

use crate::experiment::adapter::train_or_load;
use crate::experiment::task::TaskArguments;
use crate::{Outcome, json};
use answers::{held_out_rows, label_free_rows, posterior_rows};
use bayes_lora::belief::LogitBelief;
use bayes_lora::curvature::{CurvatureConfig, CurvatureStructure, fit_curvatures};
use bayes_lora::lora::summarize;
use bayes_lora::outputs::claim_dir;
use bayes_lora::posterior::{HeldOut, Laplace, LaplaceConfig};
use bayes_lora::predict::predict_map;
use bayes_lora::progress::Control;
use clap::Args;
use cross_fit::{CrossFit, CrossFitted};
use ensemble::Ensemble;
use left_out::{Cost, Cut, LeftOut, Space};
use row::{Fit, Row, Test};
use serde::Serialize;
use std::path::PathBuf;
use std::time::Instant;

#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    task: TaskArguments,
    /// Also train so many adapters, each without its share of the training items, and fit a temperature to what they say about these.
    #[arg(long)]
    cross_fit: Option<usize>,
    /// Also train a deep ensemble of so many members, the adapter among them.
    #[arg(long)]
    ensemble: Option<usize>,
    /// Leave core space out: its Jacobians are the dearest of all.
    #[arg(long)]
    without_cores: bool,
    #[arg(long, default_value = "target/leave_one_out_study")]
    out: PathBuf,
    /// Take the adapter that an earlier run with the same flags left in this directory.
    #[arg(long)]
    trained: Option<PathBuf>,
}

#[derive(Serialize)]
struct Study {
    task: String,
    seed: u64,
    epochs: usize,
    n_train: usize,
    n_held_out: usize,
    n_test: usize,
    n_adapter: usize,
    /// The adapter on its own training items, and on the pool of held-out ones.
    training: Fit,
    held_out: Fit,
    left_out: Vec<LeftOut>,
    cross_fitted: Option<CrossFitted>,
    costs: Vec<Cost>,
    rows: Vec<Row>,
}

pub fn run(arguments: &Arguments, control: Control) -> Outcome<()> {
    let Arguments { task, out, .. } = arguments;
    claim_dir(out, 0)?;
    let control = control.with_workers(2)?;
    let limits = task.questions.limits();
    let splits = task.splits()?;
    let base = task.model(&splits.train)?;
    let trained = arguments.trained.as_deref();
    let (lora, trainer) = (task.lora(), task.trainer());
    let outcome = train_or_load(base.clone(), (&splits.train, None), &lora, &trainer, trained, out, &control)?;
    let mut costs = vec![Cost::new("training", outcome.report.seconds)];
    let model = outcome.model;
    println!("{}", summarize(&model));

    let clock = Instant::now();
    let point = |data| Ok::<_, crate::Failure>(predict_map(&model, data, &limits, &control)?.moments().0);
    let (of_train, of_pool, of_test) = (point(&splits.train)?, point(&splits.validation)?, point(&splits.test)?);
    costs.push(Cost::new("answers of the adapter to all items", clock.elapsed().as_secs_f64()));

    let mut structures = vec![CurvatureStructure::FunctionSpace, CurvatureStructure::Kronecker];
    if !arguments.without_cores {
        structures.push(CurvatureStructure::Core);
    }
    let config = |structure: &_| CurvatureConfig::default().with_structure(*structure).with_limits(limits);
    let configs: Vec<_> = structures.iter().map(config).collect();
    let clock = Instant::now();
    let curvatures = fit_curvatures(&model, &splits.train, &configs, &control)?;
    costs.push(Cost::new("curvatures in shared passes", clock.elapsed().as_secs_f64()));
    let mut laplaces = Vec::new();
    for curvature in curvatures {
        let (structure, bytes) = (curvature.config.structure, curvature.bytes());
        let clock = Instant::now();
        laplaces.push(Laplace::new(&model, &curvature, &LaplaceConfig::default())?);
        costs.push(Cost::new(format!("posterior, {structure}"), clock.elapsed().as_secs_f64()).with_bytes(bytes));
    }

    let mut cut_at = |space, laplace| Cut::new(space, (&model, laplace), &splits.train, &limits, &control, &mut costs);
    let weights = cut_at(Space::Weights, &laplaces[0])?;
    let cores = laplaces.get(2).map(|laplace| cut_at(Space::Cores, laplace)).transpose()?;
    let all: Vec<&Laplace> = laplaces.iter().collect();
    let clock = Instant::now();
    let asked = HeldOut::for_all(&model, &all, &splits.test, &limits, &control)?;
    costs.push(Cost::new("Jacobians of the test items", clock.elapsed().as_secs_f64()));

    let pool = (of_pool, splits.validation.labels()?);
    let mut test = Test::new(of_test, splits.test.labels()?)?;
    let mut rows = held_out_rows(&mut test, &pool)?;
    rows.extend(label_free_rows(&test, &weights)?);
    let cross_fitted = match arguments.cross_fit {
        None => None,
        Some(folds) => {
            let cross = CrossFit::new(folds, &base, &splits.train, (&lora, &trainer), &limits, &control)?;
            rows.extend(cross.rows(&test)?);
            Some(cross.summary)
        }
    };
    if let Some(members) = arguments.ensemble {
        let ensemble = Ensemble::new(members, &base, &splits, (&lora, &trainer), &limits, &control)?;
        rows.extend(ensemble.rows(&test, &pool, &weights)?);
    }
    let cuts = [&weights, &weights].into_iter().chain(&cores);
    for ((laplace, asked), cut) in laplaces.iter().zip(&asked).zip(cuts) {
        rows.extend(posterior_rows(&test, laplace, asked, cut)?);
    }
    let study = Study {
        task: splits.task.clone(),
        seed: task.items.seed,
        epochs: task.epochs,
        n_train: splits.train.len(),
        n_held_out: splits.validation.len(),
        n_test: splits.test.len(),
        n_adapter: summarize(&model).n_adapter,
        training: Fit::new(&LogitBelief::Point { logits: of_train }, &splits.train.labels()?)?,
        held_out: Fit::new(&LogitBelief::Point { logits: pool.0 }, &pool.1)?,
        left_out: [weights.summary].into_iter().chain(cores.map(|cut| cut.summary)).collect(),
        cross_fitted,
        costs,
        rows,
    };
    println!("training items: {}; held-out items: {}", study.training, study.held_out);
    study.left_out.iter().for_each(|left_out| println!("{left_out}"));
    study.costs.iter().for_each(|cost| println!("{cost}"));
    json::save(&out.join("study.json"), &study)
}
