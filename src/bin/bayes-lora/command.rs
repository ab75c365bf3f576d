//! The commands: one line each.

use crate::completions::Completions;
use crate::fit::Fit;
use crate::man::Man;
use crate::predict::Predict;
use crate::session::{Outcome, Session};
use crate::train::Train;
use clap::Subcommand;

#[derive(Subcommand)]
pub enum Command {
    Train(Box<Train>),
    Fit(Box<Fit>),
    Predict(Box<Predict>),
    Completions(Completions),
    Man(Man),
}

impl Command {
    pub fn run(&self, session: &Session) -> Outcome {
        match self {
            Self::Train(command) => command.run(session),
            Self::Fit(command) => command.run(session),
            Self::Predict(command) => command.run(session),
            Self::Completions(command) => command.run(),
            Self::Man(command) => command.run(session),
        }
    }
}
