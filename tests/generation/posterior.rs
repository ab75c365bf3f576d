//! Draws in lockstep say what each says by itself, averaged.

use super::{Stories, stories};
use crate::support::{device, has_f64};
use bayes_lora::error::Result;
use bayes_lora::generate::{Answer, GenerationConfig, Generator, Request, Token};
use bayes_lora::lora::{AdapterSampler, AdapterWeights, LoraConfig, attach, read_adapter, write_adapter};
use bayes_lora::models::{CausalLm, TokenBatch};
use bayes_lora::progress::Control;
use bayes_lora::tape::Tape;
use burn::tensor::DType;
use rand::{SeedableRng, rngs::ChaCha8Rng};
use rand_distr::{Distribution, StandardNormal};

/// The embedded model with an adapter on several kinds of linears, the head among them, that is not at its start.
fn adapted(dtype: DType) -> Stories {
    let mut model = Stories::load(dtype);
    let config = LoraConfig::new(3).with_target_modules(["q_proj", "v_proj", "down_proj", "lm_head"]);
    let lm = attach(model.lm, &config, 0).unwrap();
    let weights = moved(&read_adapter(&lm).unwrap(), 0, 0.03);
    model.lm = write_adapter(lm, &weights).unwrap();
    model
}

/// Weights with normal noise.
fn moved(weights: &AdapterWeights, seed: u64, size: f64) -> AdapterWeights {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut noise = || -> f64 { StandardNormal.sample(&mut rng) };
    weights.iter().map(|(site, w)| (site.clone(), w.mapv(|v| v + size * noise()))).collect()
}

/// Noise around an adapter.
struct Around(AdapterWeights);

impl AdapterSampler for Around {
    fn draw(&self, seed: u64, index: u64) -> Result<AdapterWeights> {
        Ok(moved(&self.0, 1000 * seed + index + 1, 0.05))
    }
}

fn config() -> GenerationConfig {
    GenerationConfig::default().with_max_new_tokens(24).with_batch_size(3)
}

fn requests(model: &Stories) -> Vec<Request> {
    stories().iter().step_by(4).map(|story| model.request(&story.prompt)).collect()
}

/// Each answer's tokens by passes over prompt and answer at one draw after the other, in plain f64: softmax, mean, entropies.
fn by_separate_runs(
    lm: &CausalLm,
    draws: &[AdapterWeights],
    request: &Request,
    answer: &Answer,
    dtype: DType,
) -> Vec<Token> {
    let row = [request.ids.clone(), answer.ids()].concat();
    let distributions = |draw: &AdapterWeights| -> Vec<Vec<f64>> {
        let lm = write_adapter(lm.clone(), draw).unwrap();
        let batch = TokenBatch::of_row(&row, &device(), dtype).unwrap();
        let logits = lm.head(lm.hidden(&batch, &mut Tape::off()), None, &mut Tape::off());
        let width = logits.dims()[1];
        let values: Vec<f64> = logits.into_data().convert::<f64>().try_into_vec().unwrap();
        let softmax = |logits: &[f64]| -> Vec<f64> {
            let max = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = logits.iter().map(|f| (f - max).exp()).sum();
            logits.iter().map(|f| (f - max).exp() / sum).collect()
        };
        values.chunks(width).map(softmax).collect()
    };
    let entropy = |p: &[f64]| -> f64 { p.iter().map(|p| if *p > 0.0 { -p * p.ln() } else { 0.0 }).sum() };
    let all: Vec<Vec<Vec<f64>>> = draws.iter().map(distributions).collect();
    let n = draws.len() as f64;
    let token = |(t, id): (usize, u32)| {
        let each: Vec<&Vec<f64>> = all.iter().map(|draw| &draw[request.ids.len() - 1 + t]).collect();
        let mean: Vec<f64> = (0..each[0].len()).map(|c| each.iter().map(|p| p[c]).sum::<f64>() / n).collect();
        let expected = each.iter().map(|p| entropy(p)).sum::<f64>() / n;
        let total = entropy(&mean);
        Token { id, log_probability: mean[id as usize].ln(), total, expected, epistemic: total - expected }
    };
    answer.ids().into_iter().enumerate().map(token).collect()
}

fn assert_close(found: &[Token], expected: &[Token], tolerance: f64) {
    assert_eq!(found.len(), expected.len());
    for (a, b) in found.iter().zip(expected) {
        assert_eq!(a.id, b.id);
        let numbers = |t: &Token| [t.log_probability, t.total, t.expected, t.epistemic];
        for (x, y) in numbers(a).into_iter().zip(numbers(b)) {
            assert!((x - y).abs() < tolerance * y.abs().max(1.0), "{a:?} {b:?}");
        }
    }
}

