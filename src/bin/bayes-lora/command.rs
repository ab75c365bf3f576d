//! The commands: one line each.

use crate::chat::Chat;
use crate::compare::Compare;
use crate::completions::Completions;
use crate::fit::Fit;
use crate::generate::Generate;
use crate::man::Man;
use crate::predict::Predict;
use crate::score::Score;
use crate::session::{Outcome, Session};
use crate::train::Train;
use clap::Subcommand;

#[derive(Subcommand)]
pub enum Command {
    Train(Box<Train>),
    Fit(Box<Fit>),
    Predict(Box<Predict>),
    Score(Box<Score>),
    Generate(Box<Generate>),
    Chat(Box<Chat>),
    Compare(Box<Compare>),
    Completions(Completions),
    Man(Man),
}

impl Command {
    pub fn run(&self, session: &Session) -> Outcome {
        match self {
            Self::Train(command) => command.run(session),
            Self::Fit(command) => command.run(session),
            Self::Predict(command) => command.run(session),
            Self::Score(command) => command.run(session),
            Self::Generate(command) => command.run(session),
            Self::Chat(command) => command.run(session),
            Self::Compare(command) => command.run(session),
            Self::Completions(command) => command.run(),
            Self::Man(command) => command.run(session),
        }
    }
}
