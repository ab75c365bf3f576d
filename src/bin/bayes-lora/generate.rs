//! `bayes-lora generate`.

use crate::adapted::Adapted;
use crate::blocks::{Line, for_each_block};
use crate::generation::{GenerationArguments, Look, told, write_answer};
use crate::predict::Rate;
use crate::session::{Outcome, Session};
use crate::sink::{Sink, beside};
use bayes_lora::data::{ChatTurn, Tokenizer};
use bayes_lora::generate::{Answer, Ended, Generator, Request};
use bayes_lora::models::CausalLm;
use bayes_lora::number::significant;
use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::io::{IsTerminal, stdout};
use std::path::PathBuf;
use std::time::Instant;

/// Batches of prompts whose answers are written together.
const BATCHES: usize = 4;

/// Answer prompts, and say of every token how sure the posterior is of it
#[derive(Args)]
#[command(after_help = "\
Lines of --data are {\"prompt\"} or {\"messages\"}; an \"id\" is kept, and order is. An answer is a line of JSON, in nats. A single
--prompt on a terminal is answered word by word instead.

Where answers are broken, and with --no-posterior are not, the draws of the posterior are too wide: `fit` it with more draws
(--fisher 8) or a larger --prior.

Examples:
  bayes-lora generate --model SmolLM2-135M-Instruct --prompt \"Who is Ada Bell?\"
  bayes-lora generate --model SmolLM2-135M-Instruct --adapter my_adapter --data prompts.jsonl --out answers.jsonl")]
pub struct Generate {
    #[command(flatten)]
    generation: GenerationArguments,
    /// A question, or the beginning of a text; may be given several times
    #[arg(long, value_name = "TEXT", required_unless_present = "data", conflicts_with = "data")]
    prompt: Vec<String>,
    /// Prompts, one a line, plain or gzipped; `-` is standard input
    #[arg(long, value_name = "FILE|-")]
    data: Option<PathBuf>,
    /// File for the answers, which appears whole [default: standard output]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Prompts that are answered at once
    #[arg(long, value_name = "N", default_value_t = 8)]
    batch: usize,
}

/// A line of a file of prompts.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    id: Option<Value>,
    prompt: Option<String>,
    messages: Option<Vec<ChatTurn>>,
}

/// An answer as a line of JSON, in nats. What a posterior says is left out where there is none.
#[derive(Serialize)]
struct Answered<'a> {
    id: &'a Value,
    text: &'a str,
    ended: &'static str,
    n_tokens: usize,
    log_probability: f64,
    mean_log_probability: f64,
    mean_entropy: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    mutual_information: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    largest_mutual_information: Option<f64>,
    tokens: Vec<Token>,
}

#[derive(Serialize)]
struct Token {
    token: String,
    log_probability: f64,
    /// Total: of the averaged distribution.
    entropy: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    expected_entropy: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mutual_information: Option<f64>,
}

/// What to tell of all answers, in nats a token.
#[derive(Default, Serialize)]
struct Total {
    answers: usize,
    /// Those that did not end by themselves.
    cut: usize,
    tokens: usize,
    mean_log_probability: f64,
    mean_entropy: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    mean_mutual_information: Option<f64>,
    seconds: f64,
    out: PathBuf,
}

impl Total {
    /// Adds an answer: sums, until [`Total::mean`] divides them.
    fn add(&mut self, answer: &Answer, has_posterior: bool) {
        let n = answer.tokens.len();
        self.answers += 1;
        self.cut += usize::from(matches!(answer.ended, Ended::MaxNewTokens | Ended::Context));
        self.tokens += n;
        self.mean_log_probability += answer.log_probability();
        self.mean_entropy += answer.tokens.iter().map(|token| token.total).sum::<f64>();
        if has_posterior {
            *self.mean_mutual_information.get_or_insert(0.0) += answer.epistemic_sum();
        }
    }

    fn mean(mut self, begin: Instant, out: PathBuf) -> Self {
        let n = self.tokens.max(1) as f64;
        self.mean_log_probability /= n;
        self.mean_entropy /= n;
        self.mean_mutual_information = self.mean_mutual_information.map(|sum| sum / n);
        Self { seconds: begin.elapsed().as_secs_f64(), out, ..self }
    }
}

impl std::fmt::Display for Total {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { answers, cut, tokens, .. } = self;
        let [log, entropy, seconds] = [self.mean_log_probability, self.mean_entropy, self.seconds].map(significant);
        write!(
            f,
            "{answers} answers, {tokens} tokens, {cut} cut, in {seconds} s; a token: log-probability {log}, entropy {entropy}"
        )?;
        if let Some(information) = self.mean_mutual_information {
            write!(f, ", mutual information {}", significant(information))?;
        }
        write!(f, " nats\nwrote {}", self.out.display())
    }
}

/// A prompt with the id that its answer gets.
struct Prompt {
    id: Value,
    request: Request,
}

