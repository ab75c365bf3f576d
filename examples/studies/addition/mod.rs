//! Does the posterior know which sums it has learnt to add? A model is trained on sums of few digits and asked for longer ones, too; which
//! score of its answers tells the wrong ones?
//!
//! ```sh
//! cargo run --release --example studies -- addition --seeds 0,1,2
//! ```
//!
//! stories260K, offline; `--model` takes another directory whose tokenizer has digits. Writes a cell a seed to `--out`.

mod sums;

use crate::answers::{PLAIN, Scorer, Worth, auroc_above, more_than, own_answers, worth};
use crate::{Outcome, json, shipped};
use bayes_lora::curvature::{CurvatureStructure, FisherKind};
use bayes_lora::data::{BatchLimits, TextDataset, TextEncoding, TextItem, Tokenizer};
use bayes_lora::likelihood::NextToken;
use bayes_lora::lora::{LoraConfig, attach};
use bayes_lora::metrics::{Estimate, RiskCoverage};
use bayes_lora::models::{Pretrained, TextModel};
use bayes_lora::outputs::claim_dir;
use bayes_lora::progress::Control;
use bayes_lora::train::{Trainer, TrainerConfig, TrainingMode};
use burn::tensor::Device;
use clap::Args;
use serde::Serialize;
use std::path::PathBuf;
use std::time::Instant;
use sums::Sums;

/// Most digits of a number that is asked about.
const LENGTHS: usize = 5;
/// Levels of the risk–coverage curves.
const LEVELS: usize = 20;

#[derive(Args)]
pub struct Arguments {
    /// Hugging Face directory of the model.
    #[arg(long, default_value = shipped::MODEL)]
    model: PathBuf,
    /// Seeds of the sums, the adapter's start and the training, one cell each.
    #[arg(long, value_delimiter = ',', default_value = "0")]
    seeds: Vec<u64>,
    /// Sums to train on, of 1 digit, 2 digits and so on.
    #[arg(long, value_delimiter = ',', default_value = "75,1000,2000")]
    train: Vec<usize>,
    /// Sums of each length to ask; of one digit a quarter of all.
    #[arg(long, default_value_t = 60)]
    asked: usize,
    /// Passes over the training set.
    #[arg(long, default_value_t = 11)]
    epochs: usize,
    /// Sums of a training step.
    #[arg(long, default_value_t = 16)]
    batch: usize,
    #[arg(long, default_value_t = 16)]
    rank: usize,
    #[arg(long, default_value_t = 2e-3)]
    learning_rate: f64,
    /// Draws of the Fisher information for each text.
    #[arg(long, default_value_t = 1)]
    draws: usize,
    /// Directory for the cells.
    #[arg(long, default_value = "target/addition")]
    out: PathBuf,
}

/// One score of the answers in one seed.
#[derive(Serialize)]
struct Row {
    score: String,
    /// Of the answers to all lengths.
    all: Option<Worth>,
    /// Of the answers to lengths that were trained on.
    trained: Option<Worth>,
    /// What the AUROC of wrong above right over all lengths is more than that of −log-likelihood a token.
    more: Option<Estimate>,
    /// The same over lengths that were trained on.
    more_trained: Option<Estimate>,
    /// That an answer to a length never trained on scores above the others.
    longer_above: Estimate,
    /// Means over the sums of each length.
    by_length: Vec<f64>,
    /// Share of wrong answers among the surest, at coverages 1/20, 2/20, …, 1.
    risk: Vec<f64>,
}

#[derive(Serialize)]
struct Cell {
    seed: u64,
    model: String,
    asked: Vec<usize>,
    train: Vec<usize>,
    epochs: usize,
    batch: usize,
    rank: usize,
    learning_rate: f64,
    draws: usize,
    n_scored_tokens: usize,
    train_perplexity: f64,
    /// Share of answers that are right, by length.
    right: Vec<f64>,
    /// Of who rejects all wrong answers first.
    oracle_risk: Vec<f64>,
    /// λ by evidence, by structure.
    priors: Vec<(String, f64)>,
    rows: Vec<Row>,
    seconds: f64,
}

