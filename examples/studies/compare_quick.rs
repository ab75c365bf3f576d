//! Methods of uncertainty side by side on a real pretrained language model, offline, in a few minutes on two cores: one report
//! in HTML, Markdown and JSON.
//!
//! stories260K (a 1 MB Llama) learns to route MMLU questions to three of their four areas from 400 questions. The fourth area is
//! data from elsewhere, on which its answers should be unsure.
//!
//! ```sh
//! cargo run --release --example studies -- compare-quick --out target/compare_quick
//! ```

use crate::comparison::methods::{MethodArguments, names};
use crate::comparison::report_arguments::ReportArguments;
use crate::comparison::scores::leave;
use crate::{Outcome, shipped};
use bayes_lora::compare::{About, ClassName, Comparison, Protocol, Report, Shifted, Splits};
use bayes_lora::data::{BatchLimits, Item, Task, Tokenizer};
use bayes_lora::lora::LoraConfig;
use bayes_lora::methods::Recipe;
use bayes_lora::models::PromptClassifier;
use bayes_lora::number::significant;
use bayes_lora::outputs::claim_dir;
use bayes_lora::progress::Control;
use bayes_lora::train::{Snapshots, TrainerConfig};
use clap::Args;
use std::path::PathBuf;
use std::time::Instant;

const AREAS: [&str; 3] = ["STEM", "humanities", "social sciences"];
const LETTERS: [&str; 3] = ["A", "B", "C"];

#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    methods: MethodArguments,
    #[command(flatten)]
    report: ReportArguments,
    /// How many seeds: 0, 1, …
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// Directory for the cells and the report; a run that was interrupted goes on there.
    #[arg(long, default_value = "target/compare_quick")]
    out: PathBuf,
}

pub fn run(arguments: &Arguments, control: Control) -> Outcome<()> {
    claim_dir(&arguments.out, 0)?;
    let control = control.with_workers(2)?.with_signals()?;
    let start = Instant::now();
    let (tokenizer, encoding) = (shipped::tokenizer()?, shipped::encoding(LETTERS));
    let limits = BatchLimits { max_items: 16, max_tokens: 4096 };
    let recipe =
        Recipe::new(LoraConfig::new(8).with_dropout(0.1).with_target_modules(["q_proj", "k_proj", "v_proj", "o_proj"]))
            .with_trainer(
                TrainerConfig::default()
                    .with_epochs(8)
                    .with_learning_rate(2e-3)
                    .with_limits(BatchLimits { max_items: 8, ..limits })
                    .with_accumulation(2)
                    .with_snapshots(Snapshots { count: arguments.methods.members, from: 0.5 }),
            );
    let lm = shipped::language_model()?;
    let (known, _) = by_area(&shipped::questions("train")?)?;
    let (test, other) = by_area(&shipped::questions("test")?)?;
    let all = names(true);
    let mut runs = Vec::new();
    for seed in 0..arguments.seeds {
        let (train, rest) = known.split(400, seed)?;
        let [train, held_out, test, other] =
            [train, rest.sample(200, seed)?, test.sample(500, seed)?, other.sample(200, seed)?]
                .map(|task| encoding.encode(&task, &tokenizer));
        let (train, held_out, test, other) = (train?, held_out?, test?, other?);
        let other = other.with_classes(LETTERS.len())?;
        let base = PromptClassifier::new(lm.clone(), &train)?;
        let about = About {
            protocol: Protocol::Clean.name().into(),
            task: "MMLU areas".into(),
            model: "stories260K".into(),
            prompt_hash: encoding.template.fingerprint(),
            prompt_example: train.example(0, &tokenizer)?,
            classes: classes(&tokenizer)?,
        };
        let splits = Splits {
            train: &train,
            held_out: Some(&held_out),
            test: &test,
            shifted: vec![Shifted { name: "fourth area".into(), data: &other, labelled: false }],
        };
        let comparison = Comparison::new(recipe.clone())
            .with_methods(arguments.methods.methods(&all)?)
            .with_limits(limits)
            .with_dir(&arguments.out)
            .with_control(control.clone());
        runs.push(comparison.run(&base, &about, &splits, seed)?);
    }
    let report = Report::new(runs, arguments.report.options("MMLU areas, stories260K".into()))?;
    leave(&report, &arguments.out)?;
    println!("{} s in all", significant(start.elapsed().as_secs_f64()));
    Ok(())
}

/// The items of the three areas, and those of the fourth; an item of the fourth has no answer among the three.
fn by_area(task: &Task) -> Outcome<(Task, Task)> {
    let three = |item: &Item| Item { choices: AREAS.map(String::from).to_vec(), ..item.clone() };
    let is_known = |item: &&Item| item.answer.is_some_and(|answer| answer < AREAS.len());
    let (known, other): (Vec<&Item>, Vec<&Item>) = task.items.iter().partition(|item| is_known(item));
    let other = other.into_iter().map(|item| Item { answer: None, ..three(item) }).collect();
    Ok((
        Task::new(task.name.clone(), known.into_iter().map(three).collect())?,
        Task::new(format!("{}, other", task.name), other)?,
    ))
}

fn classes(tokenizer: &Tokenizer) -> Outcome<Vec<ClassName>> {
    let letters = LETTERS.map(String::from);
    let tokens = tokenizer.class_tokens("Area:", &letters)?;
    let names = AREAS.iter().zip(tokens);
    Ok(names.map(|(name, token)| ClassName { name: name.to_string(), token: Some(token) }).collect())
}
