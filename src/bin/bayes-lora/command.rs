//! The commands: one line each.

use crate::completions::Completions;
use crate::man::Man;
use crate::session::{Outcome, Session};
use clap::Subcommand;

#[derive(Subcommand)]
pub enum Command {
    Completions(Completions),
    Man(Man),
}

impl Command {
    pub fn run(&self, session: &Session) -> Outcome {
        match self {
            Self::Completions(command) => command.run(),
            Self::Man(command) => command.run(session),
        }
    }
}
