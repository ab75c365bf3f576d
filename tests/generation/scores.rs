//! Scores of whole answers: what they are, and that abstention takes them.

use super::{Stories, stories};
use crate::support::{device, has_f64};
use bayes_lora::calibrate::Abstention;
use bayes_lora::generate::{Answer, GenerationConfig, Request, normalised, semantic_entropy};
use bayes_lora::progress::Control;
use burn::tensor::DType;
use ndarray::Array1;

#[test]
fn scores_are_sums_means_and_largest_values_of_the_tokens() {
    let model = Stories::load(DType::F32);
    let answer = model.generator(GenerationConfig::default().with_max_new_tokens(12)).answer("Once").unwrap();
    let n = answer.tokens.len() as f64;
    let sum = |of: fn(&bayes_lora::generate::Token) -> f64| answer.tokens.iter().map(of).sum::<f64>();
    assert_eq!(answer.log_probability(), sum(|token| token.log_probability));
    assert_eq!(answer.mean_log_probability(), answer.log_probability() / n);
    assert_eq!(answer.mean_entropy(), sum(|token| token.total) / n);
    assert_eq!((answer.epistemic_sum(), answer.epistemic_max()), (0.0, 0.0));
    let none = Answer { tokens: Vec::new(), ..answer };
    assert_eq!((none.log_probability(), none.mean_log_probability(), none.mean_entropy()), (0.0, 0.0, 0.0));
}

/// Sampled answers of three words that differ more the hotter they are drawn.
fn sampled(model: &Stories, temperature: f64) -> Vec<f64> {
    let config = GenerationConfig::default().with_max_new_tokens(5).with_greedy(false).with_temperature(temperature);
    let generator = model.generator(config);
    let entropy = |prompt: &String| {
        let requests: Vec<Request> = (0..6).map(|answer| model.request(prompt).with_answer(answer)).collect();
        let answers = generator.answers(&requests, &Control::silent()).unwrap();
        semantic_entropy(answers.iter().map(|answer| &answer.text))
    };
    stories().iter().step_by(2).map(|story| entropy(&story.prompt)).collect()
}

#[test]
fn sampled_answers_say_the_same_when_cold_and_differ_when_hot() {
    let model = Stories::load(DType::F32);
    let (cold, warm, hot) = (sampled(&model, 1e-3), sampled(&model, 0.5), sampled(&model, 3.0));
    assert!(cold.iter().all(|entropy| *entropy == 0.0), "{cold:?}");
    assert!(hot.iter().all(|entropy| (entropy - 6f64.ln()).abs() < 0.5), "{hot:?}");
    let mean = |all: &[f64]| all.iter().sum::<f64>() / all.len() as f64;
    assert!(mean(&warm) > 0.1 && mean(&warm) < mean(&hot), "{warm:?}");
    assert_eq!(normalised(" The  End. "), "end");
}

#[test]
fn abstention_takes_any_of_the_scores() {
    // "right" is an answer that says the same when it is drawn again: what the likelihood of the first should foretell
    let model = Stories::load(DType::F32);
    let config = GenerationConfig::default().with_max_new_tokens(4).with_greedy(false).with_temperature(0.7);
    let generator = model.generator(config.with_batch_size(40));
    let words = ["Once", "Lily", "Tom", "The", "She", "He", "One day", "It", "They", "Mom"];
    let requests = |answer: u64| -> Vec<Request> {
        let of = |word: &&str| (0..8).map(|n| model.request(word).with_answer(2 * n + answer)).collect::<Vec<_>>();
        words.iter().flat_map(of).collect()
    };
    let [first, second] = [0, 1].map(|answer| generator.answers(&requests(answer), &Control::silent()).unwrap());
    let right: Vec<bool> = first.iter().zip(&second).map(|(a, b)| normalised(&a.text) == normalised(&b.text)).collect();
    let share = right.iter().filter(|right| **right).count() as f64 / right.len() as f64;
    let scores: [fn(&Answer) -> f64; 2] = [Answer::mean_log_probability, |answer| -answer.mean_entropy()];
    for score in scores {
        let confidence: Array1<f64> = first.iter().map(score).collect();
        let rule = Abstention::fit(confidence.view(), &right, 0.9, 0.1).unwrap();
        assert_eq!(rule.n_items, right.len());
        // surer answers are repeated more often
        let surest = |half: bool| {
            let mut order: Vec<usize> = (0..right.len()).collect();
            order.sort_by(|&a, &b| confidence[b].total_cmp(&confidence[a]));
            let part = if half { &order[..order.len() / 2] } else { &order[order.len() / 2..] };
            part.iter().filter(|&&i| right[i]).count()
        };
        assert!(share > 0.02 && surest(true) > surest(false), "{share} {} {}", surest(true), surest(false));
    }
}

#[test]
fn half_precision_says_nearly_the_same() {
    let kinds = [DType::BF16, DType::F16].into_iter().filter(|dtype| device().supports_dtype(*dtype));
    for dtype in kinds.chain(has_f64().then_some(DType::F64)) {
        let story = &stories()[0];
        let follow = |dtype| {
            let model = Stories::load(dtype);
            let generator = model.generator(GenerationConfig::default().with_max_new_tokens(8));
            assert_eq!(generator.answer(&story.prompt).unwrap().tokens.len(), 8);
            generator.follow(&model.request(&story.prompt), &story.ids).unwrap()
        };
        for (a, b) in follow(dtype).iter().zip(follow(DType::F32)) {
            // 2⁻⁸ of logits of about 10, and of their sum
            assert!((a.log_probability - b.log_probability).abs() < 0.5, "{dtype:?} {a:?} {b:?}");
        }
    }
}
