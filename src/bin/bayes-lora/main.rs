//! The program `bayes-lora`: fine-tunes adapters, finds their posteriors, and answers with them, without a line of Rust.
//!
//! One file a command. Words and progress go to standard error, results to standard output: as text, or with `--json` as one JSON
//! value. Exit codes: 0 done; 1 failed; 2 the command line is wrong; 130 interrupted, with its work kept.

mod adapted;
mod base;
mod blocks;
mod chat;
mod command;
mod compare;
mod completions;
mod device;
mod estimate;
mod fit;
mod fitting;
mod flags;
mod generate;
mod generation;
mod inspect;
mod kind;
mod kinds;
mod man;
mod merge;
mod predict;
mod score;
mod session;
mod settings;
mod sink;
mod texts;
mod train;

use clap::{CommandFactory, FromArgMatches, Parser};
use command::Command;
use session::{Running, Session};
use settings::Refused;
use std::process::ExitCode;

/// The command line is wrong, as clap says it too.
const USAGE: u8 = 2;

#[derive(Parser)]
#[command(name = "bayes-lora", version, about, subcommand_required = true, max_term_width = 100)]
struct Program {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    running: Running,
}

/// All commands with their flags.
fn program() -> clap::Command {
    let mut program = Program::command();
    program.build();
    program
}

fn main() -> ExitCode {
    let matches = match settings::read(&program(), std::env::args_os().collect()) {
        Ok(matches) => matches,
        Err(Refused::Line(error)) => error.exit(),
        Err(Refused::File(reason)) => {
            eprintln!("error: {reason}");
            return ExitCode::from(USAGE);
        }
    };
    let Program { command, running } = Program::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let session = match Session::new(&running, settings::resolved(&program(), &matches)) {
        Ok(session) => session,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::FAILURE;
        }
    };
    session.end(command.run(&session))
}
