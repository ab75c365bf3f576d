//! Talks with a model in the terminal, word by word; with a posterior, words are shaded by how much its draws disagree about them.
//!
//! ```sh
//! cargo run --release --example chat                                      # the embedded model goes on with a story, offline
//! cargo run --release --example chat -- --model SmolLM2-135M-Instruct     # a question a line, until the input ends
//! cargo run --release --example chat -- --model … --posterior my_adapter --prompt "Who is Ada Bell?"
//! ```
//!
//! `--posterior` names a directory with an adapter as PEFT writes it and its `posterior.safetensors`. A model with a chat template gets its
//! questions in it, each by itself; any other goes on with the text. With `--plain`, marks stand behind doubtful words instead of colours:
//! `?` from 0.05 nats of mutual information on, `??` from 0.15 and `???` from 0.4.

#[path = "../experiment/base.rs"]
mod base;
#[path = "../experiment/ending.rs"]
mod ending;
mod shade;

use base::load_base;
use bayes_lora::data::Tokenizer;
use bayes_lora::generate::{Answer, Ended, GenerationConfig, Generator, Request};
use bayes_lora::lora::load_peft;
use bayes_lora::posterior::{Laplace, POSTERIOR_FILE};
use bayes_lora::progress::Control;
use clap::Parser;
use ending::program;
use shade::{Look, Shader};
use std::error::Error;
use std::io::{BufRead, IsTerminal, Write, stdin, stdout};
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Parser)]
#[command(
    about = "Talk with a model, and see which words its posterior doubts; without --model, a story by the embedded model"
)]
struct Arguments {
    /// Hugging Face directory: config.json, safetensors, tokenizer.json.
    #[arg(long)]
    model: Option<PathBuf>,
    /// An adapter's directory, as PEFT writes it.
    #[arg(long)]
    adapter: Option<PathBuf>,
    /// A directory with a posterior, and with the adapter that it is of unless `--adapter` names another place.
    #[arg(long)]
    posterior: Option<PathBuf>,
    /// Draws of the posterior that read and write together.
    #[arg(long, default_value_t = 8)]
    draws: usize,
    /// A question or the beginning of a text; several are answered one after the other. Without one, lines are read.
    #[arg(long)]
    prompt: Vec<String>,
    /// Go on with the text as it is, even if the model has a chat template.
    #[arg(long)]
    raw: bool,
    /// Draw tokens at this temperature; without it the model's own settings, or the likeliest token.
    #[arg(long)]
    temperature: Option<f64>,
    /// Draw from the likeliest tokens with this probability together.
    #[arg(long)]
    top_p: Option<f64>,
    /// The seed of drawn tokens and of the posterior's draws.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Most tokens of an answer.
    #[arg(long, default_value_t = 128)]
    max_new_tokens: usize,
    /// End an answer before this text; may be given several times.
    #[arg(long)]
    stop: Vec<String>,
    /// Marks instead of colours, for files and for terminals without colours.
    #[arg(long)]
    plain: bool,
}

const EMBEDDED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/stories260K");
const STORY: &str = "Once upon a time";

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    program(|control| run(&arguments, &control))
}

fn run(arguments: &Arguments, control: &Control) -> Result<(), Box<dyn Error>> {
    let model = arguments.model.clone().unwrap_or_else(|| EMBEDDED.into());
    let tokenizer = Tokenizer::from_dir(&model)?;
    let mut lm = load_base(&model)?;
    if let Some(adapter) = arguments.adapter.as_ref().or(arguments.posterior.as_ref()) {
        lm = load_peft(lm, adapter)?.0;
    }
    let mut generator = Generator::new(&lm, &tokenizer, arguments.settings(GenerationConfig::from_dir(&model)?))?;
    if let Some(dir) = &arguments.posterior {
        let laplace = Laplace::load(dir.join(POSTERIOR_FILE), &lm)?;
        generator = generator.with_posterior(&laplace, arguments.draws, arguments.seed)?;
    }
    let talk = Talk { arguments, tokenizer: &tokenizer, generator: &generator, control };
    if !arguments.prompt.is_empty() {
        return arguments.prompt.iter().try_for_each(|prompt| talk.answer(prompt));
    }
    if arguments.model.is_none() {
        return talk.answer(STORY);
    }
    let mut lines = stdin().lock().lines();
    loop {
        if stdin().is_terminal() {
            print!("> ");
            stdout().flush()?;
        }
        match lines.next().transpose()? {
            None => return Ok(()),
            Some(line) if line.trim().is_empty() => {}
            // an answer that cannot be given ends no talk
            Some(line) => talk.answer(&line).unwrap_or_else(|error| eprintln!("error: {error}")),
        }
    }
}

impl Arguments {
    /// The model's own settings, but for what was asked for.
    fn settings(&self, mut config: GenerationConfig) -> GenerationConfig {
        if let Some(temperature) = self.temperature {
            config = config.with_greedy(false).with_temperature(temperature);
        }
        if let Some(top_p) = self.top_p {
            config = config.with_top_p(top_p);
        }
        config.with_max_new_tokens(self.max_new_tokens).with_stop(self.stop.iter().cloned()).with_seed(self.seed)
    }
}

struct Talk<'a> {
    arguments: &'a Arguments,
    tokenizer: &'a Tokenizer,
    generator: &'a Generator<'a>,
    control: &'a Control,
}

impl Talk<'_> {
    fn answer(&self, prompt: &str) -> Result<(), Box<dyn Error>> {
        let is_chat = self.tokenizer.has_chat_template() && !self.arguments.raw;
        let request = match is_chat {
            true => Request::chat(self.tokenizer, prompt, prompt)?,
            false => Request::text(self.tokenizer, prompt, prompt)?,
        };
        let look = if self.arguments.plain { Look::Marks } else { Look::Colours };
        let (mut out, mut shader) = (stdout(), Shader::new(look));
        if !is_chat {
            write!(out, "{prompt}")?;
        }
        let mut stream = self.generator.stream(&[request], self.control)?;
        for piece in stream.by_ref() {
            let piece = piece?;
            let doubt = piece.tokens.iter().fold(0.0f64, |most, token| most.max(token.epistemic));
            write!(out, "{}", shader.push(&piece.text, doubt))?;
            out.flush()?;
        }
        writeln!(out, "{}", shader.finish())?;
        for answer in stream.answers() {
            eprintln!("{}", self.told(&answer));
        }
        Ok(())
    }

    fn told(&self, answer: &Answer) -> String {
        let why = match &answer.ended {
            Ended::EndToken(id) => format!("ended with {}", self.tokenizer.token(*id)),
            Ended::StopString(stop) => format!("ended before {stop:?}"),
            Ended::MaxNewTokens => "cut at --max-new-tokens".into(),
            Ended::Context => "the context is full".into(),
            Ended::Cancelled => "stopped".into(),
        };
        let (n, log, entropy) = (answer.tokens.len(), answer.mean_log_probability(), answer.mean_entropy());
        let mut told = format!("[{n} tokens, {why}; a token: log-probability {log:.3}, entropy {entropy:.3} nats");
        if self.arguments.posterior.is_some() {
            let (sum, most) = (answer.epistemic_sum(), answer.epistemic_max());
            told += &format!("; mutual information of {} draws: sum {sum:.3}, largest {most:.3}", self.arguments.draws);
        }
        told + "]"
    }
}
