//! What reproduces the figures of the documentation: one program, one command a study.
//!
//! ```sh
//! cargo run --release --example studies -- --help
//! cargo run --release --example studies -- next-task --seeds 0,1,2 --out target/next_task
//! ```
//!
//! A study writes JSON, from which `docs_tables` fills the tables. Who wants to learn how the library is used reads the other examples.

mod addition;
mod answers;
mod compare_quick;
mod comparison;
mod curvature;
mod curvature_cost;
mod experiment;
mod generation_speed;
mod growth;
mod invented_facts;
mod json;
mod leave_one_out;
mod leave_one_out_cost;
mod next_task;
mod paper_table;
mod process;
mod reward_model;
mod shipped;
mod text_classification;
mod text_parity;
mod throughput;
mod training_items;

use bayes_lora::progress::Control;
use clap::{Parser, Subcommand};
use std::process::ExitCode;

pub type Failure = Box<dyn std::error::Error>;
pub type Outcome<T> = Result<T, Failure>;

#[derive(Parser)]
#[command(about = "Reproduce the figures of the documentation")]
struct Arguments {
    #[command(subcommand)]
    study: Study,
}

#[derive(Subcommand)]
enum Study {
    /// Which repair of an adapter's confidence needs no held-out label, and does it ever harm?
    LeaveOneOut(leave_one_out::Arguments),
    /// What the matched prior and the leave-one-out temperature cost beside the fit
    LeaveOneOutCost(leave_one_out_cost::Arguments),
    /// Every structure of curvature around one trained adapter
    Curvature(curvature::Arguments),
    /// How the cost of every structure grows
    CurvatureCost,
    /// Mislabelled items, influential items and the next items to label, offline
    TrainingItems(training_items::Arguments),
    /// A second task without forgetting the first, offline
    NextTask(next_task::Arguments),
    /// Uncertainty about people that were read about 0 to 8 times, offline
    InventedFacts(invented_facts::Arguments),
    /// Uncertainty about sums of more digits than were trained on, offline
    Addition(addition::Arguments),
    /// Methods of uncertainty on the model and task that ship with the crate
    CompareQuick(compare_quick::Arguments),
    /// Methods of uncertainty over any tasks and seeds
    PaperTable(paper_table::Arguments),
    /// Labels of texts by an encoder, over seeds
    TextClassification(text_classification::Arguments),
    /// Rewards from preferences, and the best of several answers, over seeds
    RewardModel(reward_model::Arguments),
    /// Fine-tuning on texts beside PEFT: the same tokens, batches and first adapter
    TextParity(text_parity::Arguments),
    /// The time of every stage, beside another library's
    Throughput(throughput::Arguments),
    /// How seconds and memory grow with tokens, classes, rank, batch and layers
    Growth(growth::Arguments),
    /// How fast text is generated, with draws in lockstep
    GenerationSpeed(generation_speed::Arguments),
}

fn main() -> ExitCode {
    let Arguments { study } = Arguments::parse();
    let control = Control::with_bars();
    let result = run(&study, control.clone());
    // saves of unfinished work that failed stop nothing
    let failures = control.save_failures();
    if failures.count > 0 {
        eprintln!("warning: {failures}");
    }
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(study: &Study, control: Control) -> Outcome<()> {
    match study {
        Study::LeaveOneOut(arguments) => leave_one_out::run(arguments, control),
        Study::LeaveOneOutCost(arguments) => leave_one_out_cost::run(arguments, control),
        Study::Curvature(arguments) => curvature::run(arguments, control),
        Study::CurvatureCost => curvature_cost::run(),
        Study::TrainingItems(arguments) => training_items::run(arguments, control),
        Study::NextTask(arguments) => next_task::run(arguments, control),
        Study::InventedFacts(arguments) => invented_facts::run(arguments, control),
        Study::Addition(arguments) => addition::run(arguments, control),
        Study::CompareQuick(arguments) => compare_quick::run(arguments, control),
        Study::PaperTable(arguments) => paper_table::run(arguments, control),
        Study::TextClassification(arguments) => text_classification::run(arguments, control),
        Study::RewardModel(arguments) => reward_model::run(arguments, control),
        Study::TextParity(arguments) => text_parity::run(arguments, control),
        Study::Throughput(arguments) => throughput::run(arguments),
        Study::Growth(arguments) => growth::run(arguments),
        Study::GenerationSpeed(arguments) => generation_speed::run(arguments),
    }
}
