//! The table of a paper: any Hugging Face directory, any tasks, any methods, any seeds. Every finished cell is a file, so that a
//! run resumes where it stopped, and shards on several machines are merged by copying their directories together.
//!
//! ```sh
//! cargo run --release --example studies -- paper-table --model SmolLM2-135M-Instruct --data tasks \
//!   --tasks examples/studies/paper_table/small.json --seeds 3 --out docs/results/paper_table
//! ```

mod tasks;

use crate::Outcome;
use crate::comparison::methods::{MethodArguments, names};
use crate::comparison::report_arguments::ReportArguments;
use crate::comparison::scores::leave;
use crate::experiment::base::load_base;
use bayes_lora::compare::{About, Comparison, Protocol, Report, Shifted, Splits, read_runs};
use bayes_lora::data::{BatchLimits, Tokenizer};
use bayes_lora::lora::LoraConfig;
use bayes_lora::methods::Recipe;
use bayes_lora::models::PromptClassifier;
use bayes_lora::outputs::claim_dir;
use bayes_lora::progress::Control;
use bayes_lora::train::{Snapshots, TrainerConfig};
use clap::Args;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use tasks::{Sizes, TaskSpec};

#[derive(Args)]
pub struct Arguments {
    /// Hugging Face directory: config.json, safetensors, tokenizer.json.
    #[arg(long)]
    model: PathBuf,
    /// Directory that the files of the tasks are relative to.
    #[arg(long)]
    data: PathBuf,
    /// JSON list of tasks.
    #[arg(long, default_value = "examples/studies/paper_table/small.json")]
    tasks: PathBuf,
    /// Only these tasks, by name.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    #[command(flatten)]
    methods: MethodArguments,
    #[command(flatten)]
    report: ReportArguments,
    /// `clean`, or `blob2024`: the prompts, rows and training of the code behind BLoB's and TFB's tables. Flags of the recipe are
    /// refused, files with fewer items than asked for are taken whole, and `examples/studies/paper_table/blob2024.json` names the splits.
    #[arg(long, default_value = Protocol::Clean.name())]
    protocol: Protocol,
    /// How many seeds: 0, 1, …
    #[arg(long, default_value_t = 3)]
    seeds: u64,
    /// Do every k-th pair of task and seed, from the i-th on (`i/k`, i from 0).
    #[arg(long, default_value = "0/1")]
    shard: Shard,
    #[arg(long, default_value_t = 256)]
    n_train: usize,
    /// Items for calibrators and sets, not trained on; none with 0.
    #[arg(long, default_value_t = 96)]
    n_held_out: usize,
    #[arg(long, default_value_t = 160)]
    n_test: usize,
    /// Most items of each data set from elsewhere.
    #[arg(long, default_value_t = 64)]
    n_shifted: usize,
    #[command(flatten)]
    recipe: RecipeArguments,
    /// Items of a batch; a preset trains in batches of its own.
    #[arg(long, default_value_t = 8)]
    batch: usize,
    /// Directory for the cells and the report.
    #[arg(long, default_value = "target/paper_table")]
    out: PathBuf,
}

#[derive(Args)]
struct RecipeArguments {
    /// Passes over the training items [default: 3]
    #[arg(long)]
    epochs: Option<usize>,
    /// [default: 5e-4]
    #[arg(long)]
    learning_rate: Option<f64>,
    /// [default: 8]
    #[arg(long)]
    rank: Option<usize>,
    /// [default: 16]
    #[arg(long)]
    alpha: Option<f64>,
    /// [default: 0.1]
    #[arg(long)]
    dropout: Option<f64>,
    /// [default: q_proj,v_proj]
    #[arg(long, value_delimiter = ',')]
    targets: Vec<String>,
}

impl RecipeArguments {
    /// A flag that was given.
    fn given(&self) -> Option<&'static str> {
        let Self { epochs, learning_rate, rank, alpha, dropout, targets } = self;
        let flags = [
            ("--epochs", epochs.is_some()),
            ("--learning-rate", learning_rate.is_some()),
            ("--rank", rank.is_some()),
            ("--alpha", alpha.is_some()),
            ("--dropout", dropout.is_some()),
            ("--targets", !targets.is_empty()),
        ];
        flags.into_iter().find(|(_, is_given)| *is_given).map(|(flag, _)| flag)
    }

    /// The recipe that the flags ask for, in micro-batches of half a batch.
    fn recipe(&self, limits: BatchLimits) -> Recipe {
        let targets = match &self.targets[..] {
            [] => vec!["q_proj".into(), "v_proj".into()],
            targets => targets.to_vec(),
        };
        let lora = LoraConfig::new(self.rank.unwrap_or(8))
            .with_alpha(self.alpha.unwrap_or(16.0))
            .with_dropout(self.dropout.unwrap_or(0.1))
            .with_target_modules(targets);
        let trainer = TrainerConfig::default()
            .with_epochs(self.epochs.unwrap_or(3))
            .with_learning_rate(self.learning_rate.unwrap_or(5e-4))
            // two micro-batches a step, so that two workers share it
            .with_limits(BatchLimits { max_items: limits.max_items.div_ceil(2), ..limits })
            .with_accumulation(2);
        Recipe::new(lora).with_trainer(trainer)
    }
}

