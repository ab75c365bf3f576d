//! Chooses the next token.

use super::config::GenerationConfig;
use crate::belief::{class_at, log_sum_exp, top_class};
use crate::draws::{Purpose, generator};
use ndarray::{Array1, ArrayView1, ArrayViewMut1};
use rand::RngExt;
use std::collections::BTreeSet;

/// Makes tokens that are there already less likely, as transformers' `RepetitionPenaltyLogitsProcessor`.
pub(super) fn penalise<'a>(mut logits: ArrayViewMut1<f64>, seen: impl Iterator<Item = &'a u32>, penalty: f64) {
    for id in seen.copied().collect::<BTreeSet<u32>>() {
        if let Some(logit) = logits.get_mut(id as usize) {
            *logit = if *logit < 0.0 { *logit * penalty } else { *logit / penalty };
        }
    }
}

/// The next token's id, of `log p`; a drawn one is a function of the seed, the place and the step alone.
pub(super) fn choose(logs: ArrayView1<f64>, config: &GenerationConfig, place: u64, step: u64) -> u32 {
    if config.greedy {
        return top_class(logs) as u32;
    }
    let p: Array1<f64> = filtered(logs, config).into_iter().map(f64::exp).collect();
    class_at(p.view(), generator(config.seed, Purpose::GeneratedToken, place, step).random()) as u32
}

/// Log-probabilities after temperature, top-k, top-p and min-p, in transformers' order; −∞ where a token is left out.
pub(super) fn filtered(logs: ArrayView1<f64>, config: &GenerationConfig) -> Vec<f64> {
    let mut scores: Vec<f64> = logs.iter().map(|log| log / config.temperature).collect();
    if let Some(k) = config.top_k.filter(|k| *k < scores.len()) {
        let mut order = scores.clone();
        let least = *order.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a)).1;
        leave_out(&mut scores, |score| score < least);
    }
    if config.top_p < 1.0 {
        let log_sum = log_sum_exp(scores.iter().copied());
        let mut order: Vec<usize> = (0..scores.len()).filter(|&id| scores[id].is_finite()).collect();
        order.sort_by(|&a, &b| scores[a].total_cmp(&scores[b]));
        let mut sum = 0.0;
        // the likeliest stays, whatever rounding says
        for &id in order.iter().rev().skip(1).rev() {
            sum += (scores[id] - log_sum).exp();
            if sum > 1.0 - config.top_p {
                break;
            }
            scores[id] = f64::NEG_INFINITY;
        }
    }
    if config.min_p > 0.0 {
        let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        leave_out(&mut scores, |score| (score - largest).exp() < config.min_p);
    }
    let log_sum = log_sum_exp(scores.iter().copied());
    scores.iter().map(|score| score - log_sum).collect()
}

fn leave_out(scores: &mut [f64], which: impl Fn(f64) -> bool) {
    scores.iter_mut().filter(|score| which(**score)).for_each(|score| *score = f64::NEG_INFINITY);
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    /// A line of tests/fixtures/generation/choices.json, which transformers wrote.
    #[derive(Deserialize)]
    struct Case {
        settings: serde_json::Value,
        logits: Vec<f64>,
        seen: Vec<u32>,
        logs: Vec<Option<f64>>,
    }

    fn cases() -> Vec<Case> {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/generation/choices.json");
        serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()
    }

    fn log_softmax(logits: &Array1<f64>) -> Array1<f64> {
        logits - log_sum_exp(logits.iter().copied())
    }

    #[test]
    fn the_distribution_that_is_drawn_from_is_that_of_transformers_processors() {
        let mut left_out = 0;
        for case in cases() {
            let config: GenerationConfig = serde_json::from_value(case.settings.clone()).unwrap();
            let mut logits = Array1::from_vec(case.logits);
            if config.repetition_penalty != 1.0 {
                penalise(logits.view_mut(), case.seen.iter(), config.repetition_penalty);
            }
            let found = filtered(log_softmax(&logits).view(), &config);
            for (found, expected) in found.iter().zip(&case.logs) {
                match expected {
                    // a dozen roundings of numbers up to 20
                    Some(expected) => {
                        assert!((found - expected).abs() < 1e-12, "{}: {found} {expected}", case.settings)
                    }
                    None => assert_eq!(*found, f64::NEG_INFINITY, "{}", case.settings),
                }
            }
            left_out += case.logs.iter().filter(|log| log.is_none()).count();
        }
        assert!(left_out > 100);
    }

    #[test]
    fn tokens_are_drawn_as_often_as_their_probabilities_say_and_by_seed_place_and_step_alone() {
        let logs = log_softmax(&Array1::from_vec(vec![0.0, 2.0, 1.0, -3.0, 1.5]));
        let config = GenerationConfig::default().with_greedy(false).with_top_k(4);
        let expected = filtered(logs.view(), &config);
        let n = 20_000;
        let mut counts = [0usize; 5];
        (0..n).for_each(|step| counts[choose(logs.view(), &config, 7, step) as usize] += 1);
        for (count, log) in counts.iter().zip(&expected) {
            let p = log.exp();
            // five standard errors
            let bound = 5.0 * (p * (1.0 - p) / n as f64).sqrt();
            assert!((*count as f64 / n as f64 - p).abs() <= bound, "{counts:?} {expected:?}");
        }
        assert_eq!(counts[3], 0);
        let line = |config: &GenerationConfig, place| -> Vec<u32> {
            (0..40).map(|step| choose(logs.view(), config, place, step)).collect()
        };
        assert_eq!(line(&config, 7), line(&config, 7));
        assert_ne!(line(&config, 7), line(&config, 8));
        assert_ne!(line(&config, 7), line(&config.clone().with_seed(1), 7));
    }

    #[test]
    fn of_equally_likely_tokens_greedy_takes_the_first_and_top_k_keeps_both() {
        let logs = log_softmax(&Array1::from_vec(vec![1.0, 2.0, 2.0]));
        assert_eq!(choose(logs.view(), &GenerationConfig::default(), 0, 0), 1);
        let left = filtered(logs.view(), &GenerationConfig::default().with_top_k(1));
        assert_eq!((left[0], left[1]), (f64::NEG_INFINITY, -(2f64.ln())));
    }
}