pub fn run(arguments: &Arguments, control: Control) -> Outcome<()> {
    claim_dir(&arguments.out, 0)?;
    let control = control.with_signals()?;
    for &seed in &arguments.seeds {
        println!("seed {seed}");
        let cell = cell(arguments, seed, &control)?;
        json::save(&arguments.out.join(format!("seed-{seed}.json")), &cell)?;
        println!("{:.0} s\n", cell.seconds);
    }
    Ok(())
}

/// The answers to all lengths, and what is known of them.
struct Answers {
    own: TextDataset,
    /// Digits of the numbers asked about.
    lengths: Vec<usize>,
    right: Vec<bool>,
    /// Most digits that were trained on.
    trained: usize,
}

fn cell(arguments: &Arguments, seed: u64, control: &Control) -> Outcome<Cell> {
    let clock = Instant::now();
    let tokenizer = Tokenizer::from_dir(&arguments.model)?;
    // the full stop ends an answer
    let encoding = TextEncoding::default().with_end_token(false);
    let sums = Sums::new(LENGTHS, arguments.asked, &arguments.train, seed);
    let items: Vec<TextItem> = sums.train.iter().enumerate().map(|(i, sum)| sum.item(i)).collect();
    let train = encoding.encode("sums", &items, &tokenizer)?;
    println!("{}", train.example(0, &tokenizer)?);
    let lora =
        LoraConfig::new(arguments.rank).with_alpha(2.0 * arguments.rank as f64).with_target_pattern("all-linear");
    let model = TextModel::new(Pretrained::from_dir(&arguments.model)?.load(&Device::flex())?);
    let limits = BatchLimits { max_items: 64, max_tokens: 4096 };
    let config = TrainerConfig::default().with_likelihood(NextToken).with_seed(seed);
    let config = config
        .with_limits(BatchLimits { max_items: arguments.batch, ..limits })
        .with_epochs(arguments.epochs)
        .with_learning_rate(arguments.learning_rate);
    // the model has hardly seen a digit: its embeddings train, too
    let config = config.with_mode(TrainingMode::Full);
    let outcome = Trainer::new(config)?.fit(attach(model, &lora, seed)?, &train, None, control)?;
    let model = outcome.model;
    let train_nll = outcome.report.epochs.last().map_or(f64::NAN, |epoch| epoch.train_nll);
    println!("trained after {:.0} s", clock.elapsed().as_secs_f64());

    let answers = answer(&model, &sums, arguments.train.len(), &encoding, &tokenizer)?;
    let right = answers.by_length(&answers.right.iter().map(|right| f64::from(u8::from(*right))).collect::<Vec<_>>());
    println!("right by length {right:.2?} after {:.0} s", clock.elapsed().as_secs_f64());
    let fisher = FisherKind::Sampled { n: arguments.draws, seed };
    let structures = [CurvatureStructure::Kronecker, CurvatureStructure::Core];
    let scorer = Scorer::fit(&model, &train, &structures, fisher, limits, control)?;
    let scores = scorer.scores(&answers.own, control)?;
    let plain = scores.iter().find(|(name, _)| name == PLAIN).map(|(_, values)| values.clone()).unwrap_or_default();
    let rows = scores.into_iter().map(|(score, values)| row(&answers, score, &values, &plain));
    let rows = rows.collect::<Outcome<Vec<Row>>>()?;
    let of_oracle: Vec<f64> = answers.right.iter().map(|right| f64::from(u8::from(!right))).collect();
    Ok(Cell {
        seed,
        model: arguments.model.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        asked: sums.asked.iter().map(Vec::len).collect(),
        train: arguments.train.clone(),
        epochs: arguments.epochs,
        batch: arguments.batch,
        rank: arguments.rank,
        learning_rate: arguments.learning_rate,
        draws: arguments.draws,
        n_scored_tokens: train.n_scored(),
        train_perplexity: train_nll.exp(),
        right,
        oracle_risk: risk(&of_oracle, &answers.right)?,
        priors: scorer.priors,
        rows,
        seconds: clock.elapsed().as_secs_f64(),
    })
}