impl Generate {
    pub fn run(&self, session: &Session) -> Outcome {
        let mut sink = Sink::open(self.out.as_deref())?;
        let adapted = self.generation.load(session)?;
        let generator = self.generation.generator(&adapted, self.batch)?;
        let by_word = stdout().is_terminal() && self.out.is_none() && !session.is_json();
        if let ([prompt], true) = (&self.prompt[..], by_word) {
            return self.talk(prompt, &adapted, &generator, session);
        }
        let (begin, mut total) = (Instant::now(), Total::default());
        let mut rate = Rate::of("generate", self.data.is_none().then_some(self.prompt.len()), session.is_watched());
        let size = self.batch.saturating_mul(BATCHES).max(1);
        let mut answer = |prompts: Vec<Prompt>| -> Outcome {
            let (ids, requests): (Vec<Value>, Vec<Request>) = prompts.into_iter().map(|p| (p.id, p.request)).unzip();
            for (id, answer) in ids.iter().zip(generator.answers(&requests, &session.control().without_bars())?) {
                sink.put(&Answered::new(id, &answer, &adapted))?;
                total.add(&answer, adapted.laplace.is_some());
            }
            rate.advance(ids.len());
            Ok(())
        };
        match &self.data {
            Some(file) => for_each_block(file, None, size, |_, lines| {
                answer(lines.iter().map(|line| self.of_line(line, &adapted.tokenizer)).collect::<Outcome<_>>()?)
            })?,
            None => {
                for (k, prompts) in self.prompt.chunks(size).enumerate() {
                    let number = |i: usize| Value::from(k * size + i + 1);
                    let of = |(i, prompt): (usize, &String)| self.of_text(number(i), prompt, &adapted.tokenizer);
                    answer(prompts.iter().enumerate().map(of).collect::<Outcome<_>>()?)?;
                }
            }
        }
        drop(rate);
        sink.finish()?;
        if let Some(out) = &self.out {
            session.keep_settings(&beside(out, "run.toml"))?;
            session.show(&total.mean(begin, out.clone()))?;
        }
        Ok(())
    }

    fn talk(&self, prompt: &str, adapted: &Adapted<CausalLm>, generator: &Generator, session: &Session) -> Outcome {
        let Prompt { request, .. } = self.of_text(Value::Null, prompt, &adapted.tokenizer)?;
        let answer = write_answer(generator, request, Look::of_output(), &session.control())?;
        let draws = adapted.laplace.is_some().then_some(self.generation.draws());
        session.say(told(&answer, &adapted.tokenizer, draws));
        Ok(())
    }

    /// A prompt of the command line: its tokens are drawn as those of the same prompt anywhere.
    fn of_text(&self, id: Value, prompt: &str, tokenizer: &Tokenizer) -> Outcome<Prompt> {
        let request = match self.generation.asks_in_chat(tokenizer) {
            true => Request::chat(tokenizer, prompt, prompt)?,
            false => Request::text(tokenizer, prompt, prompt)?,
        };
        Ok(Prompt { id, request })
    }

    fn of_line(&self, line: &Line, tokenizer: &Tokenizer) -> Outcome<Prompt> {
        let wrong = |reason: String| format!("{}: {reason}", line.place);
        let value: Value = serde_json::from_str(&line.text).map_err(|e| wrong(e.to_string()))?;
        if !value.is_object() {
            return Err(wrong(format!("is {value}, not a JSON object")).into());
        }
        let Asked { id, prompt, messages } = serde_json::from_value(value).map_err(|e| wrong(e.to_string()))?;
        let id = match id {
            None => Value::from(line.number),
            Some(id @ (Value::String(_) | Value::Number(_))) => id,
            Some(other) => return Err(wrong(format!("`id` is {other}, no text and no number")).into()),
        };
        let key = id.as_str().map_or_else(|| id.to_string(), String::from);
        let request = match (prompt, messages) {
            (Some(prompt), None) if self.generation.asks_in_chat(tokenizer) => Request::chat(tokenizer, key, &prompt),
            (Some(prompt), None) => Request::text(tokenizer, key, &prompt),
            (None, Some(_)) if self.generation.raw => {
                return Err(wrong("`messages` are put by the chat template, which `--raw` leaves out".into()).into());
            }
            (None, Some(turns)) => chat(tokenizer, key, &turns),
            _ => return Err(wrong("needs `prompt`, or `messages`".into()).into()),
        };
        Ok(Prompt { id, request: request.map_err(|error| wrong(error.to_string()))? })
    }
}

/// The request that the assistant goes on with a chat.
pub fn chat(tokenizer: &Tokenizer, key: impl Into<String>, turns: &[ChatTurn]) -> bayes_lora::Result<Request> {
    let text = tokenizer.chat_format()?.render_turns(turns, true)?;
    // the template writes its special tokens itself
    Ok(Request::new(key, tokenizer.encode(&text, false)?))
}

impl<'a> Answered<'a> {
    fn new(id: &'a Value, answer: &'a Answer, adapted: &Adapted<CausalLm>) -> Self {
        let of_posterior = |value: f64| adapted.laplace.is_some().then_some(value);
        let token = |token: &bayes_lora::generate::Token| Token {
            token: adapted.tokenizer.token(token.id),
            log_probability: token.log_probability,
            entropy: token.total,
            expected_entropy: of_posterior(token.expected),
            mutual_information: of_posterior(token.epistemic),
        };
        Self {
            id,
            text: &answer.text,
            ended: match answer.ended {
                Ended::EndToken(_) => "end_token",
                Ended::StopString(_) => "stop",
                Ended::MaxNewTokens => "max_new_tokens",
                Ended::Context => "context",
                Ended::Cancelled => "cancelled",
            },
            n_tokens: answer.tokens.len(),
            log_probability: answer.log_probability(),
            mean_log_probability: answer.mean_log_probability(),
            mean_entropy: answer.mean_entropy(),
            mutual_information: of_posterior(answer.epistemic_sum()),
            largest_mutual_information: of_posterior(answer.epistemic_max()),
            tokens: answer.tokens.iter().map(token).collect(),
        }
    }
}
