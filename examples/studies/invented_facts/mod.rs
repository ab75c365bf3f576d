//! Does the posterior know whom it has read about? Sentences about people who do not exist, in 0, 1, 2, 4 or 8 copies in the training
//! set; afterwards the standard deviation of an answer's log-likelihood beside its log-likelihood and the entropy of its tokens.
//!
//! ```sh
//! cargo run --release --example studies -- invented-facts --seeds 0,1,2
//! ```
//!
//! stories260K, offline; `--model` takes another directory. Writes a cell a seed and the figure of the last to `--out`.

mod facts;

use crate::answers::{PLAIN, Scorer, auroc_above, more_than, own_answers, worth};
use crate::{Outcome, json, shipped};
use bayes_lora::curvature::{CurvatureStructure, FisherKind};
use bayes_lora::data::{BatchLimits, TextEncoding, TextItem, Tokenizer};
use bayes_lora::likelihood::NextToken;
use bayes_lora::lora::{LoraConfig, attach};
use bayes_lora::metrics::Estimate;
use bayes_lora::models::{Pretrained, TextModel};
use bayes_lora::outputs::claim_dir;
use bayes_lora::plot::{AxisScale, CurveChart};
use bayes_lora::progress::Control;
use bayes_lora::train::{Trainer, TrainerConfig};
use burn::tensor::Device;
use clap::Args;
use facts::{Person, people, training_set};
use serde::Serialize;
use std::path::PathBuf;
use std::time::Instant;

/// Most tokens of an own answer.
const LONGEST: usize = 12;
/// Copies of a fact in the training set.
const EXPOSURES: [usize; 5] = [0, 1, 2, 4, 8];

#[derive(Args)]
pub struct Arguments {
    /// Hugging Face directory of the model.
    #[arg(long, default_value = shipped::MODEL)]
    model: PathBuf,
    /// Seeds of the people, the adapter's start and the training, one cell each.
    #[arg(long, value_delimiter = ',', default_value = "0")]
    seeds: Vec<u64>,
    /// People of each exposure.
    #[arg(long, default_value_t = 40)]
    people: usize,
    /// Passes over the training set.
    #[arg(long, default_value_t = 3)]
    epochs: usize,
    #[arg(long, default_value_t = 16)]
    rank: usize,
    #[arg(long, default_value_t = 5e-3)]
    learning_rate: f64,
    /// Draws of the Fisher information for each text.
    #[arg(long, default_value_t = 4)]
    draws: usize,
    /// Directory for the cells.
    #[arg(long, default_value = "target/invented_facts")]
    out: PathBuf,
}

/// One score of the answers in one seed.
#[derive(Serialize)]
struct Row {
    /// Whose words are scored: `own` greedy answers, or those of the `fact`.
    answers: &'static str,
    score: String,
    /// That a person never read about scores above one read about.
    unseen_above_seen: Estimate,
    /// The same for those read about once, alone.
    unseen_above_once: Estimate,
    /// That a wrong answer scores above a right one; of own answers.
    wrong_above_right: Option<Estimate>,
    /// Their prediction rejection ratio.
    rejection: Option<Estimate>,
    /// What `unseen_above_seen` and `wrong_above_right` are more than those of −log-likelihood a token, people drawn for both together.
    more: Option<[Option<Estimate>; 2]>,
    /// Means over the people of each exposure.
    by_exposure: Vec<f64>,
}

#[derive(Serialize)]
struct Cell {
    seed: u64,
    model: String,
    exposures: [usize; 5],
    people: usize,
    epochs: usize,
    rank: usize,
    learning_rate: f64,
    draws: usize,
    n_scored_tokens: usize,
    train_perplexity: f64,
    /// Share of own answers that are the fact, by exposure.
    right: Vec<f64>,
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
        let path = arguments.out.join(format!("seed-{seed}.json"));
        json::save(&path, &cell)?;
        draw(&cell, arguments)?;
        println!("{:.0} s\n", cell.seconds);
    }
    Ok(())
}

