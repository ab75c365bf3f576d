//! The commands: one line each.

use crate::chat::Chat;
use crate::compare::Compare;
use crate::completions::Completions;
use crate::estimate::Estimate;
use crate::fit::Fit;
use crate::generate::Generate;
use crate::inspect::Inspect;
use crate::man::Man;
use crate::merge::Merge;
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
    Estimate(Box<Estimate>),
    Inspect(Inspect),
    Merge(Merge),
    Completions(Completions),
    Man(Man),
}

impl Command {
    pub fn run(&self, session: &Session) -> Outcome {
        if session.is_json() && matches!(self, Self::Chat(_) | Self::Completions(_) | Self::Man(_)) {
            return Err("--json: what this command says is no value that could be JSON".into());
        }
        match self {
            Self::Train(command) => command.run(session),
            Self::Fit(command) => command.run(session),
            Self::Predict(command) => command.run(session),
            Self::Score(command) => command.run(session),
            Self::Generate(command) => command.run(session),
            Self::Chat(command) => command.run(session),
            Self::Compare(command) => command.run(session),
            Self::Estimate(command) => command.run(session),
            Self::Inspect(command) => command.run(session),
            Self::Merge(command) => command.run(session),
            Self::Completions(command) => command.run(),
            Self::Man(command) => command.run(session),
        }
    }
}