/// Rounding of logits of about 10, in nats.
fn precisions() -> Vec<(DType, f64)> {
    let mut all = vec![(DType::F32, 1e-5)];
    if has_f64() {
        all.push((DType::F64, 1e-12));
    }
    all
}

#[test]
fn draws_in_lockstep_are_the_average_of_separate_runs_step_by_step_and_in_one_pass() {
    for (dtype, tolerance) in precisions() {
        let model = adapted(dtype);
        let sampler = Around(read_adapter(&model.lm).unwrap());
        let draws: Vec<AdapterWeights> = (0..5).map(|index| sampler.draw(2, index).unwrap()).collect();
        let generator = model.generator(config()).with_posterior(&sampler, 5, 2).unwrap();
        let requests = requests(&model);
        let answers = generator.answers(&requests, &Control::silent()).unwrap();
        let mut most = 0.0f64;
        for (request, answer) in requests.iter().zip(&answers) {
            let expected = by_separate_runs(&model.lm, &draws, request, answer, dtype);
            assert_close(&answer.tokens, &expected, tolerance);
            assert_close(&generator.follow(request, &answer.ids()).unwrap(), &expected, tolerance);
            // it goes where the average is largest
            let other = generator.follow(request, &[answer.ids()[0] + 1]).unwrap()[0];
            assert!(other.log_probability < answer.tokens[0].log_probability);
            most = most.max(answer.epistemic_max());
            assert!(
                (answer.epistemic_sum() - expected.iter().map(|t| t.epistemic).sum::<f64>()).abs() < 24.0 * tolerance
            );
        }
        // the draws are far enough from each other for this to say something
        assert!(most > 0.05, "{most}");
    }
}

#[test]
fn copies_of_one_adapter_agree_and_answer_as_it_does() {
    let model = adapted(DType::F32);
    let own = read_adapter(&model.lm).unwrap();
    for drawn in
        [config(), config().with_greedy(false).with_temperature(0.8).with_repetition_penalty(1.2).with_top_k(30)]
    {
        let plain = model.generator(drawn.clone()).answers(&requests(&model), &Control::silent()).unwrap();
        let copies = model.generator(drawn).with_draws(&vec![own.clone(); 4]).unwrap();
        let copies = copies.answers(&requests(&model), &Control::silent()).unwrap();
        for (plain, copies) in plain.iter().zip(&copies) {
            assert_eq!((plain.ids(), &plain.text), (copies.ids(), &copies.text));
            // rounding of four equal sums
            assert!(copies.tokens.iter().all(|token| token.epistemic < 1e-12), "{:?}", copies.tokens);
            assert!((plain.log_probability() - copies.log_probability()).abs() < 1e-4);
        }
    }
}

#[test]
fn a_batch_of_prompts_at_several_draws_is_each_prompt_alone() {
    let model = adapted(DType::F32);
    let sampler = Around(read_adapter(&model.lm).unwrap());
    // of three rows some end before others, so that rows of every draw leave the batch
    let ends = config().with_end_tokens(vec![2, 432, 426]).with_greedy(false).with_seed(5);
    let run = |batch_size: usize| {
        let generator = model.generator(ends.clone().with_batch_size(batch_size));
        let generator = generator.with_posterior(&sampler, 3, 0).unwrap();
        generator.answers(&requests(&model), &Control::silent()).unwrap()
    };
    let (together, alone) = (run(4), run(1));
    let lengths: Vec<usize> = together.iter().map(|answer| answer.tokens.len()).collect();
    assert!(lengths.iter().any(|n| *n != lengths[0]), "{lengths:?}");
    for (a, b) in together.iter().zip(&alone) {
        assert_eq!(a.text, b.text);
        assert_close(&a.tokens, &b.tokens, 1e-4);
    }
}

#[test]
fn draws_that_do_not_fit_are_refused() {
    let model = adapted(DType::F32);
    let own = read_adapter(&model.lm).unwrap();
    let mut lacking = own.clone();
    let (site, _) = lacking.pop_first().unwrap();
    let with = |draws: &[AdapterWeights]| model.generator(config()).with_draws(draws).unwrap_err().to_string();
    assert!(with(&[]).contains("empty"));
    let error = with(&[own.clone(), lacking]);
    assert!(error.contains("draw 1") && error.contains(&site.to_string()), "{error}");
    let none = model.generator(config()).with_posterior(&Around(own.clone()), 0, 0).unwrap_err().to_string();
    assert!(none.contains("n_draws") && none.contains("got 0"), "{none}");
    let bare = Stories::load(DType::F32);
    let error =
        Generator::new(&bare.lm, &bare.tokenizer, config()).unwrap().with_draws(&[own]).unwrap_err().to_string();
    assert!(error.contains("adapter is empty"), "{error}");
}
