//! Does the posterior know whom it has read about? Sentences about people who do not exist, in 0, 1, 2, 4 or 8 copies in the training
//! set; afterwards the standard deviation of an answer's log-likelihood beside its log-likelihood and the entropy of its tokens.
//!
//! ```sh
//! cargo run --release --example studies -- invented-facts --seeds 0,1,2
//! ```
//!
//! stories260K, offline; `--model` takes another directory. Writes a cell a seed and the figure of the last to `--out`.

#![allow(clippy::single_range_in_vec_init, reason = "a text may have one range of scored tokens")]

mod facts;

use crate::{Outcome, json, shipped};
use bayes_lora::curvature::{CurvatureConfig, CurvatureStructure, FisherKind, fit_curvatures};
use bayes_lora::data::{BatchLimits, TextDataset, TextEncoding, Tokenizer};
use bayes_lora::likelihood::NextToken;
use bayes_lora::lora::{LoraConfig, attach};
use bayes_lora::metrics::{BayesianBootstrap, Estimate, auroc_estimate};
use bayes_lora::models::{Pretrained, TextModel, TokenBatch};
use bayes_lora::outputs::claim_dir;
use bayes_lora::plot::{AxisScale, CurveChart};
use bayes_lora::posterior::{Laplace, LaplaceConfig};
use bayes_lora::predict::{TextScore, score_texts};
use bayes_lora::prior::PriorPrecision;
use bayes_lora::progress::Control;
use bayes_lora::tape::Tape;
use bayes_lora::train::{Trainer, TrainerConfig};
use burn::tensor::{DType, Device};
use clap::Args;
use facts::{Person, people, training_set};
use serde::Serialize;
use std::path::PathBuf;
use std::time::Instant;

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

    let own = own_answers(&model, &people, &encoding, &tokenizer)?;
    let facts: Vec<_> = people.iter().enumerate().map(|(i, person)| person.fact(i)).collect();
    let facts = encoding.encode("facts asked", &facts, &tokenizer)?;
    let is_right: Vec<bool> = own.examples.iter().zip(&facts.examples).map(|(a, b)| a.ids == b.ids).collect();
    let fisher = FisherKind::Sampled { n: arguments.draws, seed };
    use CurvatureStructure::{Core, Diagonal, Ekfac, Kronecker};
    let structures = [Kronecker, Ekfac, Diagonal, Core];
    let configs = structures.map(|structure| {
        CurvatureConfig::new(structure).with_likelihood(NextToken).with_fisher(fisher).with_limits(limits)
    });
    let (mut rows, mut priors) = (Vec::new(), Vec::new());
    for (index, curvature) in fit_curvatures(&model, &train, &configs, control)?.iter().enumerate() {
        let structure = curvature.config.structure.to_string();
        let laplace = Laplace::new(&model, curvature, &LaplaceConfig::default())?;
        priors.push((structure.clone(), laplace.prior_precisions().of(0).value()));
        for (answers, data, right) in [("own", &own, Some(&is_right)), ("fact", &facts, None)] {
            let scores = score_texts(&model, &laplace, data, &limits, control)?;
            let mut add = |name: String, of: &dyn Fn(&TextScore) -> f64| -> Outcome<()> {
                let [values, plain] = [of, &|score: &TextScore| -score.per_token()]
                    .map(|of: &dyn Fn(&TextScore) -> f64| scores.iter().map(of).collect::<Vec<f64>>());
                rows.push(row(answers, name, (&values, &plain), &people, right)?);
                Ok(())
            };
            add(format!("standard deviation, {structure}"), &|score| score.standard_deviation)?;
            // what needs no posterior is the same beside each
            if index == 0 {
                add("−log-likelihood a token".into(), &|score| -score.per_token())?;
                add("mean token entropy".into(), &|score| score.mean_entropy())?;
            }
            // the size of the gradient alone, in the same coordinates
            if matches!(curvature.config.structure, Diagonal | Core) {
                let flat = laplace.clone().with_prior_precisions(PriorPrecision::new(1e12)?)?;
                let scores = score_texts(&model, &flat, data, &limits, control)?;
                let [values, plain] =
                    [|score: &TextScore| 1e6 * score.standard_deviation, |score: &TextScore| -score.per_token()]
                        .map(|of| scores.iter().map(of).collect::<Vec<f64>>());
                let name =
                    if curvature.config.structure == Core { "gradient norm, cores" } else { "gradient norm, A and B" };
                rows.push(row(answers, name.into(), (&values, &plain), &people, right)?);
            }
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
        priors,
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
    right: Option<&Vec<bool>>,
) -> Outcome<Row> {
    let bootstrap = BayesianBootstrap::default();
    let of = |keep: &dyn Fn(usize) -> bool| -> Vec<f64> {
        (0..values.len()).filter(|&i| keep(i)).map(|i| values[i]).collect()
    };
    let exposure = |i: usize| people[i].exposure;
    let unseen = of(&|i| exposure(i) == 0);
    let wrong_above_right = match right {
        Some(right) if right.contains(&true) && right.contains(&false) => {
            Some(auroc_estimate(&of(&|i| !right[i]), &of(&|i| right[i]), &bootstrap)?)
        }
        _ => None,
    };
    let is_unseen: Vec<bool> = people.iter().map(|person| person.exposure == 0).collect();
    let is_wrong: Option<Vec<bool>> = right.map(|right| right.iter().map(|right| !right).collect());
    let more = |positive: &[bool]| -> Outcome<Estimate> {
        let difference = |w: &[f64]| weighted_auroc(values, positive, w) - weighted_auroc(plain, positive, w);
        Ok(bootstrap.estimate(values.len(), difference)?)
    };
    let more_wrong = is_wrong.filter(|_| wrong_above_right.is_some()).map(|wrong| more(&wrong)).transpose()?;
    let more = if values == plain { None } else { Some([Some(more(&is_unseen)?), more_wrong]) };
    let row = Row {
        answers,
        score,
        unseen_above_seen: auroc_estimate(&unseen, &of(&|i| exposure(i) > 0), &bootstrap)?,
        unseen_above_once: auroc_estimate(&unseen, &of(&|i| exposure(i) == 1), &bootstrap)?,
        wrong_above_right,
        more,
        by_exposure: by_exposure(people, values),
    };
    let Estimate { value, low, high } = row.unseen_above_seen;
    println!("{answers:4} {:32} unseen above seen {value:.3} ({low:.3}–{high:.3}); {:.3?}", row.score, row.by_exposure);
    Ok(row)
}

/// Weight of the pairs in which a positive value lies above another, ties counting half.
fn weighted_auroc(values: &[f64], positive: &[bool], weights: &[f64]) -> f64 {
    let (mut above, mut all) = (0.0, 0.0);
    for i in (0..values.len()).filter(|&i| positive[i]) {
        for j in (0..values.len()).filter(|&j| !positive[j]) {
            let pair = weights[i] * weights[j];
            all += pair;
            above += pair * if values[i] == values[j] { 0.5 } else { f64::from(u8::from(values[i] > values[j])) };
        }
    }
    above / all
}

/// What the model itself says about each person, token by token with the most probable one, up to a full stop.
fn own_answers(
    model: &TextModel,
    people: &[Person],
    encoding: &TextEncoding,
    tokenizer: &Tokenizer,
) -> Outcome<TextDataset> {
    const LONGEST: usize = 12;
    let asked: Vec<_> = people.iter().enumerate().map(|(i, person)| person.fact(i)).collect();
    let mut data = encoding.encode("own answers", &asked, tokenizer)?;
    for example in &mut data.examples {
        let start = example.scored[0].start;
        example.ids.truncate(start);
        while example.ids.len() < start + LONGEST {
            let batch = TokenBatch::of_row(&example.ids, &Device::flex(), DType::F32)?;
            let hidden = model.lm.hidden(&batch, &mut Tape::off());
            let last = hidden.narrow(0, example.ids.len() - 1, 1);
            let logits = model.lm.head(last, None, &mut Tape::off());
            let best = logits.argmax(1).into_data().convert::<i64>().try_into_vec::<i64>();
            let id = best.map_err(|e| format!("{e:?}"))?[0] as u32;
            example.ids.push(id);
            if tokenizer.token(id).ends_with('.') {
                break;
            }
        }
        example.scored = vec![start..example.ids.len()];
    }
    Ok(data)
}

/// The scores of own answers over the exposure.
fn draw(cell: &Cell, arguments: &Arguments) -> Outcome<()> {
    let mut chart =
        CurveChart::new("copies in the training set", "mean over people, nats").with_x_scale(AxisScale::Linear);
    // the gradient's size has another unit
    for row in cell.rows.iter().filter(|row| row.answers == "own" && !row.score.starts_with("gradient")) {
        let points = EXPOSURES.iter().zip(&row.by_exposure).map(|(x, y)| (*x as f64, *y)).collect();
        chart = chart.with_curve(row.score.clone(), points);
    }
    chart.figure()?.save(&arguments.out, &format!("exposure-seed-{}", cell.seed))?;
    Ok(())
}
