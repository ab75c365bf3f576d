//! The commands: one line each.

use crate::chat::Chat;
use crate::compare::Compare;
use crate::completions::Completions;
use crate::generate::Generate;
use crate::man::Man;
use crate::score::Score;
use crate::session::{Outcome, Session};
use clap::Subcommand;

#[derive(Subcommand)]
pub enum Command {
    Score(Score),
    Generate(Generate),
    Chat(Chat),
    Compare(Compare),
    Completions(Completions),
    Man(Man),
}

impl Command {
    pub fn run(&self, session: &Session) -> Outcome {
        match self {
            Self::Score(command) => command.run(session),
            Self::Generate(command) => command.run(session),
            Self::Chat(command) => command.run(session),
            Self::Compare(command) => command.run(session),
            Self::Completions(command) => command.run(),
            Self::Man(command) => command.run(session),
        }
    }
}