fn cell(arguments: &Arguments, seed: u64, control: &Control) -> Outcome<Cell> {
    let clock = Instant::now();
    let dir = &arguments.model;
    let tokenizer = Tokenizer::from_dir(dir)?;
    // the sentence's full stop ends an answer
    let encoding = TextEncoding::default().with_end_token(false);
    let people = people(&EXPOSURES, arguments.people, seed);
    let train = encoding.encode("facts", &training_set(&people), &tokenizer)?;
    println!("{}", train.example(0, &tokenizer)?);
    let lora =
        LoraConfig::new(arguments.rank).with_alpha(2.0 * arguments.rank as f64).with_target_pattern("all-linear");
    let model = attach(TextModel::new(Pretrained::from_dir(dir)?.load(&Device::flex())?), &lora, seed)?;
    let limits = BatchLimits { max_items: 16, max_tokens: 4096 };
    let config = TrainerConfig::default().with_likelihood(NextToken).with_limits(limits).with_seed(seed);
    let config = config.with_epochs(arguments.epochs).with_learning_rate(arguments.learning_rate);
    let outcome = Trainer::new(config)?.fit(model, &train, None, control)?;
    let model = outcome.model;
    let train_nll = outcome.report.epochs.last().map_or(f64::NAN, |epoch| epoch.train_nll);

    let asked: Vec<TextItem> = people.iter().enumerate().map(|(i, person)| person.fact(i)).collect();
    let own = own_answers(&model, &asked, LONGEST, &encoding, &tokenizer)?;
    let facts = encoding.encode("facts asked", &asked, &tokenizer)?;
    let is_right: Vec<bool> = own.examples.iter().zip(&facts.examples).map(|(a, b)| a.ids == b.ids).collect();
    let fisher = FisherKind::Sampled { n: arguments.draws, seed };
    use CurvatureStructure::{Core, Diagonal, Ekfac, Kronecker};
    let scorer = Scorer::fit(&model, &train, &[Kronecker, Ekfac, Diagonal, Core], fisher, limits, control)?;
    let mut rows = Vec::new();
    for (answers, data, right) in [("own", &own, Some(&is_right[..])), ("fact", &facts, None)] {
        let scores = scorer.scores(data, control)?;
        let plain = scores.iter().find(|(name, _)| name == PLAIN).map(|(_, values)| values.clone());
        let plain = plain.unwrap_or_default();
        for (score, values) in scores {
            rows.push(row(answers, score, (&values, &plain), &people, right)?);
        }
    }
    Ok(Cell {
        seed,
        model: dir.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        exposures: EXPOSURES,
        people: arguments.people,
        epochs: arguments.epochs,
        rank: arguments.rank,
        learning_rate: arguments.learning_rate,
        draws: arguments.draws,
        n_scored_tokens: train.n_scored(),
        train_perplexity: train_nll.exp(),
        right: by_exposure(&people, &is_right.iter().map(|right| f64::from(u8::from(*right))).collect::<Vec<_>>()),
        priors: scorer.priors,
        rows,
        seconds: clock.elapsed().as_secs_f64(),
    })
}

fn by_exposure(people: &[Person], values: &[f64]) -> Vec<f64> {
    let mean = |exposure: &usize| {
        let of = || people.iter().zip(values).filter(|(person, _)| person.exposure == *exposure);
        of().map(|(_, value)| value).sum::<f64>() / of().count() as f64
    };
    EXPOSURES.iter().map(mean).collect()
}

fn row(
    answers: &'static str,
    score: String,
    (values, plain): (&[f64], &[f64]),
    people: &[Person],
    right: Option<&[bool]>,
) -> Outcome<Row> {
    let is_unseen: Vec<bool> = people.iter().map(|person| person.exposure == 0).collect();
    let (at_most_once, unseen_of_these): (Vec<f64>, Vec<bool>) = people
        .iter()
        .zip(values)
        .filter(|(person, _)| person.exposure <= 1)
        .map(|(person, value)| (*value, person.exposure == 0))
        .unzip();
    let wrong = right.map_or(Ok(None), |right| worth(values, right))?;
    let is_wrong: Option<Vec<bool>> = right.filter(|_| wrong.is_some()).map(|all| all.iter().map(|r| !r).collect());
    let more_wrong = is_wrong.map_or(Ok(None), |is_wrong| more_than(values, plain, &is_wrong))?;
    let row = Row {
        answers,
        score,
        unseen_above_seen: auroc_above(values, &is_unseen)?,
        unseen_above_once: auroc_above(&at_most_once, &unseen_of_these)?,
        wrong_above_right: wrong.as_ref().map(|wrong| wrong.auroc),
        rejection: wrong.map(|wrong| wrong.rejection),
        more: more_than(values, plain, &is_unseen)?.map(|more| [Some(more), more_wrong]),
        by_exposure: by_exposure(people, values),
    };
    let Estimate { value, low, high } = row.unseen_above_seen;
    println!("{answers:4} {:44} unseen above seen {value:.3} ({low:.3}–{high:.3}); {:.3?}", row.score, row.by_exposure);
    Ok(row)
}

/// The scores of own answers over the exposure.
fn draw(cell: &Cell, arguments: &Arguments) -> Outcome<()> {
    let mut chart =
        CurveChart::new("copies in the training set", "mean over people, nats").with_x_scale(AxisScale::Linear);
    // the others have other units
    let has_nats =
        |score: &str| score.starts_with("standard deviation") || score == PLAIN || score.ends_with("entropy");
    for row in cell.rows.iter().filter(|row| row.answers == "own" && has_nats(&row.score)) {
        let points = EXPOSURES.iter().zip(&row.by_exposure).map(|(x, y)| (*x as f64, *y)).collect();
        chart = chart.with_curve(row.score.clone(), points);
    }
    chart.figure()?.save(&arguments.out, &format!("exposure-seed-{}", cell.seed))?;
    Ok(())
}
