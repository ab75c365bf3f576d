//! The rows of the table: every repair, by what it is fitted to.

use super::left_out::{Cut, Matched};
use super::row::{Answer, LINK, Row, Source, Test, Tried};
use crate::Outcome;
use bayes_lora::belief::LogitBelief;
use bayes_lora::calibrate::{Calibrator, DEFAULT_RIDGE, Temperature, TemperatureFit, VectorScaling};
use bayes_lora::posterior::{HeldOut, Laplace};
use bayes_lora::search::{Search, SearchEnd};
use ndarray::{Array2, ArrayView2, s};

type Rows = Outcome<Vec<Row>>;

/// Held-out labels that a temperature is fitted to; the second is what others are compared with.
const SIZES: [usize; 3] = [50, 100, 300];
pub const COMPARED: usize = 100;
/// Least log₂ β of the temperature before averaging, and the step of its grid.
const LEAST_LOG2: f64 = -8.0;
const STEPS: usize = 32;

/// Maximum likelihood, temperatures by held-out and by test labels, and vector scaling by held-out ones.
pub fn held_out_rows(test: &mut Test, (logits, labels): &(Array2<f64>, Vec<usize>)) -> Rows {
    type Fit = fn(&Test, ArrayView2<f64>, &[usize]) -> Tried;
    let temperature: Fit = |test, logits, labels| tempered(test, Temperature::fit(logits, labels)?);
    let by_first = |test: &Test, n: usize, fit: Fit| match n <= labels.len() {
        true => fit(test, logits.slice(s![..n, ..]), &labels[..n]),
        false => Err(format!("there are {} held-out items", labels.len()).into()),
    };
    if let Ok(answer) = by_first(test, COMPARED, temperature) {
        test.compare_with(&answer)?;
    }
    let alone = Answer { belief: LogitBelief::Point { logits: test.logits.clone() }, found: Vec::new() };
    let mut rows = vec![test.row("maximum likelihood", Source::TrainingItems, Ok(alone))?];
    for (what, fit) in [("temperature", temperature), ("vector scaling", scaled as Fit)] {
        for n in SIZES {
            rows.push(test.row(format!("ML + {what}, {n} labels"), Source::HeldOutLabels, by_first(test, n, fit))?);
        }
    }
    let bound = temperature(test, test.logits.view(), &test.labels);
    rows.push(test.row("ML + temperature, test labels (bound)", Source::TestLabels, bound)?);
    Ok(rows)
}

/// What leaving items out makes of maximum likelihood.
pub fn label_free_rows(test: &Test, cut: &Cut) -> Rows {
    let of = |belief: fn(&Matched) -> &LogitBelief| {
        cut.matched.as_ref().map(|matched| (belief(matched).moments().0, &matched.labels)).map_err(String::clone)
    };
    let (shifted, own) = (of(|matched| matched.left_out.belief()), of(|matched| matched.left_out.own_belief()));
    let mut rows = Vec::new();
    for (name, answers) in
        [("ML + leave-one-out temperature", &shifted), ("ML + leave-one-out temperature, own logits", &own)]
    {
        let answers = answers.as_ref().map(|(logits, labels)| (logits, *labels)).map_err(String::clone);
        rows.extend(temperature_rows(test, name, Source::TrainingItems, answers)?);
    }
    let by_shifted = shifted.map_err(Into::into).and_then(|(logits, labels)| scaled(test, logits.view(), labels));
    rows.push(test.row("ML + leave-one-out vector scaling", Source::TrainingItems, by_shifted)?);
    Ok(rows)
}

/// The adapter's own logits with a weight and a bias a class, by logits and labels that stand for the test items'.
fn scaled(test: &Test, logits: ArrayView2<f64>, labels: &[usize]) -> Tried {
    let fit = VectorScaling::fit(logits, labels, DEFAULT_RIDGE)?;
    let belief = fit.scaling.apply(&LogitBelief::Point { logits: test.logits.clone() })?;
    Ok(Answer { belief, found: Vec::new() })
}

/// A temperature for the adapter's own logits with β ≤ 1, and with β free, by logits and labels that stand for held-out ones.
pub fn temperature_rows(
    test: &Test,
    name: &str,
    source: Source,
    answers: Result<(&Array2<f64>, &Vec<usize>), String>,
) -> Rows {
    let fit = answers
        .and_then(|(logits, labels)| Temperature::fit(logits.view(), labels).map_err(|reason| reason.to_string()));
    let bounded = fit.clone().map(TemperatureFit::without_sharpening);
    let rows = [(name.to_string(), bounded), (format!("{name}, β free"), fit)];
    let row = |(name, fit): (String, Result<TemperatureFit, String>)| {
        test.row(name, source, fit.map_err(Into::into).and_then(|fit| tempered(test, fit)))
    };
    rows.into_iter().map(row).collect()
}

