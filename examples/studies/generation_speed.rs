//! Seconds to the first token and tokens a second, with draws in lockstep beside as many runs; `tests/python/generation_speed.py` is the
//! same in transformers.
//!
//! ```sh
//! cargo run --release --example studies -- generation-speed --model SmolLM2-135M-Instruct --prompt-tokens 64 --tokens 64 --draws 8
//! ```

use crate::{Outcome, shipped};
use bayes_lora::data::Tokenizer;
use bayes_lora::generate::{GenerationConfig, Generator, Request};
use bayes_lora::lora::{AdapterWeights, LoraConfig, attach, read_adapter, write_adapter};
use bayes_lora::models::{CausalLm, Pretrained};
use bayes_lora::progress::Control;
use burn::tensor::Device;
use clap::Args;
use std::path::PathBuf;
use std::time::Instant;

#[derive(Args)]
pub struct Arguments {
    /// Hugging Face directory: config.json, safetensors, tokenizer.json.
    #[arg(long, default_value = shipped::MODEL)]
    model: PathBuf,
    /// Tokens of the prompt.
    #[arg(long, default_value_t = 64)]
    prompt_tokens: usize,
    /// Tokens of each answer.
    #[arg(long, default_value_t = 64)]
    tokens: usize,
    /// Prompts answered at once.
    #[arg(long, default_value_t = 1)]
    prompts: usize,
    /// Draws of an adapter of rank 8 on the query and value projections; 0 for the bare model alone.
    #[arg(long, default_value_t = 0)]
    draws: usize,
    /// Repetitions, of which the fastest counts.
    #[arg(long, default_value_t = 3)]
    repetitions: usize,
}

/// Seconds to the first token, and of all together.
type Seconds = (f64, f64);

pub fn run(arguments: &Arguments) -> Outcome<()> {
    let tokenizer = Tokenizer::from_dir(&arguments.model)?;
    let lm = Pretrained::from_dir(&arguments.model)?.load(&Device::default())?;
    println!("bare model: {}", told(arguments, arguments.measure(&lm, &tokenizer, &[])?));
    if arguments.draws == 0 {
        return Ok(());
    }
    let lm = attach(lm, &LoraConfig::new(8).with_target_modules(["q_proj", "v_proj"]), 0)?;
    // far from agreement, so that nothing is by chance the same
    let own = read_adapter(&lm)?;
    let draw = |index: usize| -> AdapterWeights {
        own.iter().map(|(site, w)| (site.clone(), w.mapv(|v| v + 1e-3 * (index + 1) as f64))).collect()
    };
    let draws: Vec<AdapterWeights> = (0..arguments.draws).map(draw).collect();
    println!("an adapter: {}", told(arguments, arguments.measure(&lm, &tokenizer, &[])?));
    println!("{} draws in lockstep: {}", draws.len(), told(arguments, arguments.measure(&lm, &tokenizer, &draws)?));
    let mut sum = (0.0, 0.0);
    for draw in &draws {
        let seconds = arguments.measure(&write_adapter(lm.clone(), draw)?, &tokenizer, &[])?;
        sum = (sum.0 + seconds.0, sum.1 + seconds.1);
    }
    println!("{} runs behind each other: {}", draws.len(), told(arguments, sum));
    Ok(())
}

impl Arguments {
    fn measure(&self, lm: &CausalLm, tokenizer: &Tokenizer, draws: &[AdapterWeights]) -> Outcome<Seconds> {
        // no answer ends by itself
        let config = GenerationConfig::default().with_end_tokens(Vec::new()).with_max_new_tokens(self.tokens);
        let generator = Generator::new(lm, tokenizer, config.with_batch_size(self.prompts))?;
        let generator = if draws.is_empty() { generator } else { generator.with_draws(draws)? };
        let ids = |prompt: usize| (0..self.prompt_tokens).map(|t| (3 + (31 * t + 7 * prompt) % 400) as u32).collect();
        let requests: Vec<Request> = (0..self.prompts).map(|i| Request::new(i.to_string(), ids(i))).collect();
        let mut best = (f64::INFINITY, f64::INFINITY);
        for _ in 0..self.repetitions {
            let start = Instant::now();
            let mut stream = generator.stream(&requests, &Control::silent())?;
            let first = stream.next().transpose()?.map_or(0.0, |_| start.elapsed().as_secs_f64());
            stream.try_for_each(|piece| piece.map(drop))?;
            best = (best.0.min(first), best.1.min(start.elapsed().as_secs_f64()));
        }
        Ok(best)
    }
}

fn told(arguments: &Arguments, (first, all): Seconds) -> String {
    let (n, rest) = (arguments.prompts, (arguments.tokens.saturating_sub(1) * arguments.prompts) as f64);
    format!("first token {first:.3} s, then {:.1} tokens/s ({n} prompts, {all:.2} s)", rest / (all - first))
}
