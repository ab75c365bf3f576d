//! `bayes-lora chat`.

use crate::adapted::Adapted;
use crate::generate::chat;
use crate::generation::{GenerationArguments, Look, told, write_answer};
use crate::session::{Outcome, Session};
use bayes_lora::data::{ChatTurn, Role};
use bayes_lora::generate::{Answer, Generator, Request};
use bayes_lora::models::CausalLm;
use clap::Args;
use std::io::{BufRead, IsTerminal, Write, stdin, stdout};

/// What forgets the chat so far.
const NEW: &str = "/new";

/// Talk with a model; words are shaded by how much the posterior's draws disagree about them
#[derive(Args)]
#[command(after_help = "\
A line is a message, and earlier ones are remembered until `/new`. A model without a chat template goes on with each line by itself.
The end of the input (Ctrl-D) ends the talk. With --plain, marks stand behind doubtful words: `?` from 0.05 nats of mutual information
on, `??` from 0.15 and `???` from 0.4.

Example:
  bayes-lora chat --model SmolLM2-135M-Instruct --adapter my_adapter")]
pub struct Chat {
    #[command(flatten)]
    generation: GenerationArguments,
    /// What stands before the first message of a chat
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// Marks instead of colours; where there are no colours this is so anyway
    #[arg(long)]
    plain: bool,
}

/// A talk as far as it has come.
struct Talk<'a> {
    chat: &'a Chat,
    adapted: &'a Adapted<CausalLm>,
    generator: Generator<'a>,
    turns: Vec<ChatTurn>,
    session: &'a Session,
}

impl Chat {
    pub fn run(&self, session: &Session) -> Outcome {
        let adapted = self.generation.load(session)?;
        if self.system.is_some() && !self.generation.asks_in_chat(&adapted.tokenizer) {
            return Err("--system: nothing is put as a chat (the model has no chat template, or --raw is given)".into());
        }
        let generator = self.generation.generator(&adapted, 1)?;
        let mut talk = Talk { chat: self, adapted: &adapted, generator, turns: self.opening(), session };
        let mut lines = stdin().lock().lines();
        loop {
            session.control().check("chat", 0, 0)?;
            if stdin().is_terminal() {
                print!("> ");
                stdout().flush()?;
            }
            match lines.next().transpose()? {
                None => return Ok(session.control().check("chat", 0, 0)?),
                Some(line) if line.trim().is_empty() => {}
                Some(line) if line.trim() == NEW => talk.turns = self.opening(),
                Some(line) => match talk.answer(&line) {
                    Err(error) if session.control().is_cancelled() => return Err(error),
                    // an answer that cannot be given ends no talk
                    Err(error) => eprintln!("error: {error}"),
                    Ok(()) => {}
                },
            }
        }
    }

    fn opening(&self) -> Vec<ChatTurn> {
        let turn = |content: &String| ChatTurn { role: Role::System, content: content.clone() };
        self.system.iter().map(turn).collect()
    }
}

impl Talk<'_> {
    fn answer(&mut self, line: &str) -> Outcome {
        let tokenizer = &self.adapted.tokenizer;
        if !self.chat.generation.asks_in_chat(tokenizer) {
            write!(stdout(), "{line}")?;
            let answer = self.write(Request::text(tokenizer, line, line)?)?;
            return self.tell(&answer);
        }
        let turn = |role: Role, content: &str| ChatTurn { role, content: content.into() };
        let mut turns = self.turns.clone();
        turns.push(turn(Role::User, line));
        let answer = self.write(chat(tokenizer, line, &turns)?)?;
        turns.push(turn(Role::Assistant, &answer.text));
        self.turns = turns;
        self.tell(&answer)
    }

    fn write(&self, request: Request) -> Outcome<Answer> {
        let look = if self.chat.plain { Look::Marks } else { Look::of_output() };
        write_answer(&self.generator, request, look, &self.session.control())
    }

    fn tell(&self, answer: &Answer) -> Outcome {
        let draws = self.adapted.laplace.is_some().then_some(self.chat.generation.draws());
        self.session.say(told(answer, &self.adapted.tokenizer, draws));
        Ok(())
    }
}