/// The adapter's own logits at a temperature.
fn tempered(test: &Test, fit: TemperatureFit) -> Tried {
    let search = fit.search.clone();
    // bounded by 1 it is usable in any case
    let beta = if fit.temperature.beta <= 1.0 { fit.temperature.beta } else { fit.usable()?.beta };
    Ok(Answer { belief: LogitBelief::Point { logits: &test.logits * beta }, found: vec![search] })
}

/// One structure of curvature under every prior, and what leaving items out makes of it.
pub fn posterior_rows(test: &Test, laplace: &Laplace, asked: &HeldOut, cut: &Cut) -> Rows {
    let structure = laplace.structure();
    let row = |what: &str, tried: Tried| test.row(format!("{structure}, {what}"), Source::TrainingItems, tried);
    let at = |laplace: &Laplace| -> Tried {
        let found = laplace.prior_searches().to_vec();
        Ok(Answer { belief: asked.belief(laplace.prior_precisions())?, found })
    };
    let mut rows = vec![row("usual evidence", at(laplace))?];
    let own = || -> Tried {
        let optimum = cut.at_own_mode.as_ref().map_err(String::clone)?;
        Ok(Answer { belief: asked.belief(&optimum.precisions)?, found: vec![optimum.search.clone()] })
    };
    rows.push(row("evidence at own mode", own())?);
    type Repair = fn(&Matched, LogitBelief) -> Outcome<(LogitBelief, Option<Search>)>;
    let repairs: [(&str, Repair); 4] = [
        ("matched prior", |_, belief| Ok((belief, None))),
        ("matched prior, leave-one-out temperature after averaging", after_averaging),
        ("matched prior, leave-one-out temperature before averaging", before_averaging),
        ("matched prior, leave-one-out multiplier of the covariance", |matched, belief| {
            let search = matched.dispersion.search.clone();
            Ok((belief.widened(search.value)?, Some(search)))
        }),
    ];
    for (what, repair) in repairs {
        let tried = || -> Tried {
            let matched = cut.matched.as_ref().map_err(String::clone)?;
            let (belief, search) = repair(matched, asked.belief(&matched.prior.precisions)?)?;
            Ok(Answer { belief, found: [matched.prior.search.clone()].into_iter().chain(search).collect() })
        };
        rows.push(row(what, tried())?);
    }
    Ok(rows)
}

/// `p ∝ p̄^β`
fn after_averaging(matched: &Matched, belief: LogitBelief) -> Outcome<(LogitBelief, Option<Search>)> {
    let left_out = matched.left_out.belief().log_probabilities(LINK)?;
    let fit = Temperature::fit(left_out.view(), &matched.labels)?.without_sharpening();
    let logits = belief.log_probabilities(LINK)? * fit.temperature.beta;
    Ok((LogitBelief::Point { logits }, Some(fit.search)))
}

/// `p = E[softmax βf]`, with the β up to 1 under which the left-out labels have the least NLL.
fn before_averaging(matched: &Matched, belief: LogitBelief) -> Outcome<(LogitBelief, Option<Search>)> {
    let nll = |log2: f64| -> Outcome<f64> {
        let losses = matched.left_out.belief().tempered(log2.exp2()).losses(&matched.labels, LINK)?;
        Ok(losses.iter().sum::<f64>() / losses.len() as f64)
    };
    let step = LEAST_LOG2 / STEPS as f64;
    let grid = (0..=STEPS).map(|k| nll(k as f64 * step)).collect::<Result<Vec<f64>, _>>()?;
    let best = (0..=STEPS).fold(0, |best, k| if grid[k] < grid[best] { k } else { best });
    let (log2, end) = match best {
        0 => (0.0, SearchEnd::AtUpper),
        STEPS => (LEAST_LOG2, SearchEnd::AtLower),
        _ => {
            let (mut low, mut high) = ((best + 1) as f64 * step, (best - 1) as f64 * step);
            while high - low > 1e-3 {
                let (first, second) = (low + (high - low) / 3.0, high - (high - low) / 3.0);
                if nll(first)? < nll(second)? { high = second } else { low = first }
            }
            (0.5 * (low + high), SearchEnd::Inside)
        }
    };
    let beta = log2.exp2();
    let search = Search::new("inverse temperature", beta, (LEAST_LOG2.exp2(), 1.0), end);
    Ok((belief.tempered(beta), Some(search)))
}
