//! An answer word by word, and what is told of it behind it.

use super::shade::Shader;
use crate::session::Outcome;
use bayes_lora::data::Tokenizer;
use bayes_lora::generate::{Answer, Ended, Generator, Request};
use bayes_lora::progress::Control;
use std::io::{IsTerminal, Write, stdout};

pub use super::shade::Look;

impl Look {
    /// Colours where standard output is a terminal that has them.
    pub fn of_output() -> Self {
        let has_colours = stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        if has_colours { Self::Colours } else { Self::Marks }
    }
}

/// Writes the answer to one request on standard output as it comes, its words shaded by their largest mutual information.
pub fn write_answer(generator: &Generator, request: Request, look: Look, control: &Control) -> Outcome<Answer> {
    let (mut out, mut shader) = (stdout(), Shader::new(look));
    let mut stream = generator.stream(&[request], control)?;
    let mut stopped = None;
    for piece in stream.by_ref() {
        match piece {
            Ok(piece) => {
                let doubt = piece.tokens.iter().fold(0.0f64, |most, token| most.max(token.epistemic));
                write!(out, "{}", shader.push(&piece.text, doubt))?;
                out.flush()?;
            }
            Err(error) => stopped = Some(error),
        }
    }
    writeln!(out, "{}", shader.finish())?;
    match stopped {
        Some(error) => Err(error.into()),
        None => stream.answers().pop().ok_or_else(|| "no answer".into()),
    }
}

/// An answer's numbers in a line; `draws` where there is a posterior.
pub fn told(answer: &Answer, tokenizer: &Tokenizer, draws: Option<usize>) -> String {
    let why = match &answer.ended {
        Ended::EndToken(id) => format!("ended with {}", tokenizer.token(*id)),
        Ended::StopString(stop) => format!("ended before {stop:?}"),
        Ended::MaxNewTokens => "cut at --max-new-tokens".into(),
        Ended::Context => "the context is full".into(),
        Ended::Cancelled => "stopped".into(),
    };
    let (n, log, entropy) = (answer.tokens.len(), answer.mean_log_probability(), answer.mean_entropy());
    let mut told = format!("[{n} tokens, {why}; a token: log-probability {log:.3}, entropy {entropy:.3} nats");
    if let Some(draws) = draws {
        let (sum, most) = (answer.epistemic_sum(), answer.epistemic_max());
        told += &format!("; mutual information of {draws} draws: sum {sum:.3}, largest {most:.3}");
    }
    told + "]"
}