fn answer(
    model: &TextModel,
    sums: &Sums,
    trained: usize,
    encoding: &TextEncoding,
    tokenizer: &Tokenizer,
) -> Outcome<Answers> {
    let of_length = |(k, sums): (usize, &Vec<sums::Sum>)| sums.iter().map(|sum| (k + 1, *sum)).collect::<Vec<_>>();
    let all: Vec<(usize, sums::Sum)> = sums.asked.iter().enumerate().flat_map(of_length).collect();
    let asked: Vec<TextItem> = all.iter().enumerate().map(|(i, (_, sum))| sum.item(i)).collect();
    let own = own_answers(model, &asked, LENGTHS + 3, encoding, tokenizer)?;
    let truth = encoding.encode("sums asked", &asked, tokenizer)?;
    let right = own.examples.iter().zip(&truth.examples).map(|(own, truth)| own.ids == truth.ids).collect();
    Ok(Answers { own, lengths: all.into_iter().map(|(length, _)| length).collect(), right, trained })
}

impl Answers {
    fn by_length(&self, values: &[f64]) -> Vec<f64> {
        let mean = |length: usize| {
            let of = || self.lengths.iter().zip(values).filter(|(of, _)| **of == length);
            of().map(|(_, value)| value).sum::<f64>() / of().count() as f64
        };
        (1..=LENGTHS).map(mean).collect()
    }

    /// Values of the answers to lengths that were trained on.
    fn of_trained<T: Copy>(&self, values: &[T]) -> Vec<T> {
        let is_trained = |(length, _): &(&usize, &T)| **length <= self.trained;
        self.lengths.iter().zip(values).filter(is_trained).map(|(_, value)| *value).collect()
    }
}

fn row(answers: &Answers, score: String, values: &[f64], plain: &[f64]) -> Outcome<Row> {
    let (some, right) = (answers.of_trained(values), answers.of_trained(&answers.right));
    let more = |values: &[f64], plain: &[f64], right: &[bool], worth: &Option<Worth>| match worth {
        Some(_) => more_than(values, plain, &right.iter().map(|right| !right).collect::<Vec<_>>()),
        None => Ok(None),
    };
    let (all, trained) = (worth(values, &answers.right)?, worth(&some, &right)?);
    let is_longer: Vec<bool> = answers.lengths.iter().map(|length| *length > answers.trained).collect();
    let row = Row {
        more: more(values, plain, &answers.right, &all)?,
        more_trained: more(&some, &answers.of_trained(plain), &right, &trained)?,
        all,
        trained,
        longer_above: auroc_above(values, &is_longer)?,
        by_length: answers.by_length(values),
        risk: risk(values, &answers.right)?,
        score,
    };
    let says = |worth: &Option<Worth>| worth.as_ref().map(|w| (w.auroc.value, w.rejection.value));
    println!("{:44} {:.3?} trained {:.3?}; {:.3?}", row.score, says(&row.all), says(&row.trained), row.by_length);
    Ok(row)
}

/// The share of wrong answers among the surest, by coverage.
fn risk(doubt: &[f64], right: &[bool]) -> Outcome<Vec<f64>> {
    let confidence: Vec<f64> = doubt.iter().map(|doubt| -doubt).collect();
    let curve = RiskCoverage::from_confidence(&confidence, right)?;
    let at = |k: usize| Ok(1.0 - curve.accuracy_at(k as f64 / LEVELS as f64)?);
    (1..=LEVELS).map(at).collect()
}