/// Which part of the work is this process's.
#[derive(Clone, Copy)]
struct Shard {
    index: usize,
    count: usize,
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('/').and_then(|(i, k)| Some((i.parse().ok()?, k.parse().ok()?)));
        match parts {
            Some((index, count)) if index < count => Ok(Self { index, count }),
            _ => Err(format!("a shard is i/k with i below k, not `{text}`")),
        }
    }
}

pub fn run(arguments: &Arguments, control: Control) -> Outcome<()> {
    if let (Protocol::Blob2024, Some(flag)) = (arguments.protocol, arguments.recipe.given()) {
        let name = arguments.protocol.name();
        return Err(format!("the protocol {name} has a recipe of its own: {flag} has no say").into());
    }
    let specs = TaskSpec::read_all(&arguments.tasks)?;
    if let Some(unknown) = arguments.only.iter().find(|name| specs.iter().all(|spec| spec.name != **name)) {
        return Err(format!("{} has no task `{unknown}`", arguments.tasks.display()).into());
    }
    let chosen = specs.iter().filter(|spec| arguments.only.is_empty() || arguments.only.contains(&spec.name));
    // seeds outermost: every task has one seed before any has two
    let chosen: Vec<&TaskSpec> = chosen.collect();
    // what is asked for wrongly is said before hours are spent
    chosen.iter().try_for_each(|spec| spec.check(arguments.protocol))?;
    let work = (0..arguments.seeds).flat_map(|seed| chosen.iter().map(move |spec| (*spec, seed)));
    claim_dir(&arguments.out, 0)?;
    let control = control.with_workers(2)?.with_signals()?;
    for (spec, seed) in work.skip(arguments.shard.index).step_by(arguments.shard.count) {
        println!("{}, seed {seed}", spec.name);
        one(arguments, spec, seed, &control)?;
    }
    let title = format!("Methods of uncertainty on {}", name_of(&arguments.model));
    let report = Report::new(read_runs(&arguments.out)?, arguments.report.options(title))?;
    leave(&report, &arguments.out)
}

fn name_of(model: &Path) -> String {
    model.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn one(arguments: &Arguments, spec: &TaskSpec, seed: u64, control: &Control) -> Outcome<()> {
    let Arguments { n_train, n_held_out, n_test, n_shifted, .. } = *arguments;
    let sizes = Sizes { train: n_train, held_out: n_held_out, test: n_test, shifted: n_shifted };
    let tokenizer = Tokenizer::from_dir(&arguments.model)?;
    let task = spec.encode(&arguments.data, &tokenizer, &sizes, (arguments.protocol, seed))?;
    let limits = BatchLimits { max_items: arguments.batch, max_tokens: 4096 };
    let mut recipe = match arguments.protocol {
        Protocol::Clean => arguments.recipe.recipe(limits),
        preset @ Protocol::Blob2024 => preset.recipe(task.train.len()),
    };
    recipe.trainer.snapshots = Snapshots { count: arguments.methods.members, from: 0.5 };
    let lm = load_base(&arguments.model)?;
    let base = PromptClassifier::new(lm, &task.train)?;
    let about = About {
        protocol: arguments.protocol.name().into(),
        task: spec.name.clone(),
        model: name_of(&arguments.model),
        prompt_hash: task.prompt_hash.clone(),
        prompt_example: task.example.clone(),
        classes: task.classes.clone(),
    };
    let splits = Splits {
        train: &task.train,
        held_out: task.held_out.as_ref(),
        test: &task.test,
        shifted: task
            .shifted
            .iter()
            .map(|shift| Shifted { name: shift.name.clone(), data: &shift.data, labelled: shift.labelled })
            .collect(),
    };
    let comparison = Comparison::new(recipe)
        .with_methods(arguments.methods.methods(&names(false))?)
        .with_limits(limits)
        .with_dir(&arguments.out)
        .with_control(control.clone());
    comparison.run(&base, &about, &splits, seed)?;
    Ok(())
}
